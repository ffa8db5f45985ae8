//! Random profiles, random calls: the program answers what the profile says.

use oci_spec::runtime::LinuxSyscall;
use proptest::prelude::*;
use proptest::sample::select;

use super::*;

/// Calls with neighbours, twins on other architectures, multiplexed forms and no number at all.
const NAMES: [&str; 16] = [
    "read",
    "write",
    "open",
    "close",
    "ioctl",
    "prctl",
    "socket",
    "socketcall",
    "shmat",
    "ipc",
    "chown32",
    "execveat",
    "clone3",
    "set_tls",
    "newfstatat",
    "no_such_call",
];
const VALUES: [u64; 12] = [
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
const OPERATORS: [&str; 7] = ["EQ", "NE", "LT", "LE", "GT", "GE", "MASKED_EQ"];
const ACTIONS: [&str; 8] =
    ["ALLOW", "ERRNO", "KILL", "KILL_PROCESS", "TRAP", "TRACE", "LOG", "KILL_THREAD"];
const ARCHITECTURES: [Architecture; 5] = [
    Architecture::X86_64,
    Architecture::X32,
    Architecture::X86,
    Architecture::Aarch64,
    Architecture::Arm,
];

fn argument() -> impl Strategy<Value = String> {
    (0_usize..3, select(&VALUES), select(&VALUES), select(&OPERATORS)).prop_map(
        |(index, value, two, op)| {
            format!(r#"{{"index":{index},"value":{value},"valueTwo":{two},"op":"SCMP_CMP_{op}"}}"#)
        },
    )
}

fn rule() -> impl Strategy<Value = LinuxSyscall> {
    let names = prop::collection::vec(select(&NAMES), 1..4);
    let arguments = prop::collection::vec(argument(), 0..3);
    (names, select(&ACTIONS), prop::option::of(0_u32..3), arguments)
        .prop_map(|(names, action, errno, arguments)| {
            let errno = match (action, errno) {
                ("ERRNO" | "TRACE", Some(errno)) => format!(r#","errnoRet":{errno}"#),
                _ => String::new(),
            };
            let (names, arguments) = (names.join(r#"",""#), arguments.join(","));
            let json = format!(
                r#"{{"names":["{names}"],"action":"SCMP_ACT_{action}"{errno},"args":[{arguments}]}}"#
            );
            serde_json::from_str(&json).unwrap()
        })
        .prop_filter("two conditions on one argument of a multiplexed call", |rule: &LinuxSyscall| {
            let mut indices: Vec<_> =
                rule.args().iter().flatten().map(|argument| argument.index()).collect();
            indices.dedup();
            let multiplexed = rule.names().iter().any(|name| multiplexed::way_to(name).is_some());
            !multiplexed || indices.len() == rule.args().iter().flatten().count()
        })
}

fn profile() -> impl Strategy<Value = LinuxSeccomp> {
    let architectures = prop::collection::vec(select(&ARCHITECTURES), 0..4);
    let rules = prop::collection::vec(rule(), 0..12);
    (select(&ACTIONS), architectures, rules).prop_map(|(default, architectures, rules)| {
        let mut profile = parse(&format!(r#"{{"defaultAction":"SCMP_ACT_{default}"}}"#));
        profile
            .set_architectures(Some(architectures.iter().map(|one| one.oci()).collect()))
            .set_syscalls(Some(rules));
        profile
    })
}

/// What `explain` says about a call, if it comes from an architecture that there is.
fn explained(profile: &LinuxSeccomp, native: Architecture, call: &Call) -> Option<u32> {
    let matches =
        |one: &&Architecture| one.audit() == call.audit && one.numbers().contains(&call.number);
    let architecture = ARCHITECTURES.iter().find(matches)?;
    let number = call.number.to_string();
    let verdict = explain_on(profile, native, *architecture, &number, &call.arguments);
    Some(verdict.unwrap().action.raw())
}

fn call() -> impl Strategy<Value = Call> {
    let number = prop_oneof![
        8 => (select(&NAMES), select(&ARCHITECTURES)).prop_filter_map("no number", |(name, on)| {
            syscalls::by_name(name)?.number(on)
        }),
        2 => 0_u32..500,
        1 => (0_u32..600).prop_map(|number| X32 | number),
        1 => select(vec![0x3fff_ffff, X32, 0xf_0000, 0xf_0006, u32::MAX - 1, u32::MAX]),
    ];
    let audit = select(vec![X86_64, I386, AARCH64, ARM, 0, 0x8000_0016]);
    let arguments = prop::array::uniform6(select(&VALUES));
    (number, audit, arguments).prop_map(|(number, audit, arguments)| Call {
        number,
        audit,
        arguments,
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    #[test]
    fn programs_answer_what_profiles_say(
        profile in profile(),
        native in select(&[Architecture::X86_64, Architecture::Aarch64, Architecture::Arm][..]),
        calls in prop::collection::vec(call(), 64),
    ) {
        let compiled = match compile_for(&profile, native) {
            Ok(compiled) => compiled,
            Err(Error::Conflict { .. }) => return Ok(()),
            Err(other) => return Err(TestCaseError::fail(other.to_string())),
        };
        for call in calls {
            let answer = run(&compiled.program.instructions, &call).unwrap().raw();
            let possible = naive::answers(&profile, native, &call);
            prop_assert!(possible.contains(&answer), "{call:?}: {answer:#x}, not {possible:x?}");
            let explained = explained(&profile, native, &call);
            prop_assert!(explained.is_none_or(|action| action == answer), "{call:?}");
        }
    }
}
