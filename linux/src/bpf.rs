//! Programs that the kernel runs for us, bpf(2): those that decide about devices, and those that
//! see the packets of an interface.

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use nix::errno::Errno;

use crate::Result;
use crate::trace::{answer, observe};

const BPF_PROG_LOAD: libc::c_int = 5;
const BPF_PROG_ATTACH: libc::c_int = 8;
const BPF_LINK_CREATE: libc::c_int = 28;
const BPF_CGROUP_DEVICE: u32 = 6;
const BPF_F_ALLOW_MULTI: u32 = 2;

/// How much of the verifier's explanation is kept when it refuses a program.
const LOG_BYTES: usize = 16 * 1024;

/// One instruction, as linux/bpf.h lays it out.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Instruction {
    /// Class, operation and source of the operand.
    pub code: u8,
    /// Destination register in the low four bits, source register in the high four.
    pub registers: u8,
    /// Distance of a jump in instructions, or offset of a load in bytes.
    pub offset: i16,
    /// The constant operand.
    pub immediate: i32,
}

impl Instruction {
    /// The instruction as it lies in memory.
    pub fn bytes(self) -> [u8; 8] {
        let ([c, d], [e, f, g, h]) = (self.offset.to_ne_bytes(), self.immediate.to_ne_bytes());
        [self.code, self.registers, c, d, e, f, g, h]
    }
}

/// What a program is for: its number, its name in linux/bpf.h, and the name under which the kernel
/// lists it.
#[derive(Debug, Clone, Copy)]
struct Purpose {
    number: u32,
    shown: &'static str,
    name: &'static [u8],
}

const DEVICES: Purpose = Purpose { number: 15, shown: "CGROUP_DEVICE", name: b"minirun_devices" };
const PACKETS: Purpose = Purpose { number: 3, shown: "SCHED_CLS", name: b"minirun_packets" };

/// `union bpf_attr`, larger than any kernel's and zeroed.
///
/// Kernels 6.17 to 7.1 write past a `bpf_attr` that is shorter than theirs, so it is never passed
/// cut to the fields in use; a longer one is fine as long as its end is zero.
#[repr(C, align(8))]
#[derive(Debug)]
struct Attributes([u8; 256]);

impl Attributes {
    fn new() -> Self {
        Self([0; 256])
    }

    fn put(&mut self, offset: usize, bytes: &[u8]) -> &mut Self {
        self.0[offset..offset + bytes.len()].copy_from_slice(bytes);
        self
    }

    fn number(&mut self, offset: usize, value: u32) -> &mut Self {
        self.put(offset, &value.to_ne_bytes())
    }

    fn pointer<T>(&mut self, offset: usize, value: *const T) -> &mut Self {
        self.put(offset, &(value as u64).to_ne_bytes())
    }

    fn call(&mut self, command: libc::c_int) -> nix::Result<i32> {
        // SAFETY: the attributes are 256 live, writable bytes, and that size is passed. What they
        // point to is borrowed by the callers below for longer than the call.
        #[expect(unsafe_code, reason = "no crate wraps bpf(2)")]
        let value = unsafe {
            libc::syscall(libc::SYS_bpf, command, (&raw mut self.0).cast::<u8>(), self.0.len())
        };
        answer(value)
    }
}

/// Loads a program of the type that decides about device access, bpf(2) with `BPF_PROG_LOAD`.
///
/// `EPERM` without `CAP_BPF` and `CAP_NET_ADMIN` (or `CAP_SYS_ADMIN`) in the first user namespace.
/// When the verifier refuses the program, the error holds what it says.
pub fn load_device_program(program: &[Instruction]) -> Result<OwnedFd> {
    load(DEVICES, program)
}

/// Loads a program of the type that sees packets at an interface, bpf(2) with `BPF_PROG_LOAD`.
/// Errors as with [`load_device_program`].
pub fn load_packet_program(program: &[Instruction]) -> Result<OwnedFd> {
    load(PACKETS, program)
}

fn load(purpose: Purpose, program: &[Instruction]) -> Result<OwnedFd> {
    let mut result = try_load(purpose, program, &mut []);
    let mut log = Vec::new();
    if matches!(result, Err(Errno::EINVAL | Errno::EACCES)) {
        log = vec![0; LOG_BYTES];
        result = try_load(purpose, program, &mut log);
    }
    let shown = || format!("BPF_PROG_LOAD, {}, {} instructions", purpose.shown, program.len());
    observe("bpf", shown, result.map(adopt)).map_err(|error| error.with_kernel_log(verdict(&log)))
}

