//! Names of users and groups, as the image knows them: passwd(5) and group(5).
//!
//! The files are the image's, so they are opened as the container would see them: no link leads out
//! of its root.

use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use linux::OFlag;
use linux::path::Root;
use serde_json::Value;

/// The longest file that is read, in bytes.
const LONGEST: u64 = 1 << 20;

/// The accounts of an image.
#[derive(Debug, Default)]
pub(crate) struct Accounts {
    passwd: String,
    group: String,
}

impl Accounts {
    /// Those of a bundle; none, if the image has no such files.
    pub(crate) fn of(bundle: &Path) -> Result<Accounts> {
        let config: Value = serde_json::from_str(&crate::brain::read_bundle(bundle)?)?;
        let roots = roots(bundle, &config);
        let find = |name: &str| roots.iter().find_map(|root| read(root, name)).unwrap_or_default();
        Ok(Accounts { passwd: find("etc/passwd"), group: find("etc/group") })
    }

    /// Those of a container, as it is now, by its first process.
    pub(crate) fn inside(pid: i32) -> Accounts {
        let root = PathBuf::from(format!("/proc/{pid}/root"));
        let find = |name: &str| read(&root, name).unwrap_or_default();
        Accounts { passwd: find("etc/passwd"), group: find("etc/group") }
    }

    /// `USER[:GROUP]` in numbers. The group of a user who is known is that of passwd(5), else 0.
    ///
    /// # Errors
    /// The image knows no such name.
    pub(crate) fn user(&self, text: &str) -> Result<(u32, u32)> {
        let (user, group) = match text.split_once(':') {
            Some((user, group)) => (user, Some(group)),
            None => (text, None),
        };
        let is = |line: &&str| {
            let mut fields = line.split(':');
            fields.next() == Some(user) || fields.nth(1) == Some(user)
        };
        let known = self.passwd.lines().find(is);
        let field = |at: usize| known.and_then(|line| line.split(':').nth(at)?.parse().ok());
        let uid = user.parse().ok().or_else(|| field(2));
        let uid = uid.with_context(|| format!("the image's /etc/passwd has no user {user:?}"))?;
        let gid = match group {
            Some(group) => self.group(group)?,
            None => field(3).unwrap_or(0),
        };
        Ok((uid, gid))
    }

    /// The further groups of `USER[:GROUP]`, which are none when a group is given.
    pub(crate) fn groups(&self, text: &str) -> Vec<u32> {
        let by_number = self.passwd.lines().find(|line| line.split(':').nth(2) == Some(text));
        let user = by_number.and_then(|line| line.split(':').next()).unwrap_or(text);
        let is_member = |line: &&str| {
            line.split(':').nth(3).is_some_and(|members| members.split(',').any(|m| m == user))
        };
        let lines = self.group.lines().filter(is_member);
        lines.filter_map(|line| line.split(':').nth(2)?.parse().ok()).collect()
    }

    /// A group as a number.
    ///
    /// # Errors
    /// The image knows no such name.
    pub(crate) fn group(&self, text: &str) -> Result<u32> {
        if let Ok(number) = text.parse() {
            return Ok(number);
        }
        let found = self.group.lines().find(|line| line.split(':').next() == Some(text));
        match found.and_then(|line| line.split(':').nth(2)?.parse().ok()) {
            Some(number) => Ok(number),
            None => bail!("the image's /etc/group has no group {text:?}"),
        }
    }
}

/// The directories that the root file system is made of, the topmost first.
fn roots(bundle: &Path, config: &Value) -> Vec<PathBuf> {
    let layers = config["annotations"]["org.minirun.overlay.lowerdirs"].as_str();
    let layers: Option<Vec<PathBuf>> = layers.and_then(|text| serde_json::from_str(text).ok());
    layers.unwrap_or_else(|| vec![bundle.join(config["root"]["path"].as_str().unwrap_or("rootfs"))])
}

/// A file of one layer. Layers that have none, or have taken it away, do not have it.
fn read(root: &Path, name: &str) -> Option<String> {
    let root = Root::open(root).ok()?;
    let file = root.in_root(Path::new(name), OFlag::O_RDONLY | OFlag::O_NONBLOCK).ok()?;
    let file = std::fs::File::from(file);
    if !file.metadata().ok()?.is_file() {
        return None;
    }
    let mut text = Vec::new();
    file.take(LONGEST).read_to_end(&mut text).ok()?;
    Some(String::from_utf8_lossy(&text).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accounts() -> Accounts {
        Accounts {
            passwd: "root:x:0:0::/root:/bin/sh\nweb:x:33:44::/srv:/bin/false\n".into(),
            group: "root:x:0:\nstaff:x:50:web\n".into(),
        }
    }

    #[test]
    fn names_and_numbers_are_understood_together() {
        let user = |text| accounts().user(text).ok();
        assert_eq!(user("web"), Some((33, 44)));
        assert_eq!(user("33"), Some((33, 44)), "a number that is known has its group");
        assert_eq!(user("1000"), Some((1000, 0)));
        assert_eq!(user("web:staff"), Some((33, 50)));
        assert_eq!(user("7:9"), Some((7, 9)));
        assert_eq!((user("nobody"), user("web:nobody")), (None, None));
        assert_eq!(accounts().groups("web"), [50]);
        assert_eq!(accounts().groups("33"), [50]);
        assert_eq!((accounts().groups("root"), accounts().groups("web:staff")), (vec![], vec![]));
    }

    #[test]
    fn files_are_those_of_the_image() {
        let dir = std::env::temp_dir().join(format!("minisup-accounts-{}", std::process::id()));
        std::fs::create_dir_all(dir.join("rootfs/etc")).unwrap();
        std::fs::write(dir.join("config.json"), "{}").unwrap();
        std::os::unix::fs::symlink("/etc/passwd", dir.join("rootfs/etc/passwd")).unwrap();
        std::fs::write(dir.join("rootfs/etc/group"), "own:x:7:\n").unwrap();
        let found = Accounts::of(&dir).unwrap();
        assert_eq!(found.group("own").unwrap(), 7);
        assert!(found.passwd.is_empty(), "a link does not lead to the host's: {found:?}");
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
