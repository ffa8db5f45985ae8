//! Ranges, as a program for the kernel's filter machine.
//!
//! The machine (classic BPF) has one register, loads from the 64 bytes of `seccomp_data`, jumps
//! forwards only, and at most 255 instructions far when it jumps on a condition. So the program is
//! written from its end to its start: whatever an instruction jumps to is already there, and its
//! distance is known. A target out of reach gets a copy nearby (of a `return`) or a long jump.

use linux::seccomp::SockFilter;

use super::condition::{Condition, Test};
use super::policy::{Policy, Rule};
use super::ranges::{self, Fate, Range};
use super::{Action, Architecture};

/// Codes of instructions, linux/bpf_common.h.
pub(super) mod code {
    /// Loads the 32-bit word at the operand.
    pub(crate) const LOAD: u16 = 0x20;
    /// Masks the register with the operand.
    pub(crate) const AND: u16 = 0x54;
    /// Jumps forwards over as many instructions as the operand says.
    pub(crate) const JUMP: u16 = 0x05;
    /// Jumps when the register equals the operand.
    pub(crate) const IF_EQUAL: u16 = 0x15;
    /// Jumps when the register is above the operand.
    pub(crate) const IF_GREATER: u16 = 0x25;
    /// Jumps when the register is not below the operand.
    pub(crate) const IF_GREATER_OR_EQUAL: u16 = 0x35;
    /// Ends the program with the operand as its result.
    pub(crate) const RETURN: u16 = 0x06;
}

/// Offsets in `struct seccomp_data`, linux/seccomp.h.
pub(super) mod offset {
    /// The system call's number.
    pub(crate) const NUMBER: u32 = 0;
    /// The audit number of the architecture.
    pub(crate) const ARCHITECTURE: u32 = 4;
    /// The six arguments, 64 bits each.
    pub(crate) const ARGUMENTS: u32 = 16;
}

/// A place in the program: how many instructions it is from the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Label(usize);

/// A program that grows at its front.
#[derive(Debug)]
struct Assembler<'p> {
    /// The last instruction first.
    reversed: Vec<SockFilter>,
    default: Action,
    /// Fates that have code already, with the nearest copy of it.
    fates: Vec<(Fate<'p>, Label)>,
}

/// The program that carries out `policy`.
pub(super) fn of(policy: &Policy, native: Architecture) -> Vec<SockFilter> {
    let mut assembler =
        Assembler { reversed: Vec::with_capacity(512), default: policy.default, fates: Vec::new() };
    let mut entry = assembler.fate(Fate::Sealed(ranges::FOREIGN));
    let mut audits = ranges::audits(policy, native);
    audits.reverse();
    let mut entries = Vec::with_capacity(audits.len());
    for audit in audits {
        let tree = assembler.tree(&ranges::of(policy, audit));
        assembler.place_before(tree);
        entries.push((audit, assembler.push(code::LOAD, offset::NUMBER)));
    }
    for (audit, section) in entries {
        entry = assembler.branch(code::IF_EQUAL, audit, section, entry);
    }
    assembler.place_before(entry);
    assembler.push(code::LOAD, offset::ARCHITECTURE);
    assembler.reversed.reverse();
    assembler.reversed
}

impl<'p> Assembler<'p> {
    fn here(&self) -> Label {
        Label(self.reversed.len())
    }

    /// How many instructions lie between the front and `target`.
    fn distance(&self, target: Label) -> usize {
        self.reversed.len() - target.0
    }

    fn push(&mut self, code: u16, operand: u32) -> Label {
        self.reversed.push(SockFilter { code, jt: 0, jf: 0, k: operand });
        self.here()
    }

    /// Makes the program's front continue at `target`.
    fn place_before(&mut self, target: Label) {
        let distance = self.distance(target);
        if let Ok(distance @ 1..) = u32::try_from(distance) {
            self.push(code::JUMP, distance);
        }
    }

    /// Adds a conditional jump; both targets may be anywhere behind.
    fn branch(&mut self, code: u16, operand: u32, yes: Label, no: Label) -> Label {
        if yes == no {
            return yes;
        }
        let no = self.within_reach(no);
        let yes = self.within_reach(yes);
        let (Ok(jt), Ok(jf)) = (u8::try_from(self.distance(yes)), u8::try_from(self.distance(no)))
        else {
            unreachable!("both targets were brought within reach");
        };
        self.reversed.push(SockFilter { code, jt, jf, k: operand });
        self.here()
    }

    /// The target itself, or a long jump to it. That moves the front on by one, which is why a
    /// target counts as near only while one more instruction has room.
    fn within_reach(&mut self, target: Label) -> Label {
        if self.is_near(target) {
            return target;
        }
        self.place_before(target);
        self.here()
    }

