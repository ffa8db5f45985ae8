//! `cargo xtask storm`: does a request get lost while everything is killed?
//!
//! Long, and therefore no test: for a minute `wrk` keeps 100 connections busy, and something is
//! killed again and again. Each storm prints what `wrk` says of lost requests; any is a failure.
//!
//! ```text
//! kills     one of three replicas, every 2 s          brain    the brain, 100 times
//! all       all three at once, every 6 s              keeper   the keeper, 100 times
//! single    the only replica, every 2 s               scale    3 → 10 → 2, again and again
//! freeze    one of three is stopped, every 10 s           upgrade  minisup itself, every 2 s
//! ```
//! `footprint` is no storm: time, memory and processor time of up to 1000 replicas. `soak` is a long
//! one: an hour (or `STORM_SECONDS`) of requests and kills, and the memory of the three processes ten
//! times meanwhile.
//!
//! Without a name all are run but `soak`.

mod footprint;

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::programs::{build, output_of};

const PROJECT: &str = "storm";
const PORT: u16 = 28_999;
const ALL: [&str; 9] =
    ["kills", "all", "single", "freeze", "brain", "keeper", "scale", "upgrade", "footprint"];
/// What is not run unless it is asked for.
const SOAK: &str = "soak";

/// Where everything of this storm is.
struct Storm {
    release: PathBuf,
    dir: PathBuf,
    seconds: u64,
}

/// Runs the named storms, or all.
pub(crate) fn run(names: &[&str]) -> Result<()> {
    if let Some(unknown) = names.iter().find(|name| !ALL.contains(name) && **name != SOAK) {
        bail!("there is no storm {unknown}; there are {} and {SOAK}", ALL.join(", "));
    }
    let seconds: Option<u64> =
        std::env::var("STORM_SECONDS").ok().and_then(|text| text.parse().ok());
    let release = build(&["minisup", "minirun", "web"])?;
    let dir = std::env::temp_dir().join(format!("minisup-storm-{}", std::process::id()));
    let usual = if names.contains(&SOAK) { 3600 } else { 60 };
    let storm = Storm { release, dir, seconds: seconds.unwrap_or(usual) };
    storm.bundle()?;
    let mut lost = false;
    for name in if names.is_empty() { &ALL[..] } else { names } {
        let outcome = storm.one(name);
        if storm.role("brain").is_some() {
            storm.minisup(&["down"])?;
        }
        lost |= !outcome?;
    }
    fs::remove_dir_all(&storm.dir)?;
    if lost {
        bail!("requests were lost; see above");
    }
    Ok(())
}

