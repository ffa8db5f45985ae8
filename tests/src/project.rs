//! A project that minisup keeps alive, of one test: with its own name, port and directories.

use std::fs;
use std::net::{TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::json;

use crate::call::{Ran, wait_until};
use crate::host::Host;
use crate::world::{World, fill};
use crate::{leaks, programs};

/// A project.
pub(crate) struct Project<'a> {
    world: &'a World,
    name: String,
    /// A port of this host that nobody had when the test began.
    pub(crate) port: u16,
    /// The process that holds the host of the test's own, if it has one.
    host: Option<i32>,
}

impl<'a> Project<'a> {
    /// Names it, and makes the bundle of the web application, with busybox beside it.
    pub(crate) fn new(world: &'a World, name: &str) -> Self {
        let name = format!("{name}-{}", std::process::id());
        let bin = world.path("web/rootfs/bin");
        // A test may have several projects of one bundle.
        if !bin.exists() {
            fs::create_dir_all(&bin).expect("make a bundle");
            fill(&bin);
            fs::copy(programs::example("web"), bin.join("web")).expect("copy the application");
        }
        for directory in ["proc", "dev", "sys", "tmp"] {
            fs::create_dir_all(world.path("web/rootfs").join(directory)).expect("make a directory");
        }
        let config = json!({
            "ociVersion": "1.0.2",
            "root": {"path": "rootfs", "readonly": true},
            "process": {"args": ["/bin/web"], "cwd": "/", "env": ["PATH=/bin"],
                        "user": {"uid": 0, "gid": 0}},
            "mounts": [
                {"destination": "/proc", "type": "proc", "source": "proc"},
                {"destination": "/dev", "type": "tmpfs", "source": "tmpfs",
                 "options": ["mode=755", "size=64k"]}
            ],
            "linux": {"namespaces": [{"type": "mount"}]}
        });
        fs::write(world.path("web/config.json"), config.to_string()).expect("write config.json");
        Self { world, name, port: free_port(), host: None }
    }

    /// Has it on a host of the test's own, where networks may lead out.
    pub(crate) fn on(mut self, host: &Host<'_>) -> Self {
        self.host = Some(host.pid());
        self
    }

    /// The bundle of the web application.
    pub(crate) fn bundle(&self) -> PathBuf {
        self.world.path("web")
    }

    /// The file of a log that the processes of the project complain to.
    fn complaints(&self) -> String {
        fs::read_to_string(self.run_dir().join("keeper.log")).unwrap_or_default()
    }

    pub(crate) fn run_dir(&self) -> PathBuf {
        self.world.path("minisup-run").join(&self.name)
    }

    /// The socket of its API.
    pub(crate) fn api(&self) -> PathBuf {
        self.run_dir().join("api.sock")
    }

    /// The directory of what survives a reboot.
    pub(crate) fn state_dir(&self) -> PathBuf {
        self.world.path("minisup-state").join(&self.name)
    }

    /// The name of a volume on the host.
    pub(crate) fn volume(&self, key: &str) -> String {
        format!("{}_{key}", self.name)
    }

    /// Calls minisup.
    pub(crate) fn minisup(&self, arguments: &[&str]) -> Ran {
        self.call(arguments).run()
    }

    /// A call of minisup.
    pub(crate) fn call(&self, arguments: &[&str]) -> crate::call::Call {
        self.call_of(&programs::minisup(), arguments)
    }

    /// A call of another minisup.
    pub(crate) fn call_of(&self, minisup: &Path, arguments: &[&str]) -> crate::call::Call {
        let call = match self.host {
            // The machine that the tests run on is not changed: nothing leads out of it.
            None => self.world.program(minisup).env("MINISUP_WAY_OUT", "no"),
            Some(host) => self.world.program("nsenter").args(&[
                "-t",
                &host.to_string(),
                "--net",
                "--mount",
                minisup.to_str().expect("UTF-8"),
            ]),
        };
        call.args(&["--project", &self.name])
            .args(arguments)
            .env("MINISUP_RUN_DIR", self.world.path("minisup-run"))
            .env("MINISUP_STATE_DIR", self.world.path("minisup-state"))
            .env("MINIRUN", programs::minirun())
    }

    /// Calls minisup, which must succeed; gives what it prints.
    #[track_caller]
    pub(crate) fn ok(&self, arguments: &[&str]) -> String {
        let ran = self.minisup(arguments);
        assert_eq!(ran.status, 0, "{arguments:?}: {ran:?}\n{}", self.complaints());
        ran.output
    }

    /// Starts the web application behind the project's port, and waits until it is ready.
    pub(crate) fn up(&self, replicas: u32) -> String {
        self.up_with(replicas, &["--health-http", "3000/health"])
    }

