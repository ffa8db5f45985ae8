//! The two programs that lead packets through a relay, as the kernel runs them (BPF).
//!
//! Packets that come back carry a mark, so that they are not led away again. The mark is a number
//! that only this relay uses, and it is gone before anybody else sees the packet.

use linux::bpf::Instruction;

use crate::traffic::Direction;

/// Offset of `mark` in `struct __sk_buff` of linux/bpf.h.
const MARK: i16 = 8;
/// The kernel's function `bpf_redirect(interface, flags)`, and the flag that the packet shall come
/// in there instead of going out.
const BPF_REDIRECT: i32 = 23;
const BPF_F_INGRESS: i32 = 1;
/// To the next program or filter, as if this one were not there.
const TCX_NEXT: i32 = -1;

/// The registers: the answer, which is also that of a call; the packet, and a call's first
/// argument; a call's second.
const R0: u8 = 0;
const R1: u8 = 1;
const R2: u8 = 2;

/// Operations of linux/bpf_common.h and linux/bpf.h.
const LOAD_WORD: u8 = 0x61;
const STORE_WORD: u8 = 0x63;
const SET: u8 = 0xb7;
const JUMP_UNLESS_EQUAL: u8 = 0x55;
const CALL: u8 = 0x85;
const EXIT: u8 = 0x95;

/// For the container's interface: leads every packet out to the relay's interface, and lets those
/// pass that come from there.
pub(super) fn away(mark: Mark, relay: u32) -> Vec<Instruction> {
    let let_pass = [
        constant(SET, R2, 0),
        Instruction { code: STORE_WORD, registers: R1 | R2 << 4, offset: MARK, immediate: 0 },
        constant(SET, R0, TCX_NEXT),
        Instruction { code: EXIT, ..Instruction::default() },
    ];
    let over_it = 4;
    let mut program = vec![
        Instruction { code: LOAD_WORD, registers: R2 | R1 << 4, offset: MARK, immediate: 0 },
        Instruction { code: JUMP_UNLESS_EQUAL, registers: R2, offset: over_it, immediate: mark.0 },
    ];
    program.extend(let_pass);
    program.extend(redirect(relay, 0));
    program
}

/// For the relay's interface: marks every packet and puts it back where it was.
pub(super) fn back(mark: Mark, container: u32, direction: Direction) -> Vec<Instruction> {
    let flags = match direction {
        Direction::In => 0,
        Direction::Out => BPF_F_INGRESS,
    };
    let mut program = vec![
        constant(SET, R2, mark.0),
        Instruction { code: STORE_WORD, registers: R1 | R2 << 4, offset: MARK, immediate: 0 },
    ];
    program.extend(redirect(container, flags));
    program
}

/// Ends the program with the packet at another interface.
fn redirect(interface: u32, flags: i32) -> [Instruction; 4] {
    [
        constant(SET, R1, interface.cast_signed()),
        constant(SET, R2, flags),
        constant(CALL, 0, BPF_REDIRECT),
        Instruction { code: EXIT, ..Instruction::default() },
    ]
}

fn constant(code: u8, register: u8, immediate: i32) -> Instruction {
    Instruction { code, registers: register, offset: 0, immediate }
}

/// What a packet carries that comes from the relay. Positive, so that a constant of 32 bits is the
/// same in a register of 64; never zero, which is what packets carry otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Mark(i32);

impl Mark {
    /// A mark of these bits.
    pub(super) fn new(bits: u64) -> Self {
        Self((bits >> 33) as i32 | 1 << 16)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a program does with a packet: the mark that it leaves with, and where it goes. An
    /// interpreter of just the instructions above, which panics on others.
    fn run(program: &[Instruction], mut mark: i64) -> (i64, Option<(i64, i64)>) {
        let (mut registers, mut at) = ([0_i64; 3], 0);
        let mut went = None;
        loop {
            let one = program[at];
            let (to, from) = (usize::from(one.registers & 0xf), usize::from(one.registers >> 4));
            at += 1;
            match one.code {
                LOAD_WORD if one.offset == MARK && from == 1 => registers[to] = mark,
                STORE_WORD if one.offset == MARK && to == 1 => mark = registers[from],
                SET => registers[to] = one.immediate.into(),
                JUMP_UNLESS_EQUAL if registers[to] != i64::from(one.immediate) => {
                    at += usize::try_from(one.offset).unwrap();
                }
                JUMP_UNLESS_EQUAL => {}
                CALL => went = Some((registers[1], registers[2])),
                EXIT => return (mark, went),
                other => panic!("{other:#x}"),
            }
        }
    }

    #[test]
    fn what_comes_back_passes_and_all_else_is_led_away() {
        let mark = Mark::new(0xdead_beef_0bad_cafe);
        let there = away(mark, 7);
        assert_eq!(run(&there, 0), (0, Some((7, 0))));
        assert_eq!(run(&there, 5), (5, Some((7, 0))));
        for (direction, flags) in [(Direction::In, 0), (Direction::Out, 1)] {
            let (marked, went) = run(&back(mark, 9, direction), 0);
            assert_eq!(went, Some((9, flags)));
            assert_eq!(run(&there, marked), (0, None));
        }
    }

    #[test]
    fn a_mark_is_positive_and_not_zero() {
        for bits in [0, 1, u64::MAX, 1 << 63] {
            assert!(Mark::new(bits).0 > 0, "{bits:#x}");
        }
    }
}
