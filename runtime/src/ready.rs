//! What rootfs-tools has found out about an image, kept so that the next container of it can start
//! without rootfs-tools.
//!
//! To make a bundle of an image, rootfs-tools resolves the name, reads and verifies two documents,
//! looks the user up in the layers, and translates. None of that changes as long as the store's
//! names do not. So it leaves what it found in `ready/NAME` of the store, with the identity of the
//! `index.json` that it was found by, and `minirun run IMAGE` needs no second program as long as
//! that file is the same one. Whatever does not fit, this answers nothing and rootfs-tools is asked:
//! there is one place that reports errors, and it is not here.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use linux::credentials;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::plan::UPPER_ANNOTATION;

/// The longest name of a file, `NAME_MAX` of limits.h.
const LONGEST: usize = 255;

/// An image that is ready to run.
#[derive(Debug, Serialize, Deserialize)]
pub struct Ready {
    /// The version of the program that wrote this: another one may translate otherwise.
    pub version: String,
    /// The user and group that wrote this: the configuration for root is another one.
    pub user: (u32, u32),
    /// Where the store was: the configuration names directories of it.
    pub store: PathBuf,
    /// The names of the store at that time.
    pub index: Stamp,
    /// The chain ids of its layers, the topmost first.
    pub layers: Vec<String>,
    /// Under which boot this holds, when files of the layers may not be on the disk yet: another
    /// one may not have them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub boot: Option<String>,
    /// What the image's or the caller's arguments are given to.
    pub entrypoint: Vec<String>,
    /// The image's arguments.
    pub cmd: Vec<String>,
    /// The whole `config.json`; the program and the place of the writable layer are those of
    /// another container.
    pub config: Value,
}

/// Which file `index.json` is. It is never changed, only replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stamp {
    inode: u64,
    bytes: u64,
    /// When the inode was last changed, in nanoseconds since 1970: numbers of inodes come again.
    changed_ns: i64,
}

impl Stamp {
    /// That of the store's names now; `None` while it has none.
    pub fn of(store: &Path) -> Option<Self> {
        let file = fs::metadata(store.join("index.json")).ok()?;
        let changed_ns = file.ctime().checked_mul(1_000_000_000)?.checked_add(file.ctime_nsec())?;
        Some(Self { inode: file.ino(), bytes: file.len(), changed_ns })
    }
}

/// Where the store keeps what is ready of the image that is called so on the command line; `None`
/// for what is no name of an image.
pub fn file_of(image: &str) -> Option<String> {
    let fits = |c: char| c.is_ascii_alphanumeric() || "._-/:@".contains(c);
    (!image.is_empty() && image.len() <= LONGEST && image.chars().all(fits))
        .then(|| format!("ready/{}", image.replace('/', "%")))
}

/// Makes an ephemeral bundle as `rootfs-tools bundle --ephemeral` makes it, if the image is ready.
/// `None`: it is not, and nothing was made.
pub(crate) fn make_bundle(
    store: Option<&Path>,
    image: &str,
    command: &[String],
    bundle: &Path,
) -> Option<()> {
    let store = store.map_or_else(default_store, |store| std::path::absolute(store).ok())?;
    let ready = store.join(file_of(image)?);
    // As every user of the store: nothing is collected while somebody holds this.
    let lock = File::open(store.join("lock")).ok()?;
    lock.lock_shared().ok()?;
    let mut ready: Ready = serde_json::from_slice(&fs::read(ready).ok()?).ok()?;
    let bundle = std::path::absolute(bundle).ok()?;
    let config = ready.config_for(&store, command, &bundle)?;
    // First the store learns who needs the layers, then somebody does.
    record(&store, &ready.layers, &bundle)?;
    let made = fs::create_dir(&bundle)
        .and_then(|()| fs::create_dir(bundle.join("rootfs")))
        .and_then(|()| fs::write(bundle.join("config.json"), config));
    if made.is_err() {
        drop(fs::remove_dir_all(&bundle));
    }
    made.ok()
}

impl Ready {
    /// The configuration, if all that it was made of is still so.
    fn config_for(&mut self, store: &Path, command: &[String], bundle: &Path) -> Option<Vec<u8>> {
        let user = (credentials::effective_user(), credentials::effective_group());
        let is_current = self.version == env!("CARGO_PKG_VERSION")
            && self.user == user
            && self.store == store
            && Stamp::of(store) == Some(self.index)
            && (self.boot.is_none() || self.boot == boot_id())
            && self.layers.iter().all(|layer| record_of(store, layer).is_some_and(|r| r.exists()));
        if !is_current {
            return None;
        }
        let arguments = if command.is_empty() { &self.cmd } else { command };
        let args: Vec<&String> = self.entrypoint.iter().chain(arguments).collect();
        if args.is_empty() {
            return None;
        }
        self.config["process"]["args"] = json!(args);
        let writable = store.join("writable").join(key_of(bundle));
        self.config["annotations"][UPPER_ANNOTATION] = json!(writable.to_str()?);
        serde_json::to_vec(&self.config).ok()
    }
}

/// The record of an unpacked layer.
fn record_of(store: &Path, chain_id: &str) -> Option<PathBuf> {
    let hex = chain_id.strip_prefix("sha256:")?;
    Some(store.join("layers/sha256").join(hex).join("layer.json"))
}

