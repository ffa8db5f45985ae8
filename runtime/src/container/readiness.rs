//! Sockets that a service manager passes on: sd_notify(3) and sd_listen_fds(3).
//!
//! The container gets a socket of its own for its readiness, in a directory of its state that is
//! mounted at [`INSIDE`]: the manager's socket may take no messages from strangers, and the
//! container's process has another number inside. Whoever starts the container reads that socket
//! and tells the manager, with the number of the container's first process as the one to watch.
//!
//! Sockets to listen on are descriptors from 3 on; they are kept, and the program is told so.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};

use linux::poll::{self, Ready};
use linux::{OFlag, fd, path, socket};

use super::state::{Home, StateRoot};
use crate::error::{Error, Result};
use crate::plan::{Mount, Plan, Source};
use crate::spec::mount_options;

/// The variable that names the manager's socket, and the container's.
const VARIABLE: &str = "NOTIFY_SOCKET";
/// The directory in the container's state.
const DIRECTORY: &str = "notify";
/// The socket in it.
const SOCKET: &str = "notify.sock";
/// Where the container has the directory.
const INSIDE: &str = "/run/notify";

fn manager() -> Option<String> {
    std::env::var(VARIABLE).ok().filter(|name| !name.is_empty())
}

/// Adds to the plan what the program needs of the manager that started us.
pub(crate) fn pass_on(plan: &mut Plan, root: &StateRoot) {
    let mut environment = Vec::new();
    if let Some(count) = std::env::var("LISTEN_FDS").ok().filter(|count| !count.is_empty()) {
        // The program is process 1 of its namespace, or is told that it is meant all the same.
        environment.extend([format!("LISTEN_FDS={count}"), "LISTEN_PID=1".into()]);
        let names = std::env::var("LISTEN_FDNAMES").ok();
        environment.extend(names.map(|names| format!("LISTEN_FDNAMES={names}")));
    }
    if manager().is_some() {
        plan.notifies = true;
        plan.mounts.push(Mount {
            destination: INSIDE.into(),
            source: Source::Bind(root.path().join(&plan.id).join(DIRECTORY), false),
            options: mount_options::parse(&["bind", "ro", "nosuid", "nodev", "noexec"]),
            owners: None,
        });
        environment.push(format!("{VARIABLE}={INSIDE}/{SOCKET}"));
    }
    plan.process.add_environment(environment);
}

/// Makes the directory, before the container is built.
pub(crate) fn make_directory(home: &Home) -> Result<()> {
    let path = home.path().join(DIRECTORY);
    let failed = |error| Error::file(format!("make {}", path.display()))(error);
    std::fs::DirBuilder::new().mode(0o755).create(&path).map_err(failed)?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).map_err(failed)
}

/// What the container says about its readiness, and who wants to know it.
#[derive(Debug)]
pub(crate) struct Readiness {
    socket: OwnedFd,
    manager: String,
    init: i32,
}

impl AsFd for Readiness {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Readiness {
    /// Begins to listen, before the program of process `init` starts; `None` when nobody wants to
    /// know, or the container was made without the socket.
    pub(crate) fn listen(home: &Home, init: i32) -> Result<Option<Self>> {
        let directory = home.path().join(DIRECTORY);
        let Some(manager) = manager().filter(|_| directory.is_dir()) else { return Ok(None) };
        let failed = || Error::kernel("listen for the container's readiness");
        let dir = path::open(&directory, OFlag::O_PATH | OFlag::O_DIRECTORY).map_err(failed())?;
        let socket = socket::bind_datagram_at(dir.as_fd(), SOCKET).map_err(failed())?;
        // Whoever runs in the container may say it.
        let open = std::fs::Permissions::from_mode(0o666);
        let name = directory.join(SOCKET);
        std::fs::set_permissions(&name, open)
            .map_err(Error::file(format!("open {} to all", name.display())))?;
        Ok(Some(Self { socket, manager, init }))
    }

    /// Reads one message, and passes it on if it says that the container is ready: `true` then.
    pub(crate) fn pass_message(&self) -> Result<bool> {
        let mut message = [0; 4096];
        let length = fd::read(self.as_fd(), &mut message)
            .map_err(Error::kernel("read the container's readiness"))?;
        let text = String::from_utf8_lossy(message.get(..length).unwrap_or_default());
        if !text.lines().any(|line| line == "READY=1") {
            return Ok(false);
        }
        let said = format!("READY=1\nMAINPID={}\n", self.init);
        socket::send_datagram_to(&self.manager, said.as_bytes())
            .map_err(Error::kernel(format!("tell {VARIABLE} {}", self.manager)))?;
        Ok(true)
    }

    /// Waits until the container is ready, or at its end.
    pub(crate) fn wait(&self, process: &OwnedFd) -> Result<()> {
        let read = Ready { readable: true, ..Ready::default() };
        loop {
            let watched = [(self.as_fd(), read), (process.as_fd(), read)];
            let ready = poll::wait(&watched, None)
                .map_err(Error::kernel("wait for the container's readiness"))?;
            if ready.first().is_some_and(|ready| ready.readable) {
                if self.pass_message()? {
                    return Ok(());
                }
            } else if ready.get(1).is_some_and(|ready| ready.readable) {
                return Ok(());
            }
        }
    }
}
