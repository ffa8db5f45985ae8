//! What the table of mounts says about cgroups.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::host::{Controller, Hierarchy};

/// What `/proc/self/mountinfo` says about cgroups, see proc_pid_mountinfo(5).
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Table {
    pub(super) unified: Option<PathBuf>,
    pub(super) hierarchies: Vec<Hierarchy>,
}

impl Table {
    pub(super) fn parse(mountinfo: &str) -> Self {
        let mut table = Self::default();
        let mut seen = BTreeSet::new();
        for line in mountinfo.lines() {
            let Some((place, kind)) = line.split_once(" - ") else { continue };
            let Some(mount) = place.split(' ').nth(4).map(unescape) else { continue };
            let mut kind = kind.split(' ');
            match kind.next() {
                Some("cgroup2") if table.unified.is_none() => table.unified = Some(mount),
                Some("cgroup") => {
                    let tree = Hierarchy::from_options(kind.nth(1).unwrap_or(""), mount);
                    // A tree can be mounted twice; the first mount is as good as the second.
                    if seen.insert(tree.name.clone()) {
                        table.hierarchies.push(tree);
                    }
                }
                _ => {}
            }
        }
        table.hierarchies.sort_by(|a, b| a.name.cmp(&b.name));
        table
    }
}

impl Hierarchy {
    /// Reads the options of the tree's mount, among which are the controllers' names.
    fn from_options(options: &str, mount: PathBuf) -> Self {
        let mut names = Vec::new();
        let mut controllers = Vec::new();
        for option in options.split(',') {
            if let Some(known) = Controller::ALL.iter().find(|c| c.v1_name() == option) {
                controllers.push(*known);
                names.push(option);
            } else if option.starts_with("name=") {
                names.push(option);
            }
        }
        Self { name: names.join(","), controllers, mount }
    }
}

/// Undoes the octal escapes of mountinfo (`\040` is a space).
fn unescape(text: &str) -> PathBuf {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let digits = tail.get(..3).and_then(|digits| std::str::from_utf8(digits).ok());
        let code = digits.and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match (first, code) {
            (b'\\', Some(byte)) => {
                bytes.push(byte);
                rest = &tail[3..];
            }
            (byte, _) => {
                bytes.push(*byte);
                rest = tail;
            }
        }
    }
    Path::new(OsStr::from_bytes(&bytes)).to_path_buf()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID: &str = "\
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
33 31 0:30 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:3 - cgroup cgroup rw,cpu,cpuacct
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
38 31 0:35 / /sys/fs/cgroup/blk\\040io rw,relatime - cgroup cgroup rw,blkio
40 31 0:37 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
42 31 0:32 / /mnt/memory rw,relatime - cgroup cgroup rw,memory
";

    #[test]
    fn a_hybrid_table_is_understood() {
        let table = Table::parse(HYBRID);
        assert_eq!(table.unified, Some("/sys/fs/cgroup/unified".into()));
        let names: Vec<_> = table.hierarchies.iter().map(|tree| tree.name.as_str()).collect();
        assert_eq!(names, ["blkio", "cpu,cpuacct", "memory", "name=systemd"]);
        assert_eq!(table.hierarchies[0].controllers, [Controller::Io]);
        assert_eq!(table.hierarchies[0].mount, Path::new("/sys/fs/cgroup/blk io"));
        assert_eq!(table.hierarchies[2].mount, Path::new("/sys/fs/cgroup/memory"));
        assert!(table.hierarchies[3].controllers.is_empty());
    }

    #[test]
    fn lines_that_are_not_about_cgroups_are_skipped() {
        assert_eq!(Table::parse("garbage\n1 2 3\n9 8 0:1 / /x rw - ext4 a b"), Table::default());
    }
}
