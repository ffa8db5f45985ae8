//! Interfaces whose cable ends in a process, linux/Documentation/networking/tuntap.rst.
//!
//! # What the kernel offers
//! An interface like any other, and a descriptor: each frame that is sent to the interface is read
//! there, each that is written there comes in at the interface. It lives as long as the descriptor
//! is open, unless it is made persistent, which is never done here.

use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::OFlag;

use crate::trace::{answer, observe};
use crate::{Error, Result, path};

/// The bytes in front of every frame: `struct virtio_net_hdr`, which says what of the frame the
/// other side has left to do (a checksum to be filled in, a large packet to be cut).
pub const HEADER_BYTES: usize = 10;

/// Makes an interface of that name, down, in the current network namespace, and gives its
/// descriptor, which does not wait.
///
/// Frames pass as they are within the kernel: large ones uncut, and without their checksums.
/// `EBUSY`: there is one of that name.
pub fn make(name: &str) -> Result<OwnedFd> {
    let kinds = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR | libc::IFF_TUN_EXCL;
    let offloads = libc::TUN_F_CSUM | libc::TUN_F_TSO4 | libc::TUN_F_TSO6 | libc::TUN_F_TSO_ECN;
    let tap = path::open(Path::new("/dev/net/tun"), OFlag::O_RDWR | OFlag::O_NONBLOCK)?;
    // SAFETY: all-zero bytes are a valid ifreq.
    #[expect(unsafe_code, reason = "ifreq has no safe constructor")]
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    // One byte stays zero, the end of the name.
    if name.len() >= request.ifr_name.len() {
        return Err(Error::new("ioctl", format!("TUNSETIFF, {name:?}"), Errno::ENAMETOOLONG));
    }
    for (place, byte) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *place = byte.cast_signed();
    }
    request.ifr_ifru.ifru_flags = kinds as libc::c_short;
    let number = tap.as_raw_fd();
    // SAFETY: the request outlives the call; its name is NUL-terminated and its flags filled in.
    #[expect(unsafe_code, reason = "the ioctls of tun are not wrapped by nix")]
    let value = unsafe { libc::ioctl(number, libc::TUNSETIFF, &raw mut request) };
    let shown = || format!("TUNSETIFF, {{{name:?}, IFF_TAP|IFF_NO_PI|IFF_VNET_HDR|IFF_TUN_EXCL}}");
    observe("ioctl", shown, answer(value.into()).map(drop))?;
    // SAFETY: TUNSETOFFLOAD takes a number.
    #[expect(unsafe_code, reason = "the ioctls of tun are not wrapped by nix")]
    let value = unsafe { libc::ioctl(number, libc::TUNSETOFFLOAD, libc::c_ulong::from(offloads)) };
    let shown = || "TUNSETOFFLOAD, CSUM|TSO4|TSO6|TSO_ECN".to_owned();
    observe("ioctl", shown, answer(value.into()).map(drop))?;
    Ok(tap)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_never_cut() {
        // Without the right to open the device there is no interface either.
        let error = make("sixteen-letters!").unwrap_err();
        assert!(error.errno == Errno::ENAMETOOLONG || error.call == "open", "{error}");
    }
}
