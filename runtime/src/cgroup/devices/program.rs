//! The rules as a program that the kernel runs at each open and mknod of a device.
//!
//! The kernel hands over the kind of device, its numbers, and the access as bits; several at once
//! when a file is opened for reading and writing. The program keeps the bits that nobody has
//! decided about yet, and goes through the rules from the last to the first: a rule that matches and allows
//! takes its bits away, one that denies ends it with "no" if it has one of them. No bits left is
//! "yes"; no rules left is "no".

use linux::bpf::Instruction;

use super::rules::{Access, Devices, Kind, Rule};

/// Offsets in `struct bpf_cgroup_dev_ctx` of linux/bpf.h.
const ACCESS_AND_KIND: i16 = 0;
const MAJOR: i16 = 4;
const MINOR: i16 = 8;

/// `BPF_DEVCG_DEV_BLOCK` and `BPF_DEVCG_DEV_CHAR`.
const BLOCK: i32 = 1;
const CHARACTER: i32 = 2;

/// The registers: the verdict, what the kernel passes, and what we read out of that.
const R0_VERDICT: u8 = 0;
const R1_CONTEXT: u8 = 1;
const R2_KIND: u8 = 2;
const R3_UNDECIDED: u8 = 3;
const R4_MAJOR: u8 = 4;
const R5_MINOR: u8 = 5;

/// Operations with a constant operand, of linux/bpf_common.h and linux/bpf.h.
const LOAD_WORD: u8 = 0x61;
const COPY: u8 = 0xbf;
const SET: u8 = 0xb7;
const AND: u8 = 0x57;
const SHIFT_RIGHT: u8 = 0x77;
const JUMP_UNLESS_EQUAL: u8 = 0x55;
const JUMP_IF_BITS: u8 = 0x45;
const JUMP: u8 = 0x05;
const EXIT: u8 = 0x95;

/// Assembles the program; `None` when it would allow everything, which needs none.
pub(super) fn assemble(rules: &[Rule]) -> Option<Vec<Instruction>> {
    let rules = effective(rules);
    if rules.iter().all(|rule| rule.allow) && rules.last().is_some_and(|last| decides_all(last)) {
        return None;
    }
    let mut program = vec![
        load(R2_KIND, ACCESS_AND_KIND),
        Instruction {
            code: COPY,
            registers: R3_UNDECIDED | R2_KIND << 4,
            ..Instruction::default()
        },
        constant(AND, R2_KIND, 0xffff),
        constant(SHIFT_RIGHT, R3_UNDECIDED, 16),
        load(R4_MAJOR, MAJOR),
        load(R5_MINOR, MINOR),
    ];
    program.extend(rules.iter().flat_map(|rule| step(rule)));
    // The kernel refuses a program with an end that nothing leads to.
    if !rules.last().is_some_and(|last| decides_all(last)) {
        program.extend(end(false));
    }
    Some(program)
}

/// The rules in the order of their power, up to the one behind which nothing matters.
fn effective(rules: &[Rule]) -> Vec<&Rule> {
    let mut all: Vec<&Rule> = rules.iter().rev().collect();
    if let Some(last) = all.iter().position(|rule| decides_all(rule)) {
        all.truncate(last + 1);
    }
    all
}

fn decides_all(rule: &Rule) -> bool {
    rule.devices == Devices::ALL && rule.access == Access::ALL
}

/// One rule: the tests that lead past it, and what it decides.
fn step(rule: &Rule) -> Vec<Instruction> {
    let Devices { kind, major, minor } = rule.devices;
    let kind = kind.map(|kind| if kind == Kind::Block { BLOCK } else { CHARACTER });
    let tests = [(R2_KIND, kind), (R4_MAJOR, major), (R5_MINOR, minor)];
    let tests: Vec<(u8, i32)> =
        tests.into_iter().filter_map(|(register, value)| Some((register, value?))).collect();
    let decision = decide(rule);
    let mut all = Vec::with_capacity(tests.len() + decision.len());
    for (index, (register, value)) in tests.iter().enumerate() {
        // Over the tests that are left, and the decision: at most eight instructions.
        let distance = tests.len() - index - 1 + decision.len();
        all.push(jump(JUMP_UNLESS_EQUAL, *register, *value, distance));
    }
    all.extend(decision);
    all
}

fn decide(rule: &Rule) -> Vec<Instruction> {
    let bits = i32::from(rule.access.0);
    if rule.access == Access::ALL {
        return end(rule.allow).to_vec();
    }
    let mut all = Vec::new();
    if rule.allow {
        let rest = Access::ALL.without(rule.access);
        all.push(constant(AND, R3_UNDECIDED, i32::from(rest.0)));
        all.push(jump(JUMP_UNLESS_EQUAL, R3_UNDECIDED, 0, 2));
        all.extend(end(true));
    } else {
        // BPF jumps if bits are set, and has no jump for the opposite: it takes two.
        all.push(jump(JUMP_IF_BITS, R3_UNDECIDED, bits, 1));
        all.push(jump(JUMP, 0, 0, 2));
        all.extend(end(false));
    }
    all
}