    fn is_near(&self, target: Label) -> bool {
        self.distance(target) < usize::from(u8::MAX)
    }

    /// A binary search for the range that holds the number in the register.
    fn tree(&mut self, ranges: &[Range<'p>]) -> Label {
        match ranges {
            [] => unreachable!("the last range is always there"),
            [only] => self.fate(only.fate),
            _ => {
                let (low, high) = ranges.split_at(ranges.len() / 2);
                let start = high[0].start;
                let above = self.tree(high);
                let below = self.tree(low);
                self.branch(code::IF_GREATER_OR_EQUAL, start, above, below)
            }
        }
    }

    /// Code for a fate, from which nothing comes back. One copy is shared as far as jumps reach.
    fn fate(&mut self, fate: Fate<'p>) -> Label {
        let known = self.fates.iter().position(|(known, _)| *known == fate);
        if let Some(index) = known {
            let label = self.fates[index].1;
            if self.is_near(label) {
                return label;
            }
        }
        let label = match fate {
            Fate::Sealed(action) => self.push(code::RETURN, action.raw()),
            Fate::Depends(rules) => self.rules(rules),
        };
        match known {
            Some(index) => self.fates[index].1 = label,
            None => self.fates.push((fate, label)),
        }
        label
    }

    /// The rules of one call, each of which falls through to the next, and the last to the default.
    fn rules(&mut self, rules: &'p [Rule]) -> Label {
        let mut next = self.fate(Fate::Sealed(self.default));
        for rule in rules.iter().rev() {
            let mut held = self.fate(Fate::Sealed(rule.action));
            for condition in rule.conditions.iter().rev() {
                held = self.condition(*condition, held, next);
            }
            next = held;
        }
        next
    }
    /// Continues at `held` when the condition holds, else at `failed`.
    fn condition(&mut self, condition: Condition, held: Label, failed: Label) -> Label {
        let Condition { argument, test, value, mask, .. } = condition;
        let (yes, no) = match test {
            Test::Equal | Test::MaskedEqual | Test::Greater | Test::GreaterOrEqual => {
                (held, failed)
            }
            Test::NotEqual | Test::LessOrEqual | Test::Less => (failed, held),
        };
        let (high, low) = (Half::high(argument, value, mask), Half::low(argument, value, mask));
        match test {
            Test::Equal | Test::MaskedEqual | Test::NotEqual => {
                let low = self.compare(code::IF_EQUAL, low, yes, no);
                self.compare(code::IF_EQUAL, high, low, no)
            }
            Test::Greater | Test::LessOrEqual => {
                let low = self.compare(code::IF_GREATER, low, yes, no);
                self.decide_high(high, yes, low, no)
            }
            Test::GreaterOrEqual | Test::Less => {
                let low = self.compare(code::IF_GREATER_OR_EQUAL, low, yes, no);
                self.decide_high(high, yes, low, no)
            }
        }
    }

    /// Compares one half of an argument; with an empty mask there is nothing to compare.
    fn compare(&mut self, code: u16, half: Half, yes: Label, no: Label) -> Label {
        if half.mask == 0 {
            return yes;
        }
        let branch = self.branch(code, half.value, yes, no);
        self.place_before(branch);
        self.load(half)
    }

    /// Compares upper halves: above is a yes, below is a no, and the same leaves it to `low`.
    fn decide_high(&mut self, half: Half, yes: Label, low: Label, no: Label) -> Label {
        if half.mask == 0 {
            return low;
        }
        let same = self.branch(code::IF_EQUAL, half.value, low, no);
        let above = self.branch(code::IF_GREATER, half.value, yes, same);
        self.place_before(above);
        self.load(half)
    }

    fn load(&mut self, half: Half) -> Label {
        if half.mask != u32::MAX {
            self.push(code::AND, half.mask);
        }
        self.push(code::LOAD, half.offset)
    }
}

/// What the machine can see of an argument at once.
#[derive(Debug, Clone, Copy)]
struct Half {
    offset: u32,
    value: u32,
    mask: u32,
}

impl Half {
    fn low(argument: u8, value: u64, mask: u64) -> Self {
        let offset = offset::ARGUMENTS + 8 * u32::from(argument) + if BIG_ENDIAN { 4 } else { 0 };
        let low = |number: u64| (number & u64::from(u32::MAX)) as u32;
        Self { offset, value: low(value), mask: low(mask) }
    }

    fn high(argument: u8, value: u64, mask: u64) -> Self {
        let offset = offset::ARGUMENTS + 8 * u32::from(argument) + if BIG_ENDIAN { 0 } else { 4 };
        let high = |number: u64| (number >> 32) as u32;
        Self { offset, value: high(value), mask: high(mask) }
    }
}

const BIG_ENDIAN: bool = cfg!(target_endian = "big");
