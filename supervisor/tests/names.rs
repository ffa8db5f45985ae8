//! Services that find each other by name, with real containers.
//!
//! Needs root and an OCI runtime (minirun beside the test's programs, or `MINISUP_TEST_RUNTIME`),
//! so it runs with `cargo build -p minirun && cargo test -p minisup -- --ignored`. Each test has its own project, ports and
//! directories, and ends by checking that nothing is left.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
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
            .env("MINISUP_WAY_OUT", "no")
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
