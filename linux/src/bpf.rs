//! Programs that the kernel runs for us, bpf(2): here, the one that decides about devices.

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use nix::errno::Errno;

use crate::Result;
use crate::trace::{answer, observe};

const BPF_PROG_LOAD: libc::c_int = 5;
const BPF_PROG_ATTACH: libc::c_int = 8;
const BPF_PROG_TYPE_CGROUP_DEVICE: u32 = 15;
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
        // point to is borrowed by the two callers below for longer than the call.
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
    let mut result = load(program, &mut []);
    let mut log = Vec::new();
    if matches!(result, Err(Errno::EINVAL | Errno::EACCES)) {
        log = vec![0; LOG_BYTES];
        result = load(program, &mut log);
    }
    let result = result.map(|number| {
        // SAFETY: the call has just returned a new descriptor that nobody else knows.
        #[expect(unsafe_code, reason = "taking ownership of a new descriptor")]
        let fd = unsafe { OwnedFd::from_raw_fd(number) };
        fd
    });
    let shown = || format!("BPF_PROG_LOAD, CGROUP_DEVICE, {} instructions", program.len());
    observe("bpf", shown, result).map_err(|error| error.with_kernel_log(verdict(&log)))
}

fn load(program: &[Instruction], log: &mut [u8]) -> nix::Result<i32> {
    let length = u32::try_from(program.len()).map_err(|_| Errno::E2BIG)?;
    let mut attributes = Attributes::new();
    attributes
        .number(0, BPF_PROG_TYPE_CGROUP_DEVICE)
        .number(4, length)
        .pointer(8, program.as_ptr())
        .pointer(16, c"Apache-2.0".as_ptr())
        .put(48, b"minirun_devices");
    if !log.is_empty() {
        let size = u32::try_from(log.len()).map_err(|_| Errno::E2BIG)?;
        attributes.number(24, 1).number(28, size).pointer(32, log.as_mut_ptr());
    }
    attributes.call(BPF_PROG_LOAD)
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
