//! The guest's parts on disk, named by the hash of what they were made from.
//!
//! ```text
//! $MINIRUN_CACHE/vm/  or  target/vm/
//!   lock, apt.lock           held while something is built, while apt is used
//!   accelerator              "kvm" or "tcg": what a probe found out
//!   apt/                     apt's own lists and settings; the host's are never touched
//!   kernel-6.1               the package and version that stands for this series
//!   kernel-<key>/            vmlinux · modules.ext4 · early/NN-NAME.ko · release
//!   initrd-<key>.cpio        early modules + the guest's process 1
//!   root-<profile>-<key>.ext4, .packages
//! ```
//! A part is written under a temporary name and renamed when it is whole, so an interrupted
//! build leaves nothing that could be mistaken for a part.

use std::{
    env, fs,
    fs::File,
    io,
    path::{Path, PathBuf},
    process,
};

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};

const LOCK: &str = "lock";

/// The directory of built guests.
#[derive(Debug, Clone)]
pub struct Cache {
    root: PathBuf,
}

impl Cache {
    /// Opens (and makes) `$MINIRUN_CACHE/vm`, else `target/vm` of this workspace.
    ///
    /// # Errors
    /// When the directory cannot be made.
    pub fn open() -> Result<Self> {
        let root = match env::var_os("MINIRUN_CACHE") {
            Some(cache) => PathBuf::from(cache).join("vm"),
            None => Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/vm"),
        };
        Self::at(root)
    }

    /// Opens (and makes) a cache at `root`.
    ///
    /// # Errors
    /// When the directory cannot be made.
    pub fn at(root: PathBuf) -> Result<Self> {
        let failed = || format!("cannot make the cache {}: set MINIRUN_CACHE", root.display());
        fs::create_dir_all(&root).with_context(failed)?;
        let root = fs::canonicalize(&root).with_context(failed)?;
        Ok(Self { root })
    }

    /// Where `name` is or would be.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// Every entry with its size in bytes on disk, sorted by name.
    ///
    /// # Errors
    /// When the cache cannot be read.
    pub fn entries(&self) -> Result<Vec<(String, u64)>> {
        let sized = |name: String| {
            let bytes = on_disk(&self.path(&name))?;
            Ok((name, bytes))
        };
        self.names()?.into_iter().map(sized).collect()
    }

    /// The names of the entries, sorted. Nothing below them is looked at: somebody else may be
    /// fetching package lists there.
    fn names(&self) -> Result<Vec<String>> {
        let entries = fs::read_dir(&self.root)
            .with_context(|| format!("cannot read {}", self.root.display()))?;
        let name =
            |entry: io::Result<fs::DirEntry>| Ok(entry?.file_name().to_string_lossy().into_owned());
        let mut names = entries.map(name).collect::<Result<Vec<_>>>()?;
        names.sort();
        Ok(names)
    }

    /// Removes the parts of which `keep` says no; gives their names.
    ///
    /// # Errors
    /// When something cannot be removed.
    pub(crate) fn retain(&self, keep: impl Fn(&str) -> bool) -> Result<Vec<String>> {
        let _lock = self.lock()?;
        let mut removed = Vec::new();
        for name in self.names()? {
            // Who holds or waits for the lock has this very file open.
            if !name.ends_with(LOCK) && !keep(&name) {
                self.remove(&name)?;
                removed.push(name);
            }
        }
        Ok(removed)
    }

    /// Removes everything.
    ///
    /// # Errors
    /// When something cannot be removed.
    pub fn clear(&self) -> Result<()> {
        self.retain(|_| false).map(drop)
    }

    /// The part `name`, made by `make` at the path it is given unless it is there already.
    pub(crate) fn part(
        &self,
        name: &str,
        make: impl FnOnce(&Path) -> Result<()>,
    ) -> Result<PathBuf> {
        let path = self.path(name);
        if path.exists() {
            return Ok(path);
        }
        let lock = self.lock()?;
        // Another process may have made it while this one waited.
        if path.exists() {
            return Ok(path);
        }
        self.make(name, make, &lock)
    }

    /// The file `name`, made anew; until it is whole the old one stays.
    pub(crate) fn renewed(
        &self,
        name: &str,
        make: impl FnOnce(&Path) -> Result<()>,
    ) -> Result<PathBuf> {
        self.make(name, make, &self.lock()?)
    }

    fn make(
        &self,
        name: &str,
        make: impl FnOnce(&Path) -> Result<()>,
        _lock: &File,
    ) -> Result<PathBuf> {
        let path = self.path(name);
        self.remove_abandoned()?;
        let temporary = self.path(&format!(".new-{}-{name}", process::id()));
        let made = make(&temporary).and_then(|()| Ok(fs::rename(&temporary, &path)?));
        if made.is_err() {
            remove_any(&temporary)?;
        }
        made.with_context(|| format!("while building {name}"))?;
        Ok(path)
    }

    /// Writes a small file whole or not at all.
    pub(crate) fn write(&self, name: &str, content: &str) -> Result<()> {
        let temporary = self.path(&format!(".new-{}-{name}", process::id()));
        fs::write(&temporary, content)?;
        fs::rename(&temporary, self.path(name))?;
        Ok(())
    }

    pub(crate) fn remove(&self, name: &str) -> Result<()> {
        remove_any(&self.path(name)).with_context(|| format!("cannot remove {name}"))
    }

    /// What a killed build left. Only called with the lock: nobody else is building.
    fn remove_abandoned(&self) -> Result<()> {
        for name in self.names()? {
            if name.starts_with(".new-") {
                self.remove(&name)?;
            }
        }
        Ok(())
    }

    fn lock(&self) -> Result<File> {
        self.lock_at(LOCK)
    }