/// Ends the program with yes or no.
fn end(allow: bool) -> [Instruction; 2] {
    [
        constant(SET, R0_VERDICT, i32::from(allow)),
        Instruction { code: EXIT, ..Instruction::default() },
    ]
}

fn load(register: u8, offset: i16) -> Instruction {
    Instruction { code: LOAD_WORD, registers: register | R1_CONTEXT << 4, offset, immediate: 0 }
}

fn constant(code: u8, register: u8, immediate: i32) -> Instruction {
    Instruction { code, registers: register, offset: 0, immediate }
}

/// A jump forward over `distance` instructions.
fn jump(code: u8, register: u8, immediate: i32, distance: usize) -> Instruction {
    let offset = i16::try_from(distance).unwrap_or(i16::MAX);
    Instruction { code, registers: register, offset, immediate }
}

#[cfg(test)]
mod tests {
    use super::super::rules::testing::{allowed, rules};
    use super::*;

    /// Runs the program as the kernel would, in an independent interpreter.
    fn run(program: &[Instruction], kind: Kind, (major, minor): (i32, i32), access: u8) -> bool {
        let bytes: Vec<u8> = program.iter().flat_map(|i| i.bytes()).collect();
        let kind = if kind == Kind::Block { BLOCK } else { CHARACTER };
        let words = [i32::from(access) << 16 | kind, major, minor];
        let mut context: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
        assert!(all_reached(program), "the kernel refuses unreachable instructions");
        let machine = rbpf::EbpfVmRaw::new(Some(&bytes)).unwrap();
        machine.execute_program(&mut context).unwrap() == 1
    }

    /// Follows every branch from the start, as the kernel's verifier does first.
    fn all_reached(program: &[Instruction]) -> bool {
        let (mut reached, mut todo) = (vec![false; program.len()], vec![0]);
        while let Some(index) = todo.pop() {
            if std::mem::replace(&mut reached[index], true) {
                continue;
            }
            let target = index + 1 + usize::try_from(program[index].offset).unwrap();
            match program[index].code {
                EXIT => {}
                JUMP => todo.push(target),
                JUMP_UNLESS_EQUAL | JUMP_IF_BITS => todo.extend([index + 1, target]),
                _ => todo.push(index + 1),
            }
        }
        reached.into_iter().all(|reached| reached)
    }

    /// Every kind, a few numbers on both sides of those in the rules, every access.
    fn agrees_everywhere(all: &[Rule]) {
        let program = assemble(all);
        for kind in [Kind::Block, Kind::Character] {
            for numbers in [(1, 3), (1, 4), (2, 3), (8, 0), (8, 1), (136, 9), (0, 0)] {
                for access in 1..8 {
                    let ours = program.as_deref().is_none_or(|p| run(p, kind, numbers, access));
                    let meant = allowed(all, kind, numbers, access);
                    assert_eq!(ours, meant, "{all:?}: {kind:?} {numbers:?} {access:#b}");
                }
            }
        }
    }

    #[test]
    fn the_program_means_what_the_rules_mean() {
        for json in [
            "[]",
            r#"[{"allow":false,"access":"rwm"}]"#,
            r#"[{"allow":true,"access":"rwm"}]"#,
            r#"[{"allow":true,"access":"rwm"},{"allow":false,"type":"b","access":"w"}]"#,
            r#"[{"allow":false},{"allow":true,"type":"c","major":1,"minor":3,"access":"r"},
                {"allow":true,"type":"c","major":1,"access":"w"}]"#,
            r#"[{"allow":true,"type":"b","major":8,"access":"rwm"},
                {"allow":false,"type":"b","major":8,"minor":1,"access":"rw"},
                {"allow":true,"minor":1,"access":"m"}]"#,
            r#"[{"allow":true,"access":"r"},{"allow":true,"access":"w"},
                {"allow":false,"type":"c","minor":3,"access":"wm"}]"#,
        ] {
            agrees_everywhere(&rules(json));
            let mut completed = rules(json);
            completed.extend(super::super::rules::always());
            agrees_everywhere(&completed);
        }
    }

    #[test]
    fn rules_made_at_random_mean_the_same() {
        // A linear congruential generator: the same rules in each run.
        let mut seed = 42_u64;
        let mut pick = |among: u64| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (seed >> 33) % among
        };
        for _ in 0..400 {
            let count = pick(7);
            let all: Vec<Rule> = (0..count)
                .map(|_| Rule {
                    allow: pick(2) == 0,
                    devices: Devices {
                        kind: [None, Some(Kind::Block), Some(Kind::Character)][pick(3) as usize],
                        major: [None, Some(1), Some(8)][pick(3) as usize],
                        minor: [None, Some(0), Some(3)][pick(3) as usize],
                    },
                    access: Access(1 + pick(7) as u8),
                })
                .collect();
            agrees_everywhere(&all);
        }
    }

    #[test]
    fn allowing_everything_takes_no_program_and_denying_everything_a_short_one() {
        let mut privileged = rules(r#"[{"allow":false},{"allow":true,"access":"rwm"}]"#);
        privileged.extend(super::super::rules::always());
        assert_eq!(assemble(&privileged), None);
        assert_eq!(assemble(&[]).unwrap().len(), 8);
    }
}