    /// Starts the web application with further options.
    pub(crate) fn up_with(&self, replicas: u32, options: &[&str]) -> String {
        let (replicas, bundle) = (replicas.to_string(), self.bundle());
        let publish = format!("127.0.0.1:{}:3000", self.port);
        let runtime = programs::minirun();
        let mut arguments = vec!["up", "-d", "--wait", "--name", "web", "--replicas", &replicas];
        arguments.extend(["--publish", &publish]);
        arguments.extend(["--runtime", runtime.to_str().expect("UTF-8")]);
        arguments.extend(options);
        arguments.push(bundle.to_str().expect("UTF-8"));
        self.ok(&arguments)
    }

    /// The first process of each ready instance.
    pub(crate) fn pids(&self) -> Vec<String> {
        let text = self.ok(&["ps"]);
        let ready = text.lines().filter(|line| line.contains("ready for"));
        ready.filter_map(|line| line.split_whitespace().last()).map(str::to_owned).collect()
    }

    /// Waits until something is so.
    #[track_caller]
    pub(crate) fn wait_for(&self, what: &str, is_so: impl Fn() -> bool) {
        if !wait_until(is_so) {
            let (ps, events) = (self.minisup(&["ps"]), self.minisup(&["events"]));
            panic!("{what} did not come:\n{ps:?}\n{events:?}\n{}", self.complaints());
        }
    }

    /// The process of a role of this project.
    pub(crate) fn role(&self, role: &str) -> Option<String> {
        let wanted = ["minisup", role, self.name.as_str()];
        processes().find(|(_, words)| words.iter().take(3).eq(wanted.iter())).map(|(pid, _)| pid)
    }

    /// The cgroups of the containers.
    fn cgroup(&self) -> String {
        format!("/minisup/{}", self.name)
    }

    /// Stops the project and checks that nothing of it is left.
    pub(crate) fn down(&self) {
        self.ok(&["down"]);
        self.is_gone();
    }

    /// Nothing of the project may be left.
    pub(crate) fn is_gone(&self) {
        let mine = || processes().filter(|(_, words)| words.contains(&self.name));
        assert!(wait_until(|| mine().next().is_none()), "left: {:?}", mine().collect::<Vec<_>>());
        let left: Vec<_> = [self.run_dir(), self.state_dir()]
            .into_iter()
            .filter(|dir| dir.exists())
            .map(|dir| dir.display().to_string())
            .chain(leaks::find(&self.run_dir(), &self.cgroup()))
            .collect();
        assert!(left.is_empty(), "left behind: {left:?}");
    }
}

impl Drop for Project<'_> {
    /// After a failure: nothing of this test may disturb another.
    fn drop(&mut self) {
        // The keeper first, or it would mend what is killed after it.
        for role in ["keeper", "brain", "keeper", "brain", "plane"] {
            if let Some(pid) = self.role(role) {
                kill("-KILL", &pid);
            }
        }
        leaks::remove(&self.run_dir(), &self.cgroup());
    }
}

/// A port that nobody has, below those that the kernel gives to clients (ip_local_port_range,
/// ip(7)): none of them takes it before the project does.
fn free_port() -> u16 {
    static LAST: AtomicU32 = AtomicU32::new(0);
    let start = std::process::id().wrapping_mul(101);
    let mut candidates = std::iter::repeat_with(|| {
        let count = start.wrapping_add(LAST.fetch_add(1, Ordering::Relaxed));
        12_000 + u16::try_from(count % 20_000).expect("it fits")
    });
    let is_free = |port: &u16| {
        let at = ("127.0.0.1", *port);
        TcpListener::bind(at).is_ok() && UdpSocket::bind(at).is_ok()
    };
    candidates.find(is_free).expect("they do not end")
}

/// Every process with its command line.
pub(crate) fn processes() -> impl Iterator<Item = (String, Vec<String>)> {
    fs::read_dir("/proc").expect("read /proc").flatten().filter_map(|entry| {
        let pid = entry.file_name().into_string().ok()?;
        let line = fs::read(entry.path().join("cmdline")).ok()?;
        let words = line.split(|byte| *byte == 0).map(|w| String::from_utf8_lossy(w).into_owned());
        Some((pid, words.collect()))
    })
}

/// Sends a signal. A process that has ended meanwhile is as good as killed.
pub(crate) fn kill(signal: &str, pid: &str) {
    let kill = programs::find("kill").expect("the program kill");
    let ran = std::process::Command::new(kill).args([signal, pid]).output();
    drop(ran.expect("run kill"));
}

/// Whether a process exists.
pub(crate) fn exists(pid: &str) -> bool {
    Path::new("/proc").join(pid).exists()
}
