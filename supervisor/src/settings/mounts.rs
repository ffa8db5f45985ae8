//! Mounts: what of the host, or of memory, a container sees at which path.

use std::fs::{DirBuilder, File};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use linux::path::Root;
use linux::{Errno, OFlag};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::Settings;

/// One mount.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Mount {
    /// The path on the host; `None` is an empty directory in memory.
    pub(crate) source: Option<PathBuf>,
    /// The path in the container.
    pub(crate) target: String,
    /// Options of mount(8).
    pub(crate) options: Vec<String>,
    /// Whether the source is relative to what belongs to the slot, and made for it.
    pub(crate) of_slot: bool,
    /// Whether the source is made, as a directory, when it is missing at a start.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(crate) is_made: bool,
    /// What below the source is mounted instead of all of it. Containers may have put links there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) within: Option<PathBuf>,
}

impl Mount {
    /// An empty directory in memory.
    pub(crate) fn tmpfs(target: &str, options: Vec<String>) -> Mount {
        Mount { target: target.to_string(), options, ..Mount::default() }
    }

    /// A path of the host.
    pub(crate) fn bind(source: PathBuf, target: &str, is_read_only: bool) -> Mount {
        let access = if is_read_only { "ro" } else { "rw" };
        let options = ["rbind", "rprivate", access].map(String::from).to_vec();
        Mount { source: Some(source), target: target.to_string(), options, ..Mount::default() }
    }

    /// As config.json has it.
    pub(super) fn entry(&self) -> Value {
        match &self.source {
            Some(source) => json!({"destination": self.target, "type": "bind", "source": source,
                                   "options": self.options}),
            None => json!({"destination": self.target, "type": "tmpfs", "source": "tmpfs",
                           "options": self.options}),
        }
    }

    /// Makes what must be there, and looks for what of it is mounted.
    fn place(&mut self, of_slot: &Path) -> Result<Option<Part>> {
        let Some(source) = &mut self.source else { return Ok(None) };
        if self.of_slot {
            *source = of_slot.join(&*source);
        }
        if (self.of_slot || self.is_made) && !source.exists() {
            let mut make = DirBuilder::new();
            let made = make.recursive(true).mode(0o755).create(&*source);
            made.with_context(|| format!("cannot make {}", source.display()))?;
        }
        let Some(within) = self.within.take() else { return Ok(None) };
        let opened = open_within(source, &within)
            .with_context(|| format!("{} in {}", within.display(), source.display()))?;
        *source = std::fs::read_link(format!("/proc/self/fd/{}", opened.as_raw_fd()))?;
        Ok(Some(Part { opened, target: self.target.clone() }))
    }
}

/// A part of a volume, and where it is to be seen.
///
/// A runtime takes paths. Between our look and its own whoever writes to the volume could put a
/// link in the place (CVE-2017-1002101, CVE-2021-30465), so what has been mounted is compared with
/// what was found, before anything runs in the container.
#[derive(Debug)]
pub(crate) struct Part {
    opened: OwnedFd,
    target: String,
}

impl Part {
    /// Whether the container with this first process has it where it should be.
    ///
    /// # Errors
    /// It has something else there.
    pub(crate) fn check(&self, pid: i32) -> Result<()> {
        let root = Root::open(Path::new(&format!("/proc/{pid}/root")))?;
        let there = File::from(root.in_root(Path::new(&self.target), OFlag::O_PATH)?).metadata()?;
        let found = File::from(self.opened.try_clone()?).metadata()?;
        if (there.dev(), there.ino()) != (found.dev(), found.ino()) {
            bail!("{} is not the part of the volume that was found", self.target);
        }
        Ok(())
    }
}

/// What is at a path below a directory; a directory is made when nothing is. No link leads out.
fn open_within(source: &Path, within: &Path) -> linux::Result<OwnedFd> {
    let root = Root::open(source)?;
    match root.in_root(within, OFlag::O_PATH) {
        Err(error) if error.errno == Errno::ENOENT => root.make_missing_dir(within, 0o755),
        found => found,
    }
}

impl Settings {
    /// Makes what the mounts need; what belongs to the slot is below `of_slot`. The parts have to
    /// be checked when the container is made.
    ///
    /// # Errors
    /// A directory cannot be made, or what is mounted of it is not inside.
    pub(crate) fn place(&mut self, of_slot: &Path) -> Result<Vec<Part>> {
        let placed = self.mounts.iter_mut().map(|mount| mount.place(of_slot));
        Ok(placed.collect::<Result<Vec<_>>>()?.into_iter().flatten().collect())
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn placed(mount: Mount, of_slot: &Path) -> Result<(PathBuf, Vec<Part>)> {
        let mut settings = Settings { mounts: vec![mount], ..Settings::default() };
        let open = settings.place(of_slot)?;
        Ok((settings.mounts.remove(0).source.context("it has a source")?, open))
    }

    #[test]
    fn sources_are_made_and_no_link_leads_out() {
        let dir = std::env::temp_dir().join(format!("minisup-mounts-{}", std::process::id()));
        let (slot, named, bound) = (dir.join("slot"), dir.join("named"), dir.join("bound"));
        let nameless = Mount { of_slot: true, ..Mount::bind("data".into(), "/data", false) };
        assert_eq!(placed(nameless, &slot).unwrap().0, slot.join("data"));
        assert!(slot.join("data").is_dir());
        placed(Mount::bind(bound.clone(), "/b", false), &slot).unwrap();
        assert!(!bound.exists(), "what is somebody else's is not made");

        let part = |within: &str| Mount {
            is_made: true,
            within: Some(within.into()),
            ..Mount::bind(named.clone(), "/db", false)
        };
        let real = |within: &str| placed(part(within), &slot).map(|(source, _)| source);
        assert_eq!(real("a/b").unwrap(), named.join("a/b"));
        std::fs::write(named.join("file"), "").unwrap();
        assert_eq!(real("file").unwrap(), named.join("file"));
        // A container that writes to the volume puts links where the next one looks.
        symlink("/etc", named.join("absolute")).unwrap();
        symlink("../../../etc", named.join("up")).unwrap();
        for link in ["absolute", "up", "absolute/new"] {
            assert!(!real(link).is_ok_and(|found| !found.starts_with(&named)), "{link}");
        }
        assert!(!Path::new("/etc/new").exists());
        // The same after our look: what is there is not what was found.
        let (source, parts) = placed(part("a/b"), &slot).unwrap();
        let pid = std::process::id().cast_signed();
        let seen_at = |target: &Path| Part {
            opened: parts[0].opened.try_clone().unwrap(),
            target: target.display().to_string(),
        };
        seen_at(&source).check(pid).unwrap();
        std::fs::rename(&source, named.join("away")).unwrap();
        symlink("/etc", &source).unwrap();
        seen_at(&source).check(pid).unwrap_err();
        std::fs::remove_dir_all(dir).unwrap();
    }
}
