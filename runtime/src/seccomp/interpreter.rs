//! The kernel's filter machine, as much of it as filters for system calls may use.
//!
//! With it a program can be asked about a call that nobody makes. The tests compare programs by it:
//! ours with libseccomp's, and ours with what the profile says.

use std::fmt;

use linux::seccomp::SockFilter;

use super::program::{code, offset};
use super::{Action, Architecture};

/// What a filter sees of a call (`struct seccomp_data`), without the instruction pointer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Call {
    /// The call's number, for x32 with its bit.
    pub number: u32,
    /// The audit number of the architecture.
    pub audit: u32,
    /// The arguments.
    pub arguments: [u64; 6],
}

impl Call {
    /// A call by number on one of our architectures.
    pub fn new(architecture: Architecture, number: u32, arguments: [u64; 6]) -> Self {
        Self { number, audit: architecture.audit(), arguments }
    }
}

/// Why a program is not one that the kernel would run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It runs past its end.
    Overrun,
    /// It has an instruction that filters cannot use.
    Instruction(u16),
    /// It reads where there is nothing.
    Offset(u32),
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Overrun => f.write_str("the program runs past its end"),
            Self::Instruction(code) => write!(f, "no filter can use the instruction {code:#x}"),
            Self::Offset(offset) => write!(f, "there is no argument at offset {offset}"),
        }
    }
}

impl std::error::Error for Fault {}

/// What `program` answers for `call`.
pub fn run(program: &[SockFilter], call: &Call) -> Result<Action, Fault> {
    let mut register = 0;
    let mut next = 0;
    loop {
        let SockFilter { code, jt, jf, k } = *program.get(next).ok_or(Fault::Overrun)?;
        next += 1;
        let mut jump_if = |holds: bool| next += usize::from(if holds { jt } else { jf });
        match code {
            code::LOAD => register = load(call, k)?,
            code::AND => register &= k,
            code::IF_EQUAL => jump_if(register == k),
            code::IF_GREATER => jump_if(register > k),
            code::IF_GREATER_OR_EQUAL => jump_if(register >= k),
            code::JUMP => next = next.saturating_add(k as usize),
            code::RETURN => return Ok(Action::from_raw(k)),
            other => return Err(Fault::Instruction(other)),
        }
    }
}

fn load(call: &Call, at: u32) -> Result<u32, Fault> {
    match at {
        offset::NUMBER => Ok(call.number),
        offset::ARCHITECTURE => Ok(call.audit),
        offset::ARGUMENTS..64 if at.is_multiple_of(4) => {
            let index = (at - offset::ARGUMENTS) as usize;
            let bytes = call.arguments[index / 8].to_ne_bytes();
            let [a, b, c, d, ..] = if index.is_multiple_of(8) { bytes } else { second(bytes) };
            Ok(u32::from_ne_bytes([a, b, c, d]))
        }
        _ => Err(Fault::Offset(at)),
    }
}

/// The second word, moved to the front.
fn second([_, _, _, _, a, b, c, d]: [u8; 8]) -> [u8; 8] {
    [a, b, c, d, 0, 0, 0, 0]
}

#[cfg(test)]
mod tests {
    use super::*;

    const CALL: Call =
        Call { number: 7, audit: 9, arguments: [0x1122_3344_5566_7788, 0, 0, 0, 0, 5] };

    fn answer(program: &[(u16, u8, u8, u32)]) -> Result<u32, Fault> {
        let program: Vec<_> =
            program.iter().map(|&(code, jt, jf, k)| SockFilter { code, jt, jf, k }).collect();
        run(&program, &CALL).map(Action::raw)
    }

    #[test]
    fn jumps_and_masks_do_what_the_kernel_does() {
        let skip = [
            (code::LOAD, 0, 0, offset::ARGUMENTS + 5 * 8),
            (code::AND, 0, 0, 4),
            (code::IF_EQUAL, 1, 0, 4),
            (code::RETURN, 0, 0, 1),
            (code::JUMP, 0, 0, 1),
            (code::RETURN, 0, 0, 2),
            (code::RETURN, 0, 0, 3),
        ];
        assert_eq!(answer(&skip), Ok(3));
    }

    #[test]
    fn both_halves_of_an_argument_can_be_read() {
        let half = |at| {
            let compare = (code::IF_EQUAL, 0, 1, 0x1122_3344);
            answer(&[(code::LOAD, 0, 0, at), compare, (code::RETURN, 0, 0, 1), (6, 0, 0, 0)])
        };
        let high = offset::ARGUMENTS + if cfg!(target_endian = "big") { 0 } else { 4 };
        let low = offset::ARGUMENTS + if cfg!(target_endian = "big") { 4 } else { 0 };
        assert_eq!((half(high), half(low)), (Ok(1), Ok(0)));
    }

    #[test]
    fn bad_programs_are_faults() {
        assert_eq!(answer(&[]), Err(Fault::Overrun));
        assert_eq!(answer(&[(code::JUMP, 0, 0, u32::MAX)]), Err(Fault::Overrun));
        assert_eq!(answer(&[(0x30, 0, 0, 0)]), Err(Fault::Instruction(0x30)));
        assert_eq!(answer(&[(code::LOAD, 0, 0, 64)]), Err(Fault::Offset(64)));
        assert_eq!(answer(&[(code::LOAD, 0, 0, 8)]), Err(Fault::Offset(8)));
    }
}
