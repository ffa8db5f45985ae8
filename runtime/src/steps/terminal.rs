//! # What the kernel offers
//! A pseudo-terminal is a pair: what is written to the master appears as typed at the slave. A
//! devpts mount hands out pairs, each mount its own. A session has one controlling terminal, which
//! turns Ctrl-C into a signal.
//!
//! # What we do
//! Open a pair of the container's own devpts, the slave through its master and never by name; make
//! the slave the controlling terminal, standard input and output, and `/dev/console`; hand the
//! master to whoever asked for the container.
//!
//! # What goes wrong without it
//! A container on *our* terminal can type into it (`TIOCSTI`) after it has ended. A slave opened by
//! its path inside the image may be any file (CVE-2025-52565).
//!
//! # By hand
//! ```sh
//! script -qec 'tty' /dev/null | grep /dev/pts/
//! setsid sh -c 'tty -s < /dev/tty' 2>/dev/null || echo 'no controlling terminal' | grep no
//! ```
//! See pty(7), devpts in the kernel's documentation, tty_ioctl(4).

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use linux::path::Root;
use linux::terminal::{self, Size};
use linux::{Errno, OFlag, credentials, fd, mount, path};

use crate::error::Cause;

/// Opens a terminal for the container and gives its master.
pub(crate) fn open(root: &Root, size: Option<Size>, user: u32) -> Result<OwnedFd, Cause> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY;
    let instances = root.in_root(Path::new("/dev/pts"), flags).map_err(|error| {
        Cause::from(error).remedy("a terminal needs a devpts mount at /dev/pts in mounts")
    })?;
    let (master, slave) = terminal::open_pair(&instances)?;
    if let Some(size) = size {
        terminal::set_size(&master, size)?;
    }
    if user != 0 {
        credentials::change_owner(&slave, user, credentials::effective_group())?;
    }
    show_as_console(root, &slave)?;
    use_as_standard_streams(&slave)?;
    Ok(master)
}

/// Opens a terminal in the root that this process is already in: for `exec`.
pub(crate) fn open_here(size: Option<Size>, user: u32) -> Result<OwnedFd, Cause> {
    let root = Root::open(Path::new("/"))?;
    let instances = root.in_root(Path::new("/dev/pts"), OFlag::O_RDONLY | OFlag::O_DIRECTORY)?;
    let (master, slave) = terminal::open_pair(&instances)?;
    if let Some(size) = size {
        terminal::set_size(&master, size)?;
    }
    if user != 0 {
        credentials::change_owner(&slave, user, credentials::effective_group())?;
    }
    use_as_standard_streams(&slave)?;
    Ok(master)
}

fn use_as_standard_streams(slave: &OwnedFd) -> linux::Result<()> {
    terminal::make_controlling(slave)?;
    (0..=2).try_for_each(|stream| fd::place_at(slave.as_fd(), stream))
}

fn show_as_console(root: &Root, slave: &OwnedFd) -> Result<(), Cause> {
    let dev = root.in_root_without_links(Path::new("/dev"), OFlag::O_PATH | OFlag::O_DIRECTORY)?;
    let name = Path::new("console");
    match path::create_at(dev.as_fd(), name, 0o600) {
        Err(error) if error.errno != Errno::EEXIST => return Err(error.into()),
        _ => {}
    }
    let console = path::open_at(dev.as_fd(), name, OFlag::O_PATH | OFlag::O_NOFOLLOW)?;
    let tree = mount::clone_tree_at(slave.as_fd(), false)?;
    Ok(mount::attach(tree.as_fd(), console.as_fd())?)
}