/// What the store calls a bundle: the SHA-256 of its path.
fn key_of(bundle: &Path) -> String {
    let digest = Sha256::digest(bundle.as_os_str().as_encoded_bytes());
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Writes down that a bundle uses layers, unless the container that had its name before did.
fn record(store: &Path, layers: &[String], bundle: &Path) -> Option<()> {
    let text = serde_json::to_vec(&json!({"bundle": bundle.to_str()?, "layers": layers})).ok()?;
    let key = key_of(bundle);
    let place = store.join("bundles").join(format!("{key}.json"));
    if fs::read(&place).is_ok_and(|there| there == text) {
        return Some(());
    }
    // Whoever finds itself alone in the store removes what is half made.
    let temporary = store.join("tmp").join(format!("{key}-{}", std::process::id()));
    fs::write(&temporary, text).and_then(|()| fs::rename(&temporary, place)).ok()
}

/// Which start of the machine this is, random(4); `None` without /proc.
pub fn boot_id() -> Option<String> {
    let text = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    Some(text.trim_end().to_owned()).filter(|id| !id.is_empty())
}

/// Where the images of this user are: `/var/lib/minirun/images` for root, otherwise in the user's
/// data directory (XDG Base Directory Specification). `None` for a user without a home.
pub fn default_store() -> Option<PathBuf> {
    if credentials::effective_user() == 0 {
        return Some("/var/lib/minirun/images".into());
    }
    let absolute =
        |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let data = absolute("XDG_DATA_HOME")
        .or_else(|| absolute("HOME").map(|home| home.join(".local/share")))?;
    Some(data.join("minirun/images"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_images_become_names_of_files() {
        let name = file_of("registry.example:5000/team/web:v1");
        assert_eq!(name.as_deref(), Some("ready/registry.example:5000%team%web:v1"));
        for other in ["", "a%b", "web\n", "weß", &"a".repeat(256)] {
            assert_eq!(file_of(other), None, "{other:?}");
        }
    }

    #[test]
    fn what_has_changed_is_not_used() {
        let dir = tempfile::tempdir().expect("a directory");
        let (store, bundle) = (dir.path(), dir.path().join("bundle"));
        let layer = store.join("layers/sha256/ab");
        for directory in [&layer, &store.join("bundles"), &store.join("tmp"), &store.join("ready")]
        {
            fs::create_dir_all(directory).expect("make a directory");
        }
        for file in ["lock", "index.json", "layers/sha256/ab/layer.json"] {
            fs::write(store.join(file), "{}").expect("write a file");
        }
        let ready = |index| Ready {
            version: env!("CARGO_PKG_VERSION").into(),
            user: (credentials::effective_user(), credentials::effective_group()),
            store: store.to_owned(),
            index,
            layers: vec!["sha256:ab".into()],
            boot: None,
            entrypoint: vec!["/bin/web".into()],
            cmd: vec!["serve".into()],
            config: json!({"process": {"args": ["another"]}}),
        };
        let save = |ready: &Ready| {
            let text = serde_json::to_vec(ready).expect("JSON");
            fs::write(store.join("ready/web"), text).expect("write it");
        };
        let index = Stamp::of(store).expect("it is there");
        let make = |command: &[&str]| {
            let command: Vec<String> = command.iter().map(|word| (*word).to_owned()).collect();
            make_bundle(Some(store), "web", &command, &bundle)?;
            let config = fs::read(bundle.join("config.json")).expect("a configuration");
            fs::remove_dir_all(&bundle).expect("remove it");
            let config: Value = serde_json::from_slice(&config).expect("JSON");
            Some(config["process"]["args"].clone())
        };
        assert_eq!(make(&[]), None, "nothing is ready");
        save(&ready(index));
        assert_eq!(make(&[]), Some(json!(["/bin/web", "serve"])));
        assert_eq!(make(&["stop"]), Some(json!(["/bin/web", "stop"])));
        let record = store.join("bundles").join(format!("{}.json", key_of(&bundle)));
        let text = fs::read_to_string(&record).expect("the store knows the bundle");
        assert!(text.contains("sha256:ab") && text.contains("bundle"), "{text}");
        save(&Ready { version: "0.0.0".into(), ..ready(index) });
        assert_eq!(make(&[]), None, "of another version");
        save(&Ready { user: (4_000_000, 0), ..ready(index) });
        assert_eq!(make(&[]), None, "of another user");
        save(&Ready { store: "/elsewhere".into(), ..ready(index) });
        assert_eq!(make(&[]), None, "the store was moved");
        save(&Ready { boot: Some("another".into()), ..ready(index) });
        assert_eq!(make(&[]), None, "the machine was started again before the layers were durable");
        save(&Ready { boot: boot_id(), ..ready(index) });
        assert_eq!(make(&["stop"]), Some(json!(["/bin/web", "stop"])), "and not since then");
        save(&Ready { layers: vec!["sha256:cd".into()], ..ready(index) });
        assert_eq!(make(&[]), None, "a layer is missing");
        save(&Ready { entrypoint: Vec::new(), cmd: Vec::new(), ..ready(index) });
        assert_eq!(make(&[]), None, "nothing says what to run");
        assert_eq!(make(&["ls"]), Some(json!(["ls"])));
        save(&ready(index));
        fs::write(store.join("index.new"), "{}").expect("write a file");
        fs::rename(store.join("index.new"), store.join("index.json")).expect("rename it");
        assert_eq!(make(&[]), None, "the names have changed");
        assert!(!bundle.exists());
    }
}
