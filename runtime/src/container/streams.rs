//! Standard streams of a container that has no terminal.

use std::os::fd::AsFd;

use linux::device::{self, Kind, Number};
use linux::{credentials, fd};

/// Gives the standard streams to the container's user, so that it can open `/dev/stdout` again.
///
/// `/dev/null` stays whose it is: it is everybody's (and only if it really is that device). A
/// stream that cannot be given away (a pipe of somebody else, a read-only file system) stays usable
/// by its number, so that is no error.
pub(crate) fn give_to(user: u32) {
    let null = Some((Kind::Character, Number { major: 1, minor: 3 }));
    let (input, output, errors) = (std::io::stdin(), std::io::stdout(), std::io::stderr());
    for stream in [input.as_fd(), output.as_fd(), errors.as_fd()] {
        let Ok(stat) = fd::stat(stream) else { continue };
        if stat.st_uid == user || device::identify(stream).ok().flatten() == null {
            continue;
        }
        drop(credentials::change_owner(stream, user, stat.st_gid));
    }
}
