//! What programs answer, against what profiles say.

mod explanations;
mod naive;
mod profiles;
mod properties;

use oci_spec::runtime::LinuxSeccomp;

use super::*;

const ERRNO: u32 = 0x0005_0000;
const ALLOW: u32 = 0x7fff_0000;
const TRAP: u32 = 0x0003_0000;
const KILL_THREAD: u32 = 0;
const X32: u32 = 0x4000_0000;
const I386: u32 = 0x4000_0003;
const X86_64: u32 = 0xc000_003e;
const AARCH64: u32 = 0xc000_00b7;
const ARM: u32 = 0x4000_0028;

fn parse(json: &str) -> LinuxSeccomp {
    serde_json::from_str(json).unwrap()
}

/// The answers for some calls (audit number, number, first arguments) of a kernel for `native`.
fn answers(profile: &LinuxSeccomp, native: Architecture, calls: &[(u32, u32, &[u64])]) -> Vec<u32> {
    let program = compile_for(profile, native).unwrap().program.instructions;
    let answer = |&(audit, number, given): &(u32, u32, &[u64])| {
        let mut arguments = [0; 6];
        arguments[..given.len()].copy_from_slice(given);
        run(&program, &Call { number, audit, arguments }).unwrap().raw()
    };
    calls.iter().map(answer).collect()
}

#[test]
fn default_allow_with_a_denied_call() {
    let profile = parse(
        r#"{"defaultAction":"SCMP_ACT_ALLOW",
            "syscalls":[{"names":["mkdir","mkdirat"],"action":"SCMP_ACT_ERRNO","errnoRet":95}]}"#,
    );
    let calls: [(u32, u32, &[u64]); 5] = [
        (X86_64, 83, &[]),
        (X86_64, 258, &[]),
        (X86_64, 0, &[]),
        (X86_64, 9999, &[]),
        (I386, 39, &[]),
    ];
    // Without a list of architectures only the native one is known.
    let expected = [ERRNO | 95, ERRNO | 95, ALLOW, ALLOW, KILL_THREAD];
    assert_eq!(answers(&profile, Architecture::X86_64, &calls), expected);
}

#[test]
fn each_architecture_has_its_own_numbers() {
    let profile = parse(
        r#"{"defaultAction":"SCMP_ACT_ALLOW","architectures":["SCMP_ARCH_X86","SCMP_ARCH_X32"],
            "syscalls":[{"names":["ioctl"],"action":"SCMP_ACT_TRAP"}]}"#,
    );
    let calls: [(u32, u32, &[u64]); 7] = [
        (X86_64, 16, &[]),
        (X86_64, 54, &[]),
        (I386, 54, &[]),
        (I386, 16, &[]),
        (X86_64, X32 | 514, &[]),
        (X86_64, X32 | 16, &[]),
        (AARCH64, 29, &[]),
    ];
    let expected = [TRAP, ALLOW, TRAP, ALLOW, TRAP, ALLOW, KILL_THREAD];
    assert_eq!(answers(&profile, Architecture::X86_64, &calls), expected);
}

#[test]
fn x32_calls_are_foreign_where_x32_is_not_listed() {
    let profile = parse(r#"{"defaultAction":"SCMP_ACT_ALLOW"}"#);
    let calls: [(u32, u32, &[u64]); 4] = [
        (X86_64, X32, &[]),
        (X86_64, X32 | 514, &[]),
        (X86_64, u32::MAX - 1, &[]),
        (X86_64, u32::MAX, &[]),
    ];
    let expected = [KILL_THREAD, KILL_THREAD, KILL_THREAD, ALLOW];
    assert_eq!(answers(&profile, Architecture::X86_64, &calls), expected);
}

#[test]
fn calls_newer_than_the_profile_do_not_exist() {
    let profile = parse(
        r#"{"defaultAction":"SCMP_ACT_KILL_PROCESS","architectures":["SCMP_ARCH_ARM"],
            "syscalls":[{"names":["openat2","set_tls","no_such_call"],"action":"SCMP_ACT_ALLOW"}]}"#,
    );
    let kill = 0x8000_0000;
    let calls: [(u32, u32, &[u64]); 8] = [
        (AARCH64, 437, &[]),
        (AARCH64, 438, &[]),
        (AARCH64, 436, &[]),
        (AARCH64, u32::MAX, &[]),
        (ARM, 437, &[]),
        (ARM, 0xe_ffff, &[]),
        (ARM, 0xf_0005, &[]),
        (ARM, 0xf_0006, &[]),
    ];
    let enosys = ERRNO | 38;
    let expected = [ALLOW, enosys, kill, kill, ALLOW, enosys, ALLOW, kill];
    assert_eq!(answers(&profile, Architecture::Aarch64, &calls), expected);
    let compiled = compile_for(&profile, Architecture::Aarch64).unwrap();
    assert_eq!(compiled.skipped, ["no_such_call"]);
}

