//! A look at a group, for `state`: which only asks, and is asked often.
//!
//! Opening the group in every tree costs more than the whole answer, so these read one file each, by
//! its path: cgroupfs belongs to the host, no container can bend a path of it.

use std::os::fd::AsFd;
use std::path::Path;

use super::group::{Record, UNIFIED};
use super::host::{Host, PRIVATE};
use super::processes::event;

impl Record {
    /// Whether all processes of the group are frozen.
    pub fn is_frozen(&self) -> bool {
        let text = self.read(UNIFIED, "cgroup.events").unwrap_or_default();
        event(&text, "frozen") == Some("1")
    }

    /// How many of the group's processes the kernel has killed because it was at its memory limit.
    pub fn oom_kills(&self) -> u64 {
        let in_v1 = self.trees.keys().find(|name| name.split(',').any(|part| part == "memory"));
        let text = match in_v1 {
            Some(tree) => self.read(tree, "memory.oom_control"),
            None => self.read(UNIFIED, "memory.events"),
        };
        text.and_then(|text| event(&text, "oom_kill")?.parse().ok()).unwrap_or(0)
    }

    fn read(&self, tree: &str, file: &str) -> Option<String> {
        let (mount, file) = (self.trees.get(tree)?, self.path.join(file));
        if mount == Path::new(PRIVATE) {
            // Each process that needs that tree mounts it for itself.
            let host = Host::get().ok()??;
            return linux::fd::read_record_at(host.unified().as_fd(), &file).ok();
        }
        linux::fd::read_kernel_record(&mount.join(file)).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_read_from_the_right_tree() {
        let dir = tempfile::tempdir().unwrap();
        let group = |tree: &str| {
            let path = dir.path().join(tree).join("minirun/web");
            std::fs::create_dir_all(&path).unwrap();
            path
        };
        std::fs::write(group("v2").join("cgroup.events"), "populated 1\nfrozen 1\n").unwrap();
        std::fs::write(group("v2").join("memory.events"), "oom 9\noom_kill 2\n").unwrap();
        std::fs::write(group("v1").join("memory.oom_control"), "under_oom 0\noom_kill 5\n")
            .unwrap();
        let mut record = Record { path: "minirun/web".into(), ..Record::default() };
        record.trees.insert(UNIFIED.into(), dir.path().join("v2"));
        assert!(record.is_frozen());
        assert_eq!(record.oom_kills(), 2);
        record.trees.insert("memory".into(), dir.path().join("v1"));
        assert_eq!(record.oom_kills(), 5);
        assert!(!Record::default().is_frozen());
    }
}
