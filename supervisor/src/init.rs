//! A small first process for containers (`init: true`): starts the program, passes signals on,
//! reaps whatever is left to it, and ends as the program does.
//!
//! # What the kernel offers
//! The first process of a PID namespace becomes the parent of every orphan in it, and a signal whose
//! meaning it has not set does not reach it. Most programs expect neither: their orphans stay as
//! zombies, and SIGTERM does nothing.
//!
//! This program itself is shown to the container at [`PLACE`], read-only.

use std::os::fd::AsFd;
use std::process::Command;

use anyhow::{Context, Result};
use linux::poll;
use linux::signal::Signals;
use linux::{Pid, child, pidfd};

/// Where containers see it. In `/dev`, because that is in memory: nothing is written to the image.
pub(crate) const PLACE: &str = "/dev/minisup-init";

const SIGCHLD: i32 = 17;
/// Stop and continue of terminals: the kernel sends them to whom they concern.
const OF_TERMINALS: [i32; 2] = [21, 22];

/// Runs a program to its end; the answer is its status, 128 and more for signals.
pub(crate) fn run(words: &[String]) -> Result<i32> {
    let (program, arguments) = words.split_first().context("init: there is no program to run")?;
    // Before the program starts, so that no signal is missed. It gets an empty mask again.
    let signals = Signals::capture()?;
    let started = Command::new(program).args(arguments).spawn();
    let started = started.with_context(|| format!("cannot run {program}"))?;
    let main = Pid::from_raw(started.id().cast_signed());
    loop {
        while let Some((pid, exit)) = child::reap_any()? {
            if pid == main {
                return Ok(exit.status());
            }
        }
        poll::wait_readable(signals.as_fd(), None)?;
        while let Some(number) = signals.next()? {
            if number != SIGCHLD && !OF_TERMINALS.contains(&number) {
                // It may have ended just now: then its end is the next thing that is seen.
                let _ = pidfd::open(main).and_then(|main| pidfd::signal(&main, number));
            }
        }
    }
}