#[test]
fn permissive_defaults_let_new_calls_through() {
    for action in ["ALLOW", "LOG", "TRACE"] {
        let profile = parse(&format!(
            r#"{{"defaultAction":"SCMP_ACT_{action}",
                "syscalls":[{{"names":["read"],"action":"SCMP_ACT_ERRNO"}}]}}"#
        ));
        let answer = answers(&profile, Architecture::X86_64, &[(X86_64, 470, &[])]);
        assert_ne!(answer, [ERRNO | 38], "{action}");
    }
}

#[test]
fn comparisons_see_all_64_bits() {
    let rule = |op: &str| {
        format!(
            r#"{{"defaultAction":"SCMP_ACT_ALLOW","architectures":["SCMP_ARCH_X86"],"syscalls":[
                {{"names":["ioctl"],"action":"SCMP_ACT_TRAP",
                  "args":[{{"index":1,"value":12884901893,"op":"SCMP_CMP_{op}"}}]}}]}}"#
        )
    };
    let (below, equal, above) = (0x3_0000_0004_u64, 0x3_0000_0005, 0x3_0000_0006);
    let far_above = 0x4_0000_0000;
    let far_below = 0x2_ffff_ffff;
    let values = [below, equal, above, far_above, far_below];
    for (op, hits) in [
        ("EQ", [false, true, false, false, false]),
        ("NE", [true, false, true, true, true]),
        ("GT", [false, false, true, true, false]),
        ("GE", [false, true, true, true, false]),
        ("LT", [true, false, false, false, true]),
        ("LE", [true, true, false, false, true]),
    ] {
        let profile = parse(&rule(op));
        for (value, hit) in values.into_iter().zip(hits) {
            let calls: [(u32, u32, &[u64]); 1] = [(X86_64, 16, &[0, value])];
            let expected = if hit { TRAP } else { ALLOW };
            let answer = answers(&profile, Architecture::X86_64, &calls);
            assert_eq!(answer, [expected], "{op} {value:#x}");
        }
        // A 32-bit program has only the lower half of the value, 5.
        let low: [(u32, u32, &[u64]); 1] = [(I386, 54, &[0, 0xdead_0000_0005])];
        let expected = if hits[1] { TRAP } else { ALLOW };
        assert_eq!(answers(&profile, Architecture::X86_64, &low), [expected], "{op} on x86");
    }
}

#[test]
fn conditions_on_one_argument_are_alternatives_and_on_several_are_not() {
    let profile = parse(
        r#"{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[
            {"names":["ioctl"],"action":"SCMP_ACT_ALLOW","args":[
                {"index":1,"value":1,"op":"SCMP_CMP_EQ"},{"index":1,"value":2,"op":"SCMP_CMP_EQ"}]},
            {"names":["prctl"],"action":"SCMP_ACT_ALLOW","args":[
                {"index":0,"value":1,"op":"SCMP_CMP_EQ"},{"index":1,"value":2,"op":"SCMP_CMP_EQ"}]},
            {"names":["fcntl"],"action":"SCMP_ACT_ALLOW","args":[
                {"index":1,"value":240,"valueTwo":255,"op":"SCMP_CMP_MASKED_EQ"}]}]}"#,
    );
    let calls: [(u32, u32, &[u64]); 8] = [
        (X86_64, 16, &[0, 1]),
        (X86_64, 16, &[0, 2]),
        (X86_64, 16, &[0, 3]),
        (X86_64, 157, &[1, 2]),
        (X86_64, 157, &[1, 3]),
        // The value's bits outside of the mask do not count.
        (X86_64, 72, &[0, 0xf0]),
        (X86_64, 72, &[0, 0xff]),
        (X86_64, 72, &[0, 0x0f]),
    ];
    let eperm = ERRNO | 1;
    let expected = [ALLOW, ALLOW, eperm, ALLOW, eperm, ALLOW, ALLOW, eperm];
    assert_eq!(answers(&profile, Architecture::X86_64, &calls), expected);
}

#[test]
fn a_rule_without_conditions_beats_the_others_and_the_first_of_them_counts() {
    let profile = parse(
        r#"{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[
            {"names":["ioctl"],"action":"SCMP_ACT_TRAP","args":[
                {"index":1,"value":1,"op":"SCMP_CMP_EQ"}]},
            {"names":["ioctl"],"action":"SCMP_ACT_ALLOW"},
            {"names":["ioctl"],"action":"SCMP_ACT_KILL"}]}"#,
    );
    let calls: [(u32, u32, &[u64]); 2] = [(X86_64, 16, &[0, 1]), (X86_64, 16, &[0, 2])];
    assert_eq!(answers(&profile, Architecture::X86_64, &calls), [ALLOW, ALLOW]);
}

