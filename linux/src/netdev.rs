//! The one thing that a container without a network still needs: its loopback interface, up.

use std::os::fd::AsRawFd;

use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

use crate::Result;
use crate::trace::{answer, observe};

/// Brings `lo` of the current network namespace up, netdevice(7).
pub fn bring_loopback_up() -> Result<()> {
    let result = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None);
    let control = observe("socket", || "AF_INET, SOCK_DGRAM".into(), result)?;
    // SAFETY: all-zero bytes are a valid ifreq.
    #[expect(unsafe_code, reason = "ifreq has no safe constructor")]
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (place, byte) in request.ifr_name.iter_mut().zip(b"lo") {
        *place = byte.cast_signed();
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
    // SAFETY: the request outlives the call and has a NUL-terminated name and its flags filled in.
    #[expect(unsafe_code, reason = "netdevice(7) ioctls are not wrapped by nix")]
    let value = unsafe { libc::ioctl(control.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request) };
    observe("ioctl", || "SIOCSIFFLAGS, {lo, IFF_UP}".into(), answer(value.into()).map(drop))
}
