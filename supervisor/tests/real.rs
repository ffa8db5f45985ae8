//! minisup with real containers: what a user sees, and what must never happen.
//!
//! Needs root and an OCI runtime (minirun beside the test's programs, or `MINISUP_TEST_RUNTIME`),
//! so it runs with `cargo build -p minirun && cargo test -p minisup -- --ignored`. Each test has its own project, ports and
//! directories, and ends by checking that nothing is left.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// A project of one test.
struct Stage {
    dir: PathBuf,
    project: String,
    port: u16,
}

impl Stage {
    fn new(name: &str, port: u16) -> Stage {
        let dir = std::env::temp_dir().join(format!("minisup-{name}-{}", std::process::id()));
        let root = dir.join("bundle/rootfs");
        for sub in ["proc", "dev", "sys", "tmp", "etc"] {
            std::fs::create_dir_all(root.join(sub)).unwrap();
        }
        std::fs::copy(beside("examples/hello"), root.join("hello")).unwrap();
        std::fs::write(dir.join("bundle/config.json"), CONFIG).unwrap();
        let project = format!("{name}-{}", std::process::id());
        Stage { dir, project, port }
    }

    fn minisup(&self, arguments: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_minisup"))
            .args(["--project", &self.project])
            .args(arguments)
            .env("MINISUP_RUN_DIR", self.dir.join("run"))
            .env("MINISUP_STATE_DIR", self.dir.join("state"))
            .output()
            .unwrap()
    }

    fn ok(&self, arguments: &[&str]) -> String {
        let output = self.minisup(arguments);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {error}\n{}", self.complaints());
        text
    }

    fn complaints(&self) -> String {
        let file = self.dir.join("run").join(&self.project).join("keeper.log");
        std::fs::read_to_string(file).unwrap_or_default()
    }

    fn up(&self, replicas: u32) {
        let runtime = std::env::var("MINISUP_TEST_RUNTIME").map(PathBuf::from);
        let runtime = runtime.unwrap_or_else(|_| beside("minirun"));
        assert!(runtime.is_file(), "no runtime at {}: build minirun first", runtime.display());
        let publish = format!("127.0.0.1:{}:3000", self.port);
        self.ok(&[
            "up",
            "--name",
            "web",
            "--replicas",
            &replicas.to_string(),
            "--publish",
            &publish,
            "--health-http",
            "3000/",
            "--runtime",
            runtime.to_str().unwrap(),
            "--wait",
            "-d",
            self.dir.join("bundle").to_str().unwrap(),
        ]);
    }

    /// The first process of each ready instance.
    fn pids(&self) -> Vec<String> {
        let text = self.ok(&["ps"]);
        let ready = text.lines().filter(|line| line.contains("ready for"));
        ready.filter_map(|line| line.split_whitespace().last()).map(str::to_string).collect()
    }