#[test]
fn the_more_special_of_two_overlapping_rules_decides() {
    let profile = parse(
        r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[
            {"names":["ioctl"],"action":"SCMP_ACT_TRAP","args":[
                {"index":1,"value":5,"op":"SCMP_CMP_GE"}]},
            {"names":["ioctl"],"action":"SCMP_ACT_KILL","args":[
                {"index":1,"value":7,"op":"SCMP_CMP_EQ"}]},
            {"names":["ioctl"],"action":"SCMP_ACT_ERRNO","args":[
                {"index":1,"value":9,"op":"SCMP_CMP_GT"}]}]}"#,
    );
    let calls: [(u32, u32, &[u64]); 4] = [
        (X86_64, 16, &[0, 4]),
        (X86_64, 16, &[0, 5]),
        (X86_64, 16, &[0, 7]),
        (X86_64, 16, &[0, 10]),
    ];
    let expected = [ALLOW, TRAP, KILL_THREAD, ERRNO | 1];
    assert_eq!(answers(&profile, Architecture::X86_64, &calls), expected);
}

#[test]
fn the_default_profile_depends_on_the_capabilities() {
    let without = default_profile::<&str>(&[]);
    let with = default_profile(&["CAP_KILL", "CAP_SYS_ADMIN"]);
    let new_user = 0x1000_0000;
    let calls: [(u32, u32, &[u64]); 9] = [
        (X86_64, 0, &[]),               // read
        (X86_64, 165, &[]),             // mount
        (X86_64, 56, &[new_user | 17]), // clone
        (X86_64, 56, &[0x11]),          // clone, as fork
        (X86_64, 435, &[]),             // clone3
        (X86_64, 272, &[0x400]),        // unshare, of files
        (X86_64, 41, &[38]),            // socket AF_ALG
        (X86_64, 41, &[2]),             // socket AF_INET
        (X86_64, 470, &[]),             // not invented when the profile was written
    ];
    let (eperm, enosys) = (ERRNO | 1, ERRNO | 38);
    let expected = [ALLOW, eperm, eperm, ALLOW, enosys, ALLOW, eperm, ALLOW, enosys];
    assert_eq!(answers(&without, Architecture::X86_64, &calls), expected);
    let expected = [ALLOW, ALLOW, ALLOW, ALLOW, ALLOW, ALLOW, eperm, ALLOW, enosys];
    assert_eq!(answers(&with, Architecture::X86_64, &calls), expected);
}

#[test]
fn the_default_profile_names_nothing_twice_and_nothing_unknown() {
    let profile = default_profile::<&str>(&[]);
    let rules = profile.syscalls().clone().unwrap();
    let mut names = rules[0].names().clone();
    names.sort_unstable();
    assert!(names.windows(2).all(|pair| pair[0] != pair[1]), "a name stands twice");
    let unknown: Vec<_> = names.iter().filter(|name| syscalls::by_name(name).is_none()).collect();
    assert!(unknown.is_empty(), "unknown to all architectures: {unknown:?}");
}

#[test]
fn neighbours_share_their_ranges() {
    let policy = Policy::of(&default_profile::<&str>(&[]), Architecture::Aarch64).unwrap();
    let named = policy.sections[0].rules.len();
    let ranges = ranges::of(&policy, AARCH64).len();
    assert!(named > 250 && ranges < named / 3, "{named} rules in {ranges} ranges");
}

#[test]
fn long_programs_jump_as_far_as_they_must() {
    // Each call has a fate of its own, so that the tree is deep and its leaves are far apart.
    let names: Vec<_> = syscalls::all(Architecture::X86_64).map(|(name, _)| name).collect();
    let rules: Vec<_> = (names.iter().zip(1..))
        .map(|(name, value)| {
            format!(
                r#"{{"names":["{name}"],"action":"SCMP_ACT_ERRNO","errnoRet":{value},"args":[
                    {{"index":0,"value":{value},"op":"SCMP_CMP_GT"}}]}}"#
            )
        })
        .collect();
    let profile =
        parse(&format!(r#"{{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{}]}}"#, rules.join(",")));
    let mut calls: Vec<(u32, u32, &[u64])> = Vec::new();
    let mut expected = Vec::new();
    for ((_, number), value) in syscalls::all(Architecture::X86_64).zip(1..) {
        calls.push((X86_64, number, &[100_000]));
        expected.push(ERRNO | value);
        calls.push((X86_64, number, &[0]));
        expected.push(ALLOW);
    }
    assert_eq!(answers(&profile, Architecture::X86_64, &calls), expected);
    let length = compile_for(&profile, Architecture::X86_64).unwrap().program.instructions.len();
    assert!(length > 2000, "only {length} instructions");
}
