//! A command in a container, with a limit to its time: what exec probes and hooks are.
//!
//! The runtime's `exec` is only the messenger. Killing it leaves the command running in the
//! container, once more with each probe, so it is the command that is killed, with everything it
//! has started; the messenger then reaps it and ends by itself.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use linux::{Pid, pidfd};

use super::runtime::Runtime;
use crate::settings::{Hook, every_capability};

/// How long the messenger may take to end after its command was killed.
const REAP: Duration = Duration::from_secs(1);
/// How often new children are looked for before the rest is taken to be done.
const ROUNDS: usize = 8;
const SIGKILL: i32 = 9;
const SIGSTOP: i32 = 19;

/// What a command came to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// It ended: its status, and what it printed.
    Status(i32, String),
    /// It did not end in time and was killed.
    Overdue,
}

/// A command whose number the runtime writes down. Dropping it kills what is left of the command.
#[derive(Debug)]
struct Command {
    pid_file: PathBuf,
}

/// Runs a command in a container, for at most `limit`.
///
/// # Errors
/// The runtime cannot be started.
pub(crate) async fn run(
    runtime: &Runtime,
    id: &str,
    hook: &Hook,
    limit: Duration,
) -> Result<Ended> {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let own = std::process::id();
    let command = Command { pid_file: runtime.root.with_extension(format!("exec-{own}-{number}")) };
    let mut call = runtime.command("exec");
    call.arg("--pid-file").arg(&command.pid_file).args(options(hook)).arg(id).args(&hook.command);
    call.stdout(Stdio::piped()).stderr(Stdio::piped());
    let child =
        call.spawn().with_context(|| format!("cannot run {}", runtime.program.display()))?;
    let output = child.wait_with_output();
    tokio::pin!(output);
    match tokio::time::timeout(limit, &mut output).await {
        Ok(output) => {
            command.forget();
            let output = output?;
            let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
            text.push_str(&String::from_utf8_lossy(&output.stderr));
            Ok(Ended::Status(output.status.code().unwrap_or(-1), text))
        }
        Err(_) => {
            command.kill();
            command.forget();
            let _ = tokio::time::timeout(REAP, output).await;
            Ok(Ended::Overdue)
        }
    }
}

/// How a command is run where that is not as the container was, in the words of OCI runtimes.
fn options(hook: &Hook) -> Vec<String> {
    let mut words = Vec::new();
    let mut add = |name: &str, value: String| words.extend([name.to_string(), value]);
    if let Some((user, group)) = hook.user {
        add("--user", format!("{user}:{group}"));
    }
    if let Some(dir) = &hook.working_dir {
        add("--cwd", dir.clone());
    }
    hook.env.iter().for_each(|variable| add("--env", variable.clone()));
    if hook.privileged {
        every_capability().into_iter().for_each(|name| add("--cap", name));
    }
    words
}

impl Command {
    fn pid(&self) -> Option<i32> {
        std::fs::read_to_string(&self.pid_file).ok()?.trim().parse().ok()
    }

    /// It has ended: its number may soon be another's.
    fn forget(&self) {
        let _ = std::fs::remove_file(&self.pid_file);
    }

    /// Kills the command and all its descendants. They are stopped first, the parents before the
    /// children, so that none has a child while we look.
    fn kill(&self) {
        let Some(root) = self.pid() else { return };
        let mut stopped = BTreeSet::new();
        for _ in 0..ROUNDS {
            let mut family = vec![root];
            family.extend(descendants(root, &parents()));
            let new: Vec<i32> = family.into_iter().filter(|pid| stopped.insert(*pid)).collect();
            if new.is_empty() {
                break;
            }
            new.into_iter().for_each(|pid| signal(pid, SIGSTOP));
        }
        stopped.into_iter().for_each(|pid| signal(pid, SIGKILL));
    }
}

impl Drop for Command {
    fn drop(&mut self) {
        // The file is still there when the probe was given up halfway.
        self.kill();
        self.forget();
    }
}

/// The parent of every process.
fn parents() -> BTreeMap<i32, i32> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let stat = |entry: std::fs::DirEntry| {
        let pid: i32 = entry.file_name().to_str()?.parse().ok()?;
        let text = std::fs::read_to_string(entry.path().join("stat")).ok()?;
        // PID (NAME) STATE PARENT; the name may hold anything.
        let (_, rest) = text.rsplit_once(')')?;
        Some((pid, rest.split_whitespace().nth(1)?.parse().ok()?))
    };
    entries.filter_map(stat).collect()
}

/// Everything below a process.
fn descendants(root: i32, parents: &BTreeMap<i32, i32>) -> Vec<i32> {
    let mut found = vec![root];
    let mut next = 0;
    while let Some(&parent) = found.get(next) {
        found.extend(parents.iter().filter(|(_, of)| **of == parent).map(|(pid, _)| *pid));
        next += 1;
    }
    found.split_off(1)
}

fn signal(pid: i32, number: i32) {
    // One that has ended meanwhile needs nothing.
    let _ = pidfd::open(Pid::from_raw(pid)).and_then(|process| pidfd::signal(&process, number));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hook_runs_as_it_says() {
        let hook = Hook {
            user: Some((7, 8)),
            working_dir: Some("/x".into()),
            env: vec!["A=1".into()],
            ..Hook::default()
        };
        assert_eq!(options(&hook), ["--user", "7:8", "--cwd", "/x", "--env", "A=1"]);
        assert!(options(&Hook::default()).is_empty());
        let privileged = options(&Hook { privileged: true, ..Hook::default() });
        assert_eq!(privileged.len(), 2 * every_capability().len());
    }

    #[test]
    fn a_family_is_found_to_its_last_member() {
        let parents = BTreeMap::from([(1, 0), (5, 1), (6, 5), (7, 5), (9, 7), (8, 1)]);
        assert_eq!(descendants(5, &parents), [6, 7, 9]);
        assert_eq!(descendants(9, &parents), [0; 0]);
    }

    #[test]
    fn a_command_is_killed_with_its_children() {
        let mut shell = std::process::Command::new("sh")
            .args(["-c", "sleep 600 & sleep 600; true"])
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let pid = shell.id().cast_signed();
        while descendants(pid, &parents()).len() < 2 {
            std::thread::yield_now();
        }
        let children = descendants(pid, &parents());
        let pid_file = std::env::temp_dir().join(format!("minisup-exec-{pid}"));
        std::fs::write(&pid_file, pid.to_string()).unwrap();
        drop(Command { pid_file: pid_file.clone() });
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&shell.wait().unwrap()), Some(9));
        for child in children {
            // It may be a zombie until somebody reaps it; it does not run in any case.
            // A busy machine gets round to it later.
            let stat =
                || std::fs::read_to_string(format!("/proc/{child}/stat")).unwrap_or_default();
            while !stat().is_empty() && !stat().contains(") Z") {
                std::thread::sleep(Duration::from_millis(10));
            }
        }
        assert!(!pid_file.exists());
    }
}