    fn wait_for(&self, what: &str, met: impl Fn(&Stage) -> bool) {
        let until = Instant::now() + Duration::from_secs(60);
        while !met(self) {
            assert!(Instant::now() < until, "{what} never came true:\n{}", self.ok(&["ps"]));
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// The process of a role of this project.
    fn role(&self, role: &str) -> Option<String> {
        let wanted = ["minisup", role, self.project.as_str()];
        processes().find(|(_, words)| words.iter().take(3).eq(wanted.iter())).map(|(pid, _)| pid)
    }

    /// Stops the project and checks that nothing of it is left.
    fn down(self) {
        self.ok(&["down"]);
        self.wait_for_end();
        let left: Vec<_> = std::fs::read_dir(&self.dir).unwrap().flatten().collect();
        assert_eq!(left.len(), 1, "only the bundle is left: {left:?}");
        std::fs::remove_dir_all(&self.dir).unwrap();
    }

    fn wait_for_end(&self) {
        let until = Instant::now() + Duration::from_secs(10);
        loop {
            let mine = |(_, words): &(String, Vec<String>)| words.contains(&self.project);
            let left: Vec<_> = processes().filter(mine).collect();
            if left.is_empty() {
                return;
            }
            assert!(Instant::now() < until, "left: {left:?}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// Every process with its command line.
fn processes() -> impl Iterator<Item = (String, Vec<String>)> {
    std::fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| {
        let pid = entry.file_name().into_string().ok()?;
        let line = std::fs::read(entry.path().join("cmdline")).ok()?;
        let words = line.split(|byte| *byte == 0).map(|w| String::from_utf8_lossy(w).into_owned());
        Some((pid, words.collect()))
    })
}

fn kill(signal: &str, pid: &str) {
    // A process that has ended meanwhile is as good as killed.
    let _ = Command::new("kill").args([signal, pid]).status();
}

/// A program of this build.
fn beside(name: &str) -> PathBuf {
    Path::new(env!("CARGO_BIN_EXE_minisup")).parent().unwrap().join(name)
}

/// Clients that never pause. The first failure ends them, with what happened.
struct Clients {
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicU64>,
    threads: Vec<std::thread::JoinHandle<Result<(), String>>>,
}

impl Clients {
    fn begin(port: u16, count: usize) -> Clients {
        let (stop, answered) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
        let threads = (0..count).map(|_| {
            let (stop, answered) = (stop.clone(), answered.clone());
            std::thread::spawn(move || {
                let stream = TcpStream::connect(("127.0.0.1", port)).map_err(|e| e.to_string())?;
                stream
                    .set_read_timeout(Some(Duration::from_secs(30)))
                    .map_err(|e| e.to_string())?;
                let mut reader = BufReader::new(stream);
                while !stop.load(Ordering::Relaxed) {
                    ask(&mut reader)?;
                    answered.fetch_add(1, Ordering::Relaxed);
                }
                Ok(())
            })
        });
        Clients { threads: threads.collect(), stop, answered }
    }

    fn end(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads {
            assert_eq!(thread.join().unwrap(), Ok(()));
        }
        self.answered.load(Ordering::Relaxed)
    }
}

fn ask(reader: &mut BufReader<TcpStream>) -> Result<String, String> {
    ask_for(reader, "/")
}

fn ask_for(reader: &mut BufReader<TcpStream>, path: &str) -> Result<String, String> {
    let text = |error: std::io::Error| error.to_string();
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n");
    reader.get_mut().write_all(request.as_bytes()).map_err(text)?;
    let (mut status, mut length) = (String::new(), 0);
    reader.read_line(&mut status).map_err(text)?;
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).map_err(text)? == 0 {
            return Err(format!("broke off after {status:?}"));
        }
        if line == "\r\n" {
            break;
        }
        if let Some(number) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = number.trim().parse().map_err(|_| line.clone())?;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).map_err(text)?;
    if !status.starts_with("HTTP/1.1 200") {
        return Err(format!("{status} {}", String::from_utf8_lossy(&body)));
    }
    String::from_utf8(body).map_err(|error| error.to_string())
}

#[test]
#[ignore = "needs root and a runtime"]
fn no_request_is_lost_whatever_is_killed() {
    let stage = Stage::new("kills", 28_081);
    stage.up(3);
    let clients = Clients::begin(stage.port, 20);
    for round in 0..3 {
        let killed: Vec<String> = stage.pids().into_iter().take(1 + round).collect();
        killed.iter().for_each(|pid| kill("-KILL", pid)); // one, then two, then all three
        stage.wait_for("three ready replicas", |stage| {
            let now = stage.pids();
            now.len() == 3 && !now.iter().any(|pid| killed.contains(pid))
        });
        for role in ["brain", "keeper"] {
            let old = stage.role(role);
            kill("-KILL", &old.clone().unwrap());
            let replaced = |stage: &Stage| stage.role(role).is_some_and(|new| Some(new) != old);
            stage.wait_for("another process in its place", replaced);
            stage.wait_for("an answer", |stage| stage.minisup(&["ps"]).status.success());
        }
    }
    assert!(clients.end() > 100);
    assert_eq!(stage.pids().len(), 3, "none lost, none doubled");
    stage.down();
}

#[test]
#[ignore = "needs root and a runtime"]
fn a_broken_history_costs_no_container() {
    let stage = Stage::new("broken", 28_085);
    stage.up(2);
    let before = stage.pids();
    let history = stage.dir.join("state").join(&stage.project).join("history.db");
    // Both parts: SQLite would mend the file from its journal.
    for part in [history.clone(), history.with_extension("db-wal")] {
        std::fs::write(part, vec![0x5a; 8192]).unwrap();
    }
    let old = stage.role("brain");
    kill("-KILL", &old.clone().unwrap());
    stage.wait_for("another brain", |s| s.role("brain").is_some_and(|new| Some(new) != old));
    stage.wait_for("both replicas, adopted", |s| {
        s.minisup(&["ps"]).status.success() && s.pids().len() == 2
    });
    assert_eq!(stage.pids(), before, "the same processes");
    assert!(stage.ok(&["events"]).contains("found running in a vacant slot"));
    assert!(stage.complaints().contains("going on without history"), "{}", stage.complaints());
    stage.down();
}

#[test]
#[ignore = "needs root and a runtime"]
fn a_single_replica_may_die_without_anybody_noticing() {
    let stage = Stage::new("single", 28_082);
    stage.up(1);
    let clients = Clients::begin(stage.port, 10);
    for _ in 0..3 {
        let before = stage.pids();
        kill("-KILL", &before[0]);
        stage.wait_for("a new replica", |s| s.pids().len() == 1 && s.pids() != before);
    }
    assert!(clients.end() > 50);
    stage.down();
}

#[test]
#[ignore = "needs root and a runtime"]
fn a_frozen_replica_is_replaced_and_requests_go_elsewhere() {
    let stage = Stage::new("frozen", 28_083);
    stage.up(2);
    let clients = Clients::begin(stage.port, 10);
    let frozen = stage.pids()[0].clone();
    kill("-STOP", &frozen);
    stage.wait_for("its end", |stage| {
        stage.pids().len() == 2 && !Path::new(&format!("/proc/{frozen}")).exists()
    });
    assert!(clients.end() > 50);
    let events = stage.ok(&["events"]);
    let place = |what: &str| events.find(what).unwrap_or_else(|| panic!("no {what} in {events}"));
    assert!(place("condemned") < place("its replacement starts first"));
    assert!(place("is ready in its place") < place("after it was stopped: unhealthy"));
    stage.down();
}

#[test]
#[ignore = "needs root and a runtime"]
fn scaling_drains_and_a_taken_port_is_refused() {
    let stage = Stage::new("scale", 28_084);
    stage.up(2);
    let clients = Clients::begin(stage.port, 10);
    stage.ok(&["scale", "web=5"]);
    stage.wait_for("five", |stage| stage.pids().len() == 5);
    stage.ok(&["scale", "web=1"]);
    stage.wait_for("one", |stage| stage.ok(&["ps"]).lines().count() == 2);
    stage.ok(&["restart", "web"]);
    stage.wait_for("another", |stage| stage.ok(&["ps"]).contains("web.1.2"));
    assert!(clients.end() > 50);
    let mut reader = BufReader::new(TcpStream::connect(("127.0.0.1", stage.port)).unwrap());
    assert_eq!(ask(&mut reader), Ok("web.1\n".to_string()));
    assert!(stage.ok(&["logs"]).contains("web.1 listens"));
    let refused = stage.minisup(&["scale", "wbe=3"]);
    let error = String::from_utf8_lossy(&refused.stderr);
    assert!(error.contains("there is no service wbe; the project has web"), "{error}");
    let other = Stage::new("scale-other", stage.port);
    let publish = format!("127.0.0.1:{}:3000", stage.port);
    let bundle = other.dir.join("bundle");
    let runtime = beside("minirun");
    let up = ["up", "--publish", &publish, "-d", "--runtime", runtime.to_str().unwrap()];
    let refused = other.minisup(&[&up[..], &[bundle.to_str().unwrap()]].concat());
    let error = String::from_utf8_lossy(&refused.stderr);
    assert!(!refused.status.success() && error.contains("cannot listen at"), "{error}");
    other.wait_for_end();
    std::fs::remove_dir_all(&other.dir).unwrap();
    stage.down();
}

#[test]
#[ignore = "needs root and a runtime"]
fn a_compose_file_is_followed_and_what_cannot_be_is_refused_with_its_place() {
    let stage = Stage::new("compose", 28_086);
    let file = stage.dir.join("bundle/compose.yaml");
    let text = |web: &str| {
        format!(
            "services:\n  web:\n    image: .\n    ports: [\"127.0.0.1:{}:3000\"]\n    \
             depends_on: {{db: {{condition: service_healthy}}}}\n    \
             deploy: {{replicas: 2, resources: {{limits: {{memory: 64m}}}}}}\n{web}  \
             db:\n    image: .\n    healthcheck: {{test: [CMD, /hello, --help], interval: 1s}}\n",
            stage.port
        )
    };
    std::fs::write(&file, text("    volumes: [\"/tmp:/x\"]\n")).unwrap();
    let runtime = beside("minirun");
    let up = ["up", "--file", file.to_str().unwrap(), "--runtime", runtime.to_str().unwrap()];
    let refused = stage.minisup(&[&up[..], &["-d"]].concat());
    let error = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success(), "{error}");
    assert!(error.contains("compose.yaml:7:") && error.contains("not supported yet"), "{error}");
    std::fs::write(&file, text("").replace("/hello, --help", "/hello, check")).unwrap();
    stage.ok(&[&up[..], &["-d", "--wait"]].concat());
    let events = stage.ok(&["events"]);
    let place = |who: &str, what: &str| {
        let words = |line: &str| line.split_whitespace().skip(1).take(2).eq([who, what]);
        events.lines().position(words).unwrap_or_else(|| panic!("no {who} {what}: {events}"))
    };
    assert!(place("web.1", "waiting") < place("db.1.1", "became-ready"));
    assert!(place("db.1.1", "became-ready") < place("web.1.1", "launching"));
    let mut reader = BufReader::new(TcpStream::connect(("127.0.0.1", stage.port)).unwrap());
    assert!(ask(&mut reader).unwrap().starts_with("web."));
    let before = stage.pids();
    stage.ok(&[&up[..], &["-d", "--wait"]].concat());
    assert_eq!(stage.pids(), before, "a second up changes nothing");
    std::fs::remove_file(&file).unwrap();
    stage.down();
}

#[test]
#[ignore = "needs root and a runtime"]
fn services_find_each_other_by_name_whatever_dies() {
    let stage = Stage::new("names", 28_087);
    let file = stage.dir.join("bundle/compose.yaml");
    // Both listen at the same port, everywhere: the usual case, and the one that is easy to get
    // wrong.
    let text = format!(
        "services:\n  web:\n    image: .\n    ports: [\"127.0.0.1:{}:3000\"]\n    \
         depends_on: {{api: {{condition: service_healthy}}}}\n  \
         api:\n    image: .\n    expose: [3000]\n    deploy: {{replicas: 2}}\n    \
         healthcheck: {{test: [CMD, /hello, check], interval: 1s}}\n",
        stage.port
    );
    std::fs::write(&file, text).unwrap();
    let runtime = beside("minirun");
    let up = ["up", "--file", file.to_str().unwrap(), "--runtime", runtime.to_str().unwrap()];
    stage.ok(&[&up[..], &["-d", "--wait"]].concat());
    let web = |path: &str| {
        let mut reader = BufReader::new(TcpStream::connect(("127.0.0.1", stage.port)).unwrap());
        ask_for(&mut reader, path).unwrap_or_else(|error| panic!("{error}\n{}", stage.complaints()))
    };
    let answers: std::collections::BTreeSet<String> =
        (0..40).map(|_| web("/ask/api/3000")).collect();
    let both = ["api.1\n", "api.2\n"].map(str::to_string);
    assert_eq!(answers, both.into(), "balanced, and never the asker itself");
    let find = |name: &str| web(&format!("/find/{name}")).matches('.').count() / 3;
    let counts = ["api", "tasks.api", "2.api", "3.api"].map(find);
    assert_eq!(counts, [1, 2, 1, 0], "addresses of the service, its tasks, its slots");
    assert_eq!(web("/ask/2.api/3000"), "api.2\n");
    let full = format!("/ask/api.{}.internal/3000", stage.project);
    assert!(web(&full).starts_with("api."), "{}", web(&full));
    let old = stage.role("plane").unwrap();
    let before = web("/find/api");
    for victim in [stage.role("brain").unwrap(), old.clone()] {
        kill("-KILL", &victim);
    }
    stage.wait_for("another data plane", |s| s.role("plane").is_some_and(|new| new != old));
    stage.wait_for("an answer", |s| s.minisup(&["ps"]).status.success());
    stage.wait_for("names again", |_| web("/find/api") == before);
    stage.wait_for("answers again", |_| web("/ask/api/3000").starts_with("api."));
    std::fs::remove_file(&file).unwrap();
    stage.down();
}

const CONFIG: &str = r#"{
  "ociVersion": "1.0.2",
  "root": {"path": "rootfs", "readonly": true},
  "process": {"args": ["/hello"], "cwd": "/", "env": ["PATH=/"], "user": {"uid": 0, "gid": 0}},
  "mounts": [{"destination": "/proc", "type": "proc", "source": "proc"}],
  "linux": {"namespaces": [{"type": "mount"}]}
}"#;
