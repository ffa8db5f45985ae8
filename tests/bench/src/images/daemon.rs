//! A containerd of our own: its root, state and socket are in a directory of this program.

use anyhow::{Context, Result, bail};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

/// containerd, while it is needed.
#[derive(Debug)]
pub(crate) struct Containerd {
    directory: PathBuf,
    child: Child,
}

/// The kernel's unit of time in /proc (sysconf(_SC_CLK_TCK), the same on all of Linux).
const TICK_MS: u64 = 10;

impl Containerd {
    /// Starts it and waits until it answers.
    pub(crate) fn start(directory: &Path) -> Result<Self> {
        let config = directory.join("config.toml");
        // Kubernetes' part is not needed, and wants a network.
        let text = format!(
            "version = 2\nroot = \"{0}/root\"\nstate = \"{0}/state\"\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n[grpc]\naddress = \"{0}/socket\"\n",
            directory.display()
        );
        fs::write(&config, text)?;
        let log = fs::File::create(directory.join("log"))?;
        let child = Command::new("containerd")
            .arg("--config")
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .context("start containerd")?;
        let containerd = Self { directory: directory.to_path_buf(), child };
        for _ in 0..100 {
            if containerd.ask(&["version"]).is_ok() {
                return Ok(containerd);
            }
            sleep(Duration::from_millis(100));
        }
        bail!("it does not answer; see {}/log", directory.display())
    }

    /// Where the one in a directory listens.
    pub(crate) fn socket(directory: &Path) -> PathBuf {
        directory.join("socket")
    }

    /// The processor time that it has used, with that of what it started.
    pub(crate) fn processor_ms(&self) -> Result<u64> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id()))?;
        // proc_pid_stat(5): fields 14 to 17, counted behind the name in brackets.
        let (_, fields) = stat.rsplit_once(')').context("no name in stat")?;
        let times = fields.split_whitespace().skip(11).take(4);
        let ticks = times.map(str::parse::<u64>).sum::<Result<u64, _>>()?;
        Ok(ticks * TICK_MS)
    }

    /// The most memory that it ever had, in KiB.
    pub(crate) fn peak_kib(&self) -> Result<i64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let number = line.and_then(|line| line.split_whitespace().next()).context("no VmHWM")?;
        Ok(number.parse()?)
    }

    fn ask(&self, arguments: &[&str]) -> Result<()> {
        let output = Command::new("ctr")
            .arg("--address")
            .arg(Self::socket(&self.directory))
            .args(arguments)
            .output()?;
        if !output.status.success() {
            bail!(
                "ctr {}: {}",
                arguments.join(" "),
                String::from_utf8_lossy(&output.stderr).trim()
            );
        }
        Ok(())
    }
}

impl Drop for Containerd {
    /// Ends it, whatever was measured.
    fn drop(&mut self) {
        // SIGTERM, so that it unmounts what it mounted.
        if let Ok(pid) = i32::try_from(self.child.id()) {
            let pid = nix::unistd::Pid::from_raw(pid);
            // It may have ended by itself.
            let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
        }
        drop(self.child.wait());
    }
}