    /// A lock of its own for something in the cache that is no part. Always taken before the one
    /// that a part is built with.
    pub(crate) fn lock_for(&self, name: &str) -> Result<File> {
        self.lock_at(&format!("{name}.{LOCK}"))
    }

    fn lock_at(&self, name: &str) -> Result<File> {
        let file = File::create(self.path(name))?;
        if file.try_lock().is_err() {
            eprintln!("vm: waiting for another build in {}", self.root.display());
            file.lock()?;
        }
        Ok(file)
    }
}

fn remove_any(path: &Path) -> io::Result<()> {
    let removed = match fs::symlink_metadata(path) {
        Ok(meta) if meta.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    removed
        .or_else(|error| if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) })
}

/// What a file or a tree takes. What goes away meanwhile takes nothing.
fn on_disk(path: &Path) -> Result<u64> {
    use std::os::unix::fs::MetadataExt;
    let Some(meta) = there(fs::symlink_metadata(path))? else { return Ok(0) };
    let mut bytes = meta.blocks() * 512;
    if meta.is_dir() {
        for entry in there(fs::read_dir(path))?.into_iter().flatten() {
            bytes += on_disk(&entry?.path())?;
        }
    }
    Ok(bytes)
}

fn there<T>(found: io::Result<T>) -> io::Result<Option<T>> {
    match found {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        found => found.map(Some),
    }
}

/// A name derived from everything that went into a part.
#[derive(Debug, Clone, Default)]
pub(crate) struct Key(Sha256);

impl Key {
    /// Adds text. Lengths go in as well: ("ab", "c") and ("a", "bc") are different inputs.
    pub(crate) fn text(mut self, text: &str) -> Self {
        self.0.update(u64::try_from(text.len()).unwrap_or(u64::MAX).to_le_bytes());
        self.0.update(text.as_bytes());
        self
    }

    /// Adds a list of texts.
    pub(crate) fn list<'a>(self, texts: impl IntoIterator<Item = &'a str>) -> Self {
        texts.into_iter().fold(self.text("list"), Self::text).text("end")
    }

    /// Adds bytes.
    pub(crate) fn bytes(mut self, bytes: &[u8]) -> Self {
        self.0.update(u64::try_from(bytes.len()).unwrap_or(u64::MAX).to_le_bytes());
        self.0.update(bytes);
        self
    }

    /// Sixteen hex digits.
    pub(crate) fn finish(self) -> String {
        self.0.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cache(name: &str) -> Cache {
        let root = env::temp_dir().join(format!("vm-cache-{}-{name}", process::id()));
        remove_any(&root).unwrap();
        Cache::at(root).unwrap()
    }

    #[test]
    fn keys_depend_on_every_byte_and_boundary() {
        let key = |texts: &[&str]| Key::default().list(texts.iter().copied()).finish();
        assert_eq!(key(&["a", "b"]), key(&["a", "b"]));
        assert_ne!(key(&["a", "b"]), key(&["ab"]));
        assert_ne!(key(&["ab", "c"]), key(&["a", "bc"]));
        assert_ne!(key(&["a", "b"]), key(&["b", "a"]));
        assert_ne!(Key::default().bytes(b"x").finish(), Key::default().bytes(b"y").finish());
        assert_eq!(key(&[]).len(), 16);
    }

    #[test]
    fn a_part_is_made_once() {
        let cache = cache("once");
        let made = cache.part("p", |path| Ok(fs::write(path, "1")?)).unwrap();
        let again = cache.part("p", |_| unreachable!("it is there")).unwrap();
        assert_eq!(made, again);
        assert_eq!(fs::read_to_string(made).unwrap(), "1");
        cache.clear().unwrap();
        assert_eq!(cache.entries().unwrap().len(), 1, "only the lock is left");
        remove_any(&cache.root).unwrap();
    }

    #[test]
    fn a_failed_build_leaves_nothing() {
        let cache = cache("failed");
        let result = cache.part("p", |path| {
            fs::create_dir(path)?;
            fs::write(path.join("half"), "1")?;
            anyhow::bail!("no network")
        });
        assert!(format!("{:#}", result.unwrap_err()).contains("while building p: no network"));
        fs::write(cache.path(".new-1-q"), "killed").unwrap();
        cache.part("r", |path| Ok(fs::write(path, "")?)).unwrap();
        let names: Vec<_> = cache.entries().unwrap().into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["lock", "r"]);
        assert!(cache.renewed("r", |_| anyhow::bail!("no network")).is_err());
        assert_eq!(fs::read_to_string(cache.path("r")).unwrap(), "", "the old one stays");
        cache.renewed("r", |path| Ok(fs::write(path, "new")?)).unwrap();
        assert_eq!(fs::read_to_string(cache.path("r")).unwrap(), "new");
        remove_any(&cache.root).unwrap();
    }

    #[test]
    fn what_comes_and_goes_beside_a_build_does_not_disturb_it() {
        let cache = cache("beside");
        let lists = cache.path("apt");
        let (stop, stopped) = std::sync::mpsc::channel::<()>();
        let beside = std::thread::spawn(move || {
            while stopped.try_recv().is_err_and(|e| e == std::sync::mpsc::TryRecvError::Empty) {
                fs::create_dir(&lists).unwrap();
                (0..20).for_each(|name| fs::write(lists.join(name.to_string()), "").unwrap());
                fs::remove_dir_all(&lists).unwrap();
            }
        });
        for _ in 0..500 {
            cache.renewed("r", |path| Ok(fs::write(path, "")?)).unwrap();
            cache.entries().unwrap();
        }
        drop(stop);
        beside.join().unwrap();
        remove_any(&cache.root).unwrap();
    }
}
