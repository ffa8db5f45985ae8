//! Our filters answer what libseccomp's answer, call by call.
//!
//! Run with `cargo test -p minirun --test seccomp_differential -- --ignored`. It needs python3 and
//! libseccomp.so.2 (Debian: `python3`, `libseccomp2`), which is why plain `cargo test` leaves it.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod libseccomp;

use libseccomp::{Profile, Rule, Witness};
use minirun::seccomp::{Architecture, Call, default_profile, run};
use oci_spec::runtime::LinuxSeccomp;

const ALLOW: u32 = 0x7fff_0000;
const ERRNO: u32 = 0x0005_0000;

/// Where 64-bit and 32-bit comparisons may go wrong.
const EDGES: [u64; 12] = [
    0,
    1,
    2,
    5,
    0x7fff_ffff,
    0x8000_0000,
    0xffff_ffff,
    0x1_0000_0000,
    0x1_0000_0005,
    0xffff_ffff_0000_0000,
    u64::MAX - 1,
    u64::MAX,
];

/// Every number that any architecture gives out, and those at the seams.
fn numbers() -> impl Iterator<Item = u32> {
    let x32 = 0x4000_0000;
    (0..600)
        .chain((0..600).map(move |number| x32 | number))
        .chain([x32 - 1, 0x7fff_ffff, 0x8000_0000, u32::MAX - 1, u32::MAX])
        .chain(0xe_fffe..0xf_0009)
}

/// Compares the verdicts on all numbers × `arguments`. Gives how many calls that were.
fn compare(witness: &mut Witness, profile: &Profile, arguments: &[[u64; 6]]) -> usize {
    let Some(theirs) = witness.compile(profile) else { return 0 };
    let ours = profile.compile();
    let mut count = 0;
    for audit in [0xc000_003e, 0x4000_0003, 0xc000_00b7, 0x4000_0028, 0x16] {
        for number in numbers() {
            for arguments in arguments {
                let call = Call { number, audit, arguments: *arguments };
                let our = run(&ours, &call).unwrap().raw();
                let their = theirs.answer(profile, &call);
                if our != their {
                    let profile = minimal(witness, profile, &call);
                    panic!("{call:x?}: ours {our:#x}, libseccomp's {their:#x}: {profile:x?}");
                }
                count += 1;
            }
        }
    }
    count
}

/// The profile without the rules that a difference does not need.
fn minimal(witness: &mut Witness, profile: &Profile, call: &Call) -> Profile {
    let mut profile = profile.clone();
    for index in (0..profile.rules.len()).rev() {
        let mut smaller = profile.clone();
        smaller.rules.remove(index);
        let Some(theirs) = witness.compile(&smaller) else { continue };
        let ours = run(&smaller.compile(), call).unwrap().raw();
        if ours != theirs.answer(&smaller, call) {
            profile = smaller;
        }
    }
    profile
}

/// Each value in each place, with the other arguments 0, then all the same.
fn arguments(values: &[u64]) -> Vec<[u64; 6]> {
    let mut all = Vec::new();
    for value in values {
        for place in 0..6 {
            let mut arguments = [0; 6];
            arguments[place] = *value;
            all.push(arguments);
        }
        all.push([*value; 6]);
    }
    all
}

/// The values that a profile compares with, their neighbours, and both with another upper half.
fn edges_of(profile: &LinuxSeccomp) -> Vec<u64> {
    let mut values = vec![0, 1];
    for rule in profile.syscalls().iter().flatten() {
        for argument in rule.args().iter().flatten() {
            let value = argument.value();
            let near = [value.wrapping_sub(1), value, value.wrapping_add(1)];
            values.extend(near);
            values.extend(near.map(|value| value ^ 0x1_0000_0000));
        }
    }
    values.sort_unstable();
    values.dedup();
    values
}

#[test]
#[ignore = "needs python3 and libseccomp.so.2"]
fn the_default_profile_means_the_same_to_libseccomp() {
    let mut witness = Witness::start();
    let mut calls = 0;
    for capabilities in [&[][..], &["CAP_SYS_ADMIN", "CAP_SYS_TIME"]] {
        let profile = default_profile(capabilities);
        let values = edges_of(&profile);
        for native in [Architecture::X86_64, Architecture::Aarch64] {
            let profile = Profile::of(&profile, native, &mut witness);
            report(&mut witness, &profile);
            calls += compare(&mut witness, &profile, &arguments(&values));
        }
    }
    println!("{calls} calls have the same verdict");
    assert!(calls > 1_000_000);
}

/// Prints the sizes of both programs, and what libseccomp needs for its own.
fn report(witness: &mut Witness, profile: &Profile) {
    let theirs = witness.compile(profile).unwrap();
    let (native, rules, ours) = (profile.native, profile.rules.len(), profile.compile().len());
    let (length, time) = (theirs.program.len(), theirs.milliseconds);
    println!("{native}, {rules} rules: ours {ours}, libseccomp's {length} instructions, {time} ms");
}

/// Enough for profiles: the same seed gives the same profiles on each run.
struct Random(u64);

impl Random {
    /// SplitMix64.
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }
}

/// Calls that all our architectures have, and some that 32-bit x86 has beside them.
///
/// Not more, because libseccomp 2.5.4 gets filters wrong that have a rule with conditions for a
/// call which one of the architectures lacks: x86_64 apart, it then compares the number of the
/// architecture with that of the call (its program has no load between the two comparisons).
const COMMON: [&str; 9] =
    ["read", "write", "close", "ioctl", "prctl", "socket", "shmat", "execveat", "fchown"];
const ON_X86: [&str; 5] = ["open", "socketcall", "ipc", "chown32", "stime"];
const OPERATORS: [&str; 7] = ["EQ", "NE", "LT", "LE", "GT", "GE", "MASKED_EQ"];