impl Storm {
    fn bundle(&self) -> Result<()> {
        let root = self.dir.join("web/rootfs");
        for below in ["proc", "dev", "bin"] {
            fs::create_dir_all(root.join(below))?;
        }
        fs::copy(self.release.join("web"), root.join("bin/web"))?;
        let config = r#"{"ociVersion": "1.0.2", "root": {"path": "rootfs", "readonly": true},
            "process": {"args": ["/bin/web"], "cwd": "/", "user": {"uid": 0, "gid": 0}},
            "mounts": [{"destination": "/proc", "type": "proc", "source": "proc"},
                       {"destination": "/dev", "type": "tmpfs", "source": "tmpfs"}],
            "linux": {"namespaces": [{"type": "mount"}]}}"#;
        Ok(fs::write(self.dir.join("web/config.json"), config)?)
    }

    fn minisup(&self, arguments: &[&str]) -> Result<String> {
        let mut command = Command::new(self.release.join("minisup"));
        command.args(["--project", PROJECT]).args(arguments);
        command.env("MINISUP_RUN_DIR", self.dir.join("run")).env("MINISUP_WAY_OUT", "no");
        output_of(command.env("MINISUP_STATE_DIR", self.dir.join("state")))
    }

    fn up(&self, replicas: &str, more: &[&str]) -> Result<()> {
        let publish = format!("127.0.0.1:{PORT}:3000");
        let bundle = self.dir.join("web");
        let bundle = bundle.to_str().context("the temporary directory is not UTF-8")?;
        let up = ["up", "--wait", "--replicas", replicas, "--publish", &publish];
        let health = ["--health-http", "3000/health"];
        self.minisup(&[&up[..], &health, more, &[bundle]].concat()).map(drop)
    }

    /// One storm; whether nothing was lost.
    fn one(&self, name: &str) -> Result<bool> {
        if name == "footprint" {
            return footprint::measure(self).map(|()| true);
        }
        self.up(if name == "single" { "1" } else { "3" }, &[])?;
        let client = self.client()?;
        let begun = Instant::now();
        let mut rounds = 0_u32;
        while begun.elapsed() < Duration::from_secs(self.seconds) {
            let pause = self.blow(name, rounds)?;
            rounds += 1;
            std::thread::sleep(pause);
        }
        let output = client.wait_with_output().context("wait for wrk")?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let said = |word: &str| text.lines().find(|line| line.contains(word)).map(str::trim);
        let lost = [said("Socket errors"), said("Non-2xx")];
        let lost: Vec<&str> = lost.into_iter().flatten().collect();
        let sum = said("requests in").unwrap_or("no answer from wrk");
        println!(
            "{name}: {rounds} rounds, {sum}; lost: {}",
            if lost.is_empty() { "nothing".to_string() } else { lost.join(", ") }
        );
        Ok(lost.is_empty() && sum.contains("requests"))
    }

    /// `wrk`, a little longer than the storm.
    fn client(&self) -> Result<Child> {
        let length = format!("{}s", self.seconds + 2);
        let address = format!("http://127.0.0.1:{PORT}/");
        let mut wrk = Command::new("wrk");
        wrk.args(["-t", "1", "-c", "100", "--timeout", "20s", "-d", &length, &address]);
        wrk.stdout(Stdio::piped()).spawn().context("run wrk: apt-get install wrk")
    }

    /// Does the worst once; how long to wait before the next time.
    fn blow(&self, name: &str, round: u32) -> Result<Duration> {
        let pause = Duration::from_secs(2);
        match name {
            "kills" | "single" => signal("-KILL", self.replicas()?.first()),
            "all" => self.replicas()?.iter().for_each(|pid| signal("-KILL", Some(pid))),
            "freeze" => signal("-STOP", self.replicas()?.last()),
            "brain" | "keeper" => signal("-KILL", self.role(name).as_ref()),
            SOAK => {
                println!("{}", footprint::resident(self)?);
                signal("-KILL", self.replicas()?.first());
            }
            "upgrade" => drop(self.minisup(&["upgrade"])?),
            _ => {
                let number = if round.is_multiple_of(2) { "web=10" } else { "web=2" };
                self.minisup(&["scale", number])?;
            }
        }
        Ok(match name {
            "all" => pause * 3,
            "freeze" => pause * 5,
            SOAK => Duration::from_secs(self.seconds / 10),
            "brain" | "keeper" => Duration::from_millis(self.seconds * 10),
            _ => pause,
        })
    }

    /// The first process of each ready replica.
    fn replicas(&self) -> Result<Vec<String>> {
        let text = self.minisup(&["ps", "--format", "{{.PID}} {{.CurrentState}}"])?;
        let ready = text.lines().filter(|line| line.contains("ready for"));
        Ok(ready.filter_map(|line| line.split(' ').next()).map(str::to_owned).collect())
    }

    /// The process of a role.
    fn role(&self, role: &str) -> Option<String> {
        let wanted = format!("minisup\0{role}\0{PROJECT}\0");
        fs::read_dir("/proc").ok()?.flatten().find_map(|entry| {
            let line = fs::read(entry.path().join("cmdline")).ok()?;
            let pid = entry.file_name().into_string().ok()?;
            line.starts_with(wanted.as_bytes()).then_some(pid)
        })
    }
}

/// Sends a signal. A process that has ended meanwhile is as good as killed.
fn signal(signal: &str, pid: Option<&String>) {
    if let Some(pid) = pid {
        drop(Command::new("kill").args([signal, pid]).stderr(Stdio::null()).status());
    }
}
