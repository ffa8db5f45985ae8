//! # What the kernel offers
//! Nothing: a hook is an ordinary program that somebody else wants to run at a certain moment of a
//! container's life, to give it a network or a device, say.
//!
//! # What we do
//! Run it with its own environment and nothing of ours, give it the container's state on standard
//! input, and wait, at most as long as it was given. If it fails, the container fails, and the error
//! holds the hook's last words and its duration.
//!
//! # What goes wrong without it
//! Engines would have to be part of the runtime. And a hook that hangs would hang every container.
//!
//! # By hand
//! ```sh
//! echo '{"status": "creating", "pid": 1}' | sh -c 'grep -o creating'
//! (timeout 1 sleep 5 || echo "too slow: status $?") | grep 124
//! ```
//! See runtime-spec config.md, "POSIX-platform Hooks".

use std::io::{Read, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use linux::{Pid, fd, pidfd, poll};
use oci_spec::runtime::Hook;

use crate::error::{Cause, Error};

/// How much of a hook's last words an error keeps.
const LAST_WORDS: usize = 4096;

/// Makes every descriptor that we were started with close itself in hooks: an engine may have had
/// anything open. Not for init, which has closed them already, but for those that the program gets.
pub(crate) fn keep_descriptors_from_hooks() -> Result<(), Error> {
    fd::close_on_exec_from(3).map_err(Error::kernel("keep our descriptors from hooks"))
}

/// Runs one hook with `state` on its standard input.
pub(crate) fn run(hook: &Hook, state: &str, directory: &Path) -> Result<(), Cause> {
    let begun = Instant::now();
    let limit = hook.timeout().and_then(|s| u64::try_from(s).ok()).map(Duration::from_secs);
    let mut child = spawn(hook, directory)?;
    if let Some(mut input) = child.stdin.take() {
        // A hook that does not read its input is fine.
        drop(input.write_all(state.as_bytes()));
    }
    let (words, in_time) = listen(&mut child, begun, limit);
    if !in_time {
        drop(child.kill());
    }
    let status = child.wait().map_err(|error| Cause::new(format!("wait: {error}")))?;
    if status.success() && in_time {
        return Ok(());
    }
    let took = humantime::format_duration(Duration::from_millis(
        u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX),
    ));
    let what = if in_time { status.to_string() } else { "killed: its timeout has passed".into() };
    let said = if words.is_empty() { String::new() } else { format!(", stderr: {words}") };
    Err(Cause::new(format!("{what} after {took}{said}")))
}

fn spawn(hook: &Hook, directory: &Path) -> Result<Child, Cause> {
    use std::os::unix::process::CommandExt;
    let mut command = Command::new(hook.path());
    let arguments = hook.args().clone().unwrap_or_default();
    if let Some((name, rest)) = arguments.split_first() {
        command.arg0(name).args(rest);
    }
    command.env_clear().current_dir(directory).process_group(0);
    for entry in hook.env().iter().flatten() {
        if let Some((name, value)) = entry.split_once('=') {
            command.env(name, value);
        }
    }
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    command.spawn().map_err(|error| Cause::new(error.to_string()))
}

/// Collects what the hook says until it ends; `false` when the time is over first.
fn listen(child: &mut Child, begun: Instant, limit: Option<Duration>) -> (String, bool) {
    let mut words = Vec::new();
    let mut in_time = true;
    let left = || limit.map(|limit| limit.saturating_sub(begun.elapsed()));
    if let Some(mut errors) = child.stderr.take() {
        let mut buffer = [0; 1024];
        loop {
            if !poll::wait_readable(&errors, left()).unwrap_or(true) {
                in_time = false;
                break;
            }
            match errors.read(&mut buffer) {
                Ok(0) | Err(_) => break,
                Ok(count) => words.extend_from_slice(buffer.get(..count).unwrap_or_default()),
            }
            let surplus = words.len().saturating_sub(LAST_WORDS);
            words.drain(..surplus);
        }
    }
    // It may have closed its standard error and still run.
    let pid = Pid::from_raw(i32::try_from(child.id()).unwrap_or(0));
    if in_time && let Ok(process) = pidfd::open(pid) {
        in_time = poll::wait_readable(&process, left()).unwrap_or(true);
    }
    (String::from_utf8_lossy(&words).trim().to_owned(), in_time)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hook(script: &str, timeout: Option<i64>) -> Hook {
        let mut hook = Hook::default();
        hook.set_path("/bin/sh".into());
        hook.set_args(Some(vec!["sh".into(), "-c".into(), script.into()]));
        hook.set_env(Some(vec!["ONLY=this".into()]));
        hook.set_timeout(timeout);
        hook
    }

    #[test]
    fn a_hook_gets_the_state_and_only_its_own_environment() {
        let script = "grep -q creating && test \"$ONLY\" = this && test -z \"$HOME\"";
        run(&hook(script, None), "{\"status\": \"creating\"}", Path::new("/")).unwrap();
    }

    #[test]
    fn a_failing_hook_keeps_its_last_words() {
        let cause =
            run(&hook("echo no network >&2; exit 3", None), "", Path::new("/")).unwrap_err();
        assert!(cause.text.contains("exit status: 3"), "{cause:?}");
        assert!(cause.text.contains("no network"), "{cause:?}");
    }

    #[test]
    fn a_hook_that_hangs_is_killed() {
        let cause = run(&hook("exec sleep 60", Some(1)), "", Path::new("/")).unwrap_err();
        assert!(cause.text.contains("its timeout has passed"), "{cause:?}");
    }
}
