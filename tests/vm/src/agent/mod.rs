//! The guest's side: the same program, put into the initrd as `/vm-agent`.
//!
//! ```text
//! kernel ─▶ /vm-agent boot PROFILE   early modules, root file system, switch to it
//!            ├─ quick ─▶ /run/vm-agent init    the rest of the mounts; process 1 of the guest
//!            │             └─ /run/vm-agent serve
//!            └─ full ──▶ /sbin/init            systemd, which starts
//!                          └─ /run/vm-agent serve
//! serve ─▶ for each command: the command, behind `/run/vm-agent terminal` if it has one
//! ```
//! There is no shell script on this path: an error has a place and a reason.

mod boot;
mod command;
mod init;
mod serve;

use std::{convert::Infallible, env, ffi::OsString, os::unix::process::CommandExt, process};

use anyhow::{Context, Result, bail};

/// Where the program is while the guest runs.
const INSTALLED: &str = "/run/vm-agent";

/// The name by which the program knows that it is in a guest.
pub(crate) const NAME: &str = "vm-agent";

/// If this process is in a guest, does its part there and does not return.
pub fn enter_if_guest() {
    let mut arguments = env::args_os();
    let called = arguments.next().unwrap_or_default();
    if std::path::Path::new(&called).file_name() != Some(NAME.as_ref()) {
        return;
    }
    let arguments: Vec<_> = arguments.collect();
    let Err(error) = dispatch(&arguments);
    // Process 1 has nobody to return to: the panic that follows ends QEMU, and the host shows
    // these last words.
    eprintln!("vm-agent: {error:#}");
    process::exit(1);
}

fn dispatch(arguments: &[OsString]) -> Result<Infallible> {
    let words: Vec<_> = arguments.iter().filter_map(|word| word.to_str()).collect();
    match words.as_slice() {
        ["boot", profile] => boot::boot(profile),
        ["init"] => init::init(),
        ["serve", profile] => serve::serve(profile),
        ["terminal", program, rest @ ..] => terminal(program, rest),
        _ => bail!("called with {words:?}"),
    }
}

/// Makes standard input the controlling terminal of a new session, then becomes the program.
fn terminal(program: &str, arguments: &[&str]) -> Result<Infallible> {
    rustix::process::setsid().context("cannot start a session")?;
    rustix::process::ioctl_tiocsctty(std::io::stdin()).context("cannot take the terminal")?;
    Err(process::Command::new(program).args(arguments).exec())
        .with_context(|| format!("cannot run {program}"))
}
