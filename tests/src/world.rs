//! Everything that one test may touch: a directory, a state root, a part of the cgroup tree.
//!
//! ```text
//! /tmp/minirun-test-PID/        all of one run
//! ├── image/bin/…               busybox and probe, hard-linked into every bundle
//! └── run.limits/               one test
//!     ├── state/                --root
//!     ├── web/                  a bundle: config.json, rootfs/
//!     └── out-3, err-3          what the third call of minirun said
//! ```

use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::Value;

use crate::bundle::Bundle;
use crate::call::{Call, Ran};
use crate::{leaks, programs};

/// The programs of busybox that tests use by name.
const APPLETS: &[&str] = &[
    "awk", "cat", "chmod", "chown", "cp", "cut", "date", "dd", "df", "dmesg", "echo", "env",
    "false", "find", "grep", "head", "hostname", "id", "kill", "ln", "ls", "mkdir", "mknod",
    "mount", "mv", "nc", "ps", "pwd", "readlink", "rm", "sed", "sh", "sleep", "sort", "stat",
    "stty", "tail", "test", "touch", "tr", "true", "tty", "umount", "uname", "unshare", "wc",
    "wget", "yes",
];

/// One test's part of the machine.
pub(crate) struct World {
    /// Its directory.
    pub(crate) dir: PathBuf,
    /// Its group below each cgroup tree, with a leading slash.
    pub(crate) cgroup: String,
    calls: AtomicUsize,
}

impl World {
    /// Makes the directory of the test `name`.
    pub(crate) fn new(name: &str) -> Self {
        let name = name.replace("::", ".");
        let dir = base().join(&name);
        std::fs::create_dir(&dir).expect("a test runs once");
        let cgroup = format!("/minirun-test-{}/{name}", std::process::id());
        Self { dir, cgroup, calls: AtomicUsize::new(0) }
    }

    /// The state root.
    pub(crate) fn root(&self) -> PathBuf {
        self.dir.join("state")
    }

    /// A file of this test.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// A bundle with minirun's own default configuration, a root file system with busybox and
    /// probe, and a cgroup of this test.
    pub(crate) fn bundle(&self, name: &str) -> Bundle {
        let dir = self.dir.join(name);
        let bin = dir.join("rootfs/bin");
        std::fs::create_dir_all(&bin).expect("make a bundle");
        fill(&bin);
        for directory in ["tmp", "etc", "root"] {
            std::fs::create_dir(dir.join("rootfs").join(directory)).expect("make a directory");
        }
        let mut config = default_config().clone();
        config["linux"]["cgroupsPath"] = format!("{}/{name}", self.cgroup).into();
        let bundle = Bundle { dir, config };
        bundle.save();
        bundle
    }

    /// A call of minirun, with this test's state root.
    pub(crate) fn minirun(&self, arguments: &[&str]) -> Call {
        let root = self.root();
        self.program(programs::minirun())
            .args(&["--root", root.to_str().expect("UTF-8")])
            .args(arguments)
    }

    /// A call of another program. minirun's containers are not connected to this machine unless
    /// they say so: no test changes it.
    pub(crate) fn program(&self, program: impl Into<PathBuf>) -> Call {
        let number = self.calls.fetch_add(1, Ordering::Relaxed);
        Call::new(program.into(), self.dir.join(format!("out-{number}")), self.dir.clone())
            .env("MINIRUN_NET", "none")
    }

    /// Calls minirun and waits for its end.
    pub(crate) fn run(&self, arguments: &[&str]) -> Ran {
        self.minirun(arguments).run()
    }

    /// What `state` says.
    pub(crate) fn state(&self, id: &str) -> Value {
        self.run(&["state", id]).ok().json()
    }

    /// The status of a container.
    pub(crate) fn status(&self, id: &str) -> String {
        self.state(id)["status"].as_str().expect("a status").to_owned()
    }

    /// The content of a file of a container's cgroup: of the unified tree, or of the v1 tree of
    /// `controller`.
    pub(crate) fn cgroup_file(&self, id: &str, controller: &str, v2: &str, v1: &str) -> String {
        let below = format!("{}/{id}", self.cgroup);
        let old = format!("/sys/fs/cgroup/{controller}{below}/{v1}");
        let path = match Path::new("/sys/fs/cgroup/cgroup.controllers").exists() {
            true => format!("/sys/fs/cgroup{below}/{v2}"),
            false => old,
        };
        let text = std::fs::read_to_string(&path);
        text.unwrap_or_else(|error| panic!("{path}: {error}")).trim().to_owned()
    }

    /// What this test has left behind.
    pub(crate) fn what_is_left(&self) -> Vec<String> {
        leaks::find(&self.dir, &self.cgroup)
    }

    /// Removes everything, leaks included.
    pub(crate) fn clean_up(&self) {
        leaks::remove(&self.dir, &self.cgroup);
    }
}

/// What `minirun spec` writes, once per run of the tests.
fn default_config() -> &'static Value {
    static CONFIG: OnceLock<Value> = OnceLock::new();
    CONFIG.get_or_init(|| {
        let dir = base().join("spec");
        std::fs::create_dir_all(&dir).expect("make a directory");
        let call = Call::new(programs::minirun(), dir.join("out"), dir.clone());
        call.args(&["spec", "--bundle", dir.to_str().expect("UTF-8")]).run().ok();
        let text = std::fs::read(dir.join("config.json")).expect("spec has written it");
        serde_json::from_slice(&text).expect("it is JSON")
    })
}

/// Puts the programs into the `bin` of a root file system.
pub(crate) fn fill(bin: &Path) {
    static IMAGE: OnceLock<PathBuf> = OnceLock::new();
    let image = IMAGE.get_or_init(|| {
        let image = base().join("image");
        std::fs::create_dir_all(&image).expect("make a directory");
        std::fs::copy(programs::busybox(), image.join("busybox")).expect("copy busybox");
        std::fs::copy(programs::probe(), image.join("probe")).expect("copy probe");
        image
    });
    for program in ["busybox", "probe"] {
        std::fs::hard_link(image.join(program), bin.join(program)).expect("link a program");
    }
    for applet in APPLETS {
        symlink("busybox", bin.join(applet)).expect("make a link");
    }
}

/// The directory of this run of the tests. Other users may look into it: some tests are theirs.
pub(crate) fn base() -> &'static Path {
    static BASE: OnceLock<PathBuf> = OnceLock::new();
    BASE.get_or_init(|| {
        let base = std::env::temp_dir().join(format!("minirun-test-{}", std::process::id()));
        std::fs::create_dir_all(&base).expect("make the directory of the tests");
        let open = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(&base, open).expect("let others look at it");
        base
    })
}

/// Removes it.
pub(crate) fn remove_base() {
    leaks::remove_groups(&format!("/minirun-test-{}", std::process::id()));
    drop(std::fs::remove_dir_all(base()));
}