/// The conditions of the rules about one call: one rule of any kind, or several about one value.
///
/// Not several of any kind, because libseccomp 2.5.4 gets these wrong, too: where one rule fails at
/// the lower half of an argument, the next one finds that half where it expects the upper one.
fn random_alternatives(random: &mut Random) -> Vec<Vec<(usize, &'static str, u64, u64)>> {
    if random.below(4) == 0 {
        let index = random.below(3);
        let count = random.below(5);
        return (0..count).map(|_| vec![(index, "EQ", random.pick(&EDGES), 0)]).collect();
    }
    let mut arguments = Vec::new();
    for index in 0..3 {
        if random.below(3) == 0 {
            let op = random.pick(&OPERATORS);
            arguments.push((index, op, random.pick(&EDGES), random.pick(&EDGES)));
        }
    }
    vec![arguments]
}

fn random_profile(random: &mut Random, actions: &[u32]) -> Profile {
    let native = random.pick(&[Architecture::X86_64, Architecture::Aarch64]);
    let architectures: Vec<_> =
        native.family().iter().copied().filter(|_| random.below(2) == 0).collect();
    let is_x86 = |one: &Architecture| matches!(one, Architecture::X86_64 | Architecture::X86);
    let mut names = COMMON.to_vec();
    if is_x86(&native) && architectures.iter().all(is_x86) {
        names.extend(ON_X86);
    }
    let default = random.pick(&[ALLOW, ERRNO | 1, ERRNO | 38]);
    let mut rules = Vec::new();
    for _ in 0..random.below(8) {
        let name = names.swap_remove(random.below(names.len()));
        for arguments in random_alternatives(random) {
            let action = random.pick(actions);
            rules.push(Rule { name: name.into(), action, arguments });
        }
    }
    Profile { native, architectures, default, rules }
}

/// Random profiles; gives how many of them libseccomp accepted.
fn compare_random(seed: u64, count: usize, actions: &[u32]) -> usize {
    let mut witness = Witness::start();
    let mut random = Random(seed);
    let mut accepted = 0;
    for _ in 0..count {
        let profile = random_profile(&mut random, actions);
        let mut arguments = vec![[0; 6]];
        for _ in 0..12 {
            let values = [0; 6].map(|_: u64| random.pick(&EDGES));
            arguments.push(values);
        }
        accepted += usize::from(compare(&mut witness, &profile, &arguments) > 0);
    }
    println!("seed {seed}: {accepted} of {count} profiles");
    accepted
}

#[test]
#[ignore = "needs python3 and libseccomp.so.2"]
fn random_profiles_with_one_action_mean_the_same_to_libseccomp() {
    assert!(compare_random(1, 150, &[0x0003_0000]) > 100);
}

#[test]
#[ignore = "needs python3 and libseccomp.so.2"]
fn random_profiles_with_several_actions_mean_the_same_to_libseccomp() {
    assert!(compare_random(2, 300, &[ALLOW, ERRNO | 1, 0x0003_0000, 0x8000_0000]) > 100);
}

/// Operators that libseccomp keeps apart. It has one node for "at most 5" and "above 5", and one
/// for "5" and "not 5"; where such a node stands among the others depends on which rule came first.
/// ("Below" a number of more than 32 bits is left out, too: of two such rules the first one wins.)
const FAMILIES: [[&str; 4]; 3] = [
    ["EQ", "MASKED_EQ", "GT", "GE"],
    ["EQ", "MASKED_EQ", "LT", "LE"],
    ["NE", "MASKED_EQ", "LT", "LE"],
];

/// Several rules about few calls, compared with what libseccomp's pseudo code means:
/// it has the rules in the order in which they decide, and not the slips of its programs.
#[test]
#[ignore = "needs python3 and libseccomp.so.2"]
fn overlapping_rules_mean_the_same_to_libseccomp() {
    let mut witness = Witness::start();
    let mut random = Random(3);
    let actions = [ALLOW, ERRNO | 1, 0x0003_0000, 0x8000_0000];
    let mut compared = 0;
    for _ in 0..600 {
        let native = random.pick(&[Architecture::X86_64, Architecture::Aarch64]);
        let architectures = native.family().to_vec();
        let family = random.pick(&FAMILIES);
        let mut rules = Vec::new();
        for _ in 0..random.below(6) {
            let name = random.pick(&COMMON[..2]);
            let action = random.pick(&actions);
            let (index, op) = (random.below(3), random.pick(&family));
            let values = if ["LT", "LE"].contains(&op) { &EDGES[..7] } else { &EDGES[..] };
            let arguments = vec![(index, op, random.pick(values), random.pick(&EDGES))];
            rules.push(Rule { name: name.into(), action, arguments });
        }
        let profile = Profile { native, architectures, default: ERRNO | 38, rules };
        let mut calls = Vec::new();
        for architecture in native.family() {
            for name in &COMMON[..2] {
                for _ in 0..40 {
                    let values = [0; 6].map(|_: u64| random.pick(&EDGES));
                    calls.push((*architecture, *name, values));
                }
            }
        }
        let Some(theirs) = witness.meaning(&profile, &calls) else { continue };
        let ours = profile.compile();
        for ((architecture, _, arguments), (number, their)) in calls.iter().zip(theirs) {
            let our = run(&ours, &Call::new(*architecture, number, *arguments)).unwrap().raw();
            assert_eq!(our, their, "{architecture} {number:#x} {arguments:x?} {profile:x?}");
            compared += 1;
        }
    }
    println!("{compared} calls under overlapping rules have the same verdict");
    assert!(compared > 10_000);
}
