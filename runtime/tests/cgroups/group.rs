//! A group for one test, and processes in it.

use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use libtest_mimic::{Failed, Trial};
use linux::clone::{Birth, Child, Strings, spawn};
use linux::pidfd::Exit;
use minirun::cgroup::{Cgroup, Controller, Host, Place, Version};
use oci_spec::runtime::LinuxResources;

/// A group that is gone, with all its processes, at the end of its test.
pub(crate) struct Group {
    pub(crate) host: Host,
    pub(crate) place: Place,
    group: Cgroup,
}

impl Deref for Group {
    type Target = Cgroup;

    fn deref(&self) -> &Cgroup {
        &self.group
    }
}

/// Where the groups of this run are, also of the processes that it clones.
pub(crate) fn parent() -> &'static Path {
    static PARENT: OnceLock<PathBuf> = OnceLock::new();
    PARENT.get_or_init(|| PathBuf::from(format!("/minirun-cgroups-{}", std::process::id())))
}

pub(crate) fn place(host: &Host, name: &str) -> Place {
    let path = parent().join(name);
    Place::new(host, Some(&path), "unused").unwrap().expect("root has a place for groups")
}

/// Resources as they stand in a config.json.
pub(crate) fn resources(json: &str) -> LinuxResources {
    serde_json::from_str(json).unwrap()
}

impl Group {
    pub(crate) fn new(name: &str) -> Self {
        let host = Host::detect().unwrap().expect("this host has cgroups");
        let place = place(&host, name);
        let group = Cgroup::make(&host, &place).unwrap();
        Self { host, place, group }
    }

    pub(crate) fn with(name: &str, json: &str) -> Self {
        let group = Self::new(name);
        group.apply(&resources(json)).unwrap();
        group
    }

    /// The group's directory in the tree of `controller`, found without minirun's help.
    pub(crate) fn dir(&self, controller: Controller) -> PathBuf {
        let record = self.record();
        let v1 = record
            .trees
            .iter()
            .find(|(name, _)| name.split(',').any(|part| part == controller.v1_name()));
        let (_, mount) = v1.unwrap_or_else(|| record.trees.get_key_value("unified").unwrap());
        mount.join(&record.path)
    }

    pub(crate) fn is_v1(&self, controller: Controller) -> bool {
        self.host.version_of(controller) == Version::V1
    }

    /// What the kernel shows in the file of a controller.
    pub(crate) fn shows(&self, controller: Controller, v2: &str, v1: &str) -> String {
        let file = if self.is_v1(controller) { v1 } else { v2 };
        let path = self.dir(controller).join(file);
        std::fs::read_to_string(&path)
            .unwrap_or_else(|error| panic!("{}: {error}", path.display()))
            .trim()
            .to_owned()
    }

    /// Whether the kernel has that controller at all, in either version.
    pub(crate) fn offers(&self, controller: Controller) -> bool {
        let base = self.record().trees["unified"].join(&self.record().delegated);
        let unified = base.join("cgroup.controllers");
        let v2 = std::fs::read_to_string(unified).unwrap();
        self.is_v1(controller) || v2.split_whitespace().any(|name| name == controller.v2_name())
    }

    /// A process that is born in the group, joins its trees of version 1, and then does `act`.
    pub(crate) fn run(&self, act: impl FnOnce() -> i32) -> Child {
        let files = self.join_files().unwrap();
        let (ours, theirs) = linux::socket::pair().unwrap();
        let birth = Birth { cgroup: Some(self.birth_fd()), ..Birth::default() };
        let child = spawn(birth, || {
            minirun::cgroup::join(&files).unwrap();
            linux::socket::send(&theirs, b"joined", &[]).unwrap();
            act()
        })
        .unwrap();
        drop(theirs);
        let joined = linux::socket::receive(&ours, &mut [0; 16]).unwrap();
        assert_eq!(joined.length, 6, "the child did not join");
        child
    }

    /// A shell in the group.
    pub(crate) fn shell(&self, script: &str) -> Child {
        self.run(|| {
            let arguments = Strings::new(["sh", "-c", script]).unwrap();
            let environment = Strings::new(["PATH=/usr/sbin:/usr/bin:/sbin:/bin"]).unwrap();
            eprintln!("{}", linux::clone::execute(Path::new("/bin/sh"), &arguments, &environment));
            98
        })
    }

    /// How a shell in the group ends.
    pub(crate) fn shell_status(&self, script: &str) -> i32 {
        wait(&self.shell(script)).status()
    }
}

pub(crate) fn wait(child: &Child) -> Exit {
    linux::pidfd::wait(&child.pidfd).unwrap()
}

impl Drop for Group {
    fn drop(&mut self) {
        let _ = self.group.thaw();
        let _ = self.group.kill_all();
        let _ = self.group.remove();
        let record = self.group.record();
        for mount in record.trees.values() {
            let _ = std::fs::remove_dir(mount.join(record.path.parent().unwrap()));
        }
    }
}

/// Whether this process may have groups at all: as root, or in a group that was delegated to it.
fn has_a_place() -> bool {
    let host = Host::detect().ok().flatten();
    host.is_some_and(|host| matches!(Place::new(&host, None, "probe"), Ok(Some(_))))
}

/// A test that needs a group; where there can be none, it shows as ignored.
pub(crate) fn test(name: &str, act: fn()) -> Trial {
    let run = move || -> Result<(), Failed> {
        act();
        Ok(())
    };
    Trial::test(name, run).with_ignored_flag(!has_a_place())
}

/// A test that only root can make.
pub(crate) fn test_of_root(name: &str, act: fn()) -> Trial {
    test(name, act).with_ignored_flag(linux::credentials::effective_user() != 0)
}