fn try_load(purpose: Purpose, program: &[Instruction], log: &mut [u8]) -> nix::Result<i32> {
    let length = u32::try_from(program.len()).map_err(|_| Errno::E2BIG)?;
    let mut attributes = Attributes::new();
    attributes
        .number(0, purpose.number)
        .number(4, length)
        .pointer(8, program.as_ptr())
        .pointer(16, c"Apache-2.0".as_ptr())
        .put(48, purpose.name);
    if !log.is_empty() {
        let size = u32::try_from(log.len()).map_err(|_| Errno::E2BIG)?;
        attributes.number(24, 1).number(28, size).pointer(32, log.as_mut_ptr());
    }
    attributes.call(BPF_PROG_LOAD)
}

fn adopt(number: i32) -> OwnedFd {
    // SAFETY: the call has just returned a new descriptor that nobody else knows.
    #[expect(unsafe_code, reason = "taking ownership of a new descriptor")]
    unsafe {
        OwnedFd::from_raw_fd(number)
    }
}

fn verdict(log: &[u8]) -> Option<String> {
    let text = log.split(|byte| *byte == 0).next()?;
    let text = String::from_utf8_lossy(text);
    (!text.trim().is_empty()).then(|| text.trim().to_owned())
}

/// Makes `program` decide about the devices of the cgroup v2 directory `group`, next to the
/// programs of the groups above it, bpf(2) with `BPF_PROG_ATTACH`.
///
/// The kernel lets go of the program when the cgroup is removed.
pub fn attach_device_program(group: BorrowedFd<'_>, program: BorrowedFd<'_>) -> Result<()> {
    let (target, source) = (group.as_raw_fd(), program.as_raw_fd());
    let result = Attributes::new()
        .number(0, target.cast_unsigned())
        .number(4, source.cast_unsigned())
        .number(8, BPF_CGROUP_DEVICE)
        .number(12, BPF_F_ALLOW_MULTI)
        .call(BPF_PROG_ATTACH)
        .map(drop);
    let shown = || format!("BPF_PROG_ATTACH, cgroup={target}, program={source}, ALLOW_MULTI");
    observe("bpf", shown, result)
}

/// Where at an interface a program sees packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hook {
    /// Those that have come in, before anything else of the kernel sees them.
    Ingress,
    /// Those that go out, in front of the interface's queue.
    Egress,
}

/// Puts `program` at the end of those at a hook of an interface of the current network namespace
/// (tcx), bpf(2) with `BPF_LINK_CREATE`.
///
/// It stays there as long as the answer is open somewhere: when the last process that has it dies,
/// the kernel takes the program away. `EINVAL` before Linux 6.6 and without `CONFIG_NET_XGRESS`.
pub fn attach_packet_program(
    interface: u32,
    hook: Hook,
    program: BorrowedFd<'_>,
) -> Result<OwnedFd> {
    let (number, name) = match hook {
        Hook::Ingress => (46, "TCX_INGRESS"),
        Hook::Egress => (47, "TCX_EGRESS"),
    };
    let program = program.as_raw_fd();
    let result = Attributes::new()
        .number(0, program.cast_unsigned())
        .number(4, interface)
        .number(8, number)
        .call(BPF_LINK_CREATE)
        .map(adopt);
    let shown = || format!("BPF_LINK_CREATE, program={program}, interface={interface}, {name}");
    observe("bpf", shown, result)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instruction_is_eight_bytes_in_the_order_of_the_header() {
        let instruction = Instruction { code: 0xb7, registers: 0x21, offset: 1, immediate: 2 };
        assert_eq!(size_of::<Instruction>(), 8);
        assert_eq!(instruction.bytes()[..2], [0xb7, 0x21]);
        assert_eq!(i16::from_ne_bytes([instruction.bytes()[2], instruction.bytes()[3]]), 1);
    }

    #[test]
    fn the_verifier_is_quoted_when_it_refuses() {
        // An `exit` without a result is refused by every kernel; without the right to load
        // programs at all there is nothing to quote.
        let error = load_device_program(&[Instruction { code: 0x95, ..Instruction::default() }]);
        let error = error.unwrap_err();
        assert!(
            error.errno == Errno::EPERM || error.kernel_says.is_some_and(|log| log.contains("R0"))
        );
    }
}
