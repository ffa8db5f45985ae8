//! The engines' daemons: started by systemd in a guest, and by ourselves where there is none.

use std::fs::File;
use std::path::Path;
use std::process::{Child, Command};

use crate::world::World;

/// Whether systemd starts daemons here.
pub(super) fn has_systemd() -> bool {
    Path::new("/run/systemd/system").is_dir()
}

/// A daemon that runs; it is stopped when this is dropped.
#[derive(Debug)]
pub(super) struct Daemon {
    unit: &'static str,
    /// Without systemd.
    child: Option<Child>,
}

impl Daemon {
    /// Starts the systemd unit, or, without systemd, the command; returns when `asks`, a command
    /// of the shell, has an answer from it.
    pub(super) fn start(world: &World, unit: &'static str, command: &[&str], asks: &str) -> Daemon {
        let child = match has_systemd() {
            true => {
                let lines = format!(
                    "systemctl reset-failed {unit} 2>/dev/null || true; systemctl restart {unit}"
                );
                super::engines::shell(world, &lines);
                None
            }
            false => {
                let log = || File::options().create(true).append(true).open(world.path("daemons"));
                let said = [log().expect("make a log"), log().expect("make a log")];
                let [out, err] = said;
                let mut daemon = Command::new(command[0]);
                let daemon = daemon.args(&command[1..]).stdout(out).stderr(err).spawn();
                Some(daemon.unwrap_or_else(|error| panic!("run {}: {error}", command[0])))
            }
        };
        let wait = format!(
            "tries=0; until {asks} >/dev/null 2>&1; do tries=$((tries + 1))
             test $tries -lt 600 || exit 1; sleep 0.1; done"
        );
        super::engines::shell(world, &wait);
        Daemon { unit, child }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        match &mut self.child {
            None => {
                let units = format!("{0} {0}.socket", self.unit);
                let stop = format!("systemctl stop {units} 2>/dev/null");
                drop(Command::new("/bin/sh").args(["-c", &stop]).status());
            }
            Some(child) => {
                let pid = child.id().to_string();
                drop(Command::new("kill").arg(pid).status());
                drop(child.wait());
            }
        }
    }
}
