//! Profiles that are refused, and what the other parts of a profile become.

use super::*;

fn refusal(json: &str) -> Error {
    compile_for(&parse(json), Architecture::X86_64).unwrap_err()
}

#[test]
fn bad_profiles_are_refused_with_their_place() {
    let error = refusal(
        r#"{"defaultAction":"SCMP_ACT_ALLOW",
            "syscalls":[{"names":["read"],"action":"SCMP_ACT_KILL","errnoRet":3}]}"#,
    );
    assert_eq!(
        error.to_string(),
        "syscalls[0]: SCMP_ACT_KILL returns no errno: remove errnoRet, or use SCMP_ACT_ERRNO"
    );
    let error = refusal(
        r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["read"],
            "action":"SCMP_ACT_KILL","args":[{"index":6,"value":0,"op":"SCMP_CMP_EQ"}]}]}"#,
    );
    assert_eq!(error, Error::NoSuchArgument { rule: 0, index: 6 });
    let error = refusal(
        r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":[""],"action":"SCMP_ACT_KILL"}]}"#,
    );
    assert_eq!(error, Error::EmptyName { rule: 0 });
    assert_eq!(refusal(r#"{"defaultAction":"SCMP_ACT_NOTIFY"}"#), Error::NotifyByDefault);
}

#[test]
fn contradictions_are_refused_unless_a_rule_without_conditions_settles_them() {
    let rules = r#"{"names":["read"],"action":"SCMP_ACT_KILL","args":[
            {"index":0,"value":1,"op":"SCMP_CMP_EQ"},{"index":2,"value":1,"op":"SCMP_CMP_NE"}]},
        {"names":["read"],"action":"SCMP_ACT_TRAP","args":[
            {"index":2,"value":1,"op":"SCMP_CMP_NE"},{"index":0,"value":1,"op":"SCMP_CMP_EQ"}]}"#;
    let profile =
        |more: &str| format!(r#"{{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{rules}{more}]}}"#);
    let error = refusal(&profile(""));
    assert_eq!(error, Error::Conflict { rules: [0, 1] });
    let settled = parse(&profile(r#",{"names":["read"],"action":"SCMP_ACT_ERRNO"}"#));
    let calls: [(u32, u32, &[u64]); 1] = [(X86_64, 0, &[1])];
    assert_eq!(answers(&settled, Architecture::X86_64, &calls), [ERRNO | 1]);
}

#[test]
fn a_listener_is_needed_where_calls_are_handed_to_one() {
    let rule = r#""syscalls":[{"names":["mkdir"],"action":"SCMP_ACT_NOTIFY"}]"#;
    let without = format!(r#"{{"defaultAction":"SCMP_ACT_ALLOW",{rule}}}"#);
    assert_eq!(refusal(&without), Error::NoListener);
    let profile = parse(&format!(
        r#"{{"defaultAction":"SCMP_ACT_ALLOW","listenerPath":"/run/agent","listenerMetadata":"m",
            "flags":["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"],{rule}}}"#
    ));
    let program = compile(&profile).unwrap().program;
    let listener = Listener { path: "/run/agent".into(), metadata: Some("m".into()) };
    assert_eq!(program.listener, Some(listener));
    assert_eq!(program.flags, Flags::NEW_LISTENER | Flags::WAIT_KILLABLE_RECV);
    let write = rule.replace("mkdir", "write");
    let error = refusal(&format!(
        r#"{{"defaultAction":"SCMP_ACT_ALLOW","listenerPath":"/run/agent",{write}}}"#
    ));
    assert_eq!(error, Error::NotifyOnWrite { rule: 0 });
}

#[test]
fn a_listener_without_work_is_left_alone() {
    let profile = parse(r#"{"defaultAction":"SCMP_ACT_ALLOW","listenerPath":"/run/agent"}"#);
    assert_eq!(compile(&profile).unwrap().program.listener, None);
    let metadata = r#"{"defaultAction":"SCMP_ACT_ALLOW","listenerMetadata":"m"}"#;
    assert_eq!(refusal(metadata), Error::MetadataWithoutListener);
}

#[test]
fn flags_are_those_of_the_kernel() {
    let profile = parse(
        r#"{"defaultAction":"SCMP_ACT_ALLOW","flags":["SECCOMP_FILTER_FLAG_LOG",
            "SECCOMP_FILTER_FLAG_SPEC_ALLOW","SECCOMP_FILTER_FLAG_TSYNC",
            "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"]}"#,
    );
    let flags = compile(&profile).unwrap().program.flags;
    assert_eq!(flags, Flags::LOG | Flags::SPEC_ALLOW | Flags::TSYNC);
    assert_eq!(flags.bits(), 0b1_0111);
}

#[test]
fn without_a_list_of_flags_speculation_stays_as_it_was() {
    let absent = parse(r#"{"defaultAction":"SCMP_ACT_ALLOW"}"#);
    assert_eq!(compile(&absent).unwrap().program.flags, Flags::SPEC_ALLOW);
    let empty = parse(r#"{"defaultAction":"SCMP_ACT_ALLOW","flags":[]}"#);
    assert_eq!(compile(&empty).unwrap().program.flags, Flags::NONE);
}

#[test]
fn all_names_are_listed_sorted_and_understood() {
    for names in [action_names(), operator_names(), architecture_names(), flag_names()] {
        assert!(names.is_sorted_by(|one, next| one < next), "{names:?}");
    }
    assert!(architecture_names().contains(&Architecture::NATIVE.oci().to_string()));
    assert!(supported_flag_names().contains(&"SECCOMP_FILTER_FLAG_LOG".to_owned()));
    for action in action_names() {
        let json = format!(
            r#"{{"defaultAction":"SCMP_ACT_ALLOW","listenerPath":"/agent",
                "syscalls":[{{"names":["read"],"action":"{action}"}}]}}"#
        );
        assert!(compile(&parse(&json)).is_ok(), "{action}");
    }
    for operator in operator_names() {
        let json = format!(r#"{{"index":0,"value":1,"op":"{operator}"}}"#);
        let argument = serde_json::from_str(&json).unwrap();
        assert!(condition::Condition::of_profile(&argument).is_some(), "{operator}");
    }
}

#[test]
fn architectures_that_cannot_run_here_are_named() {
    let profile = parse(
        r#"{"defaultAction":"SCMP_ACT_ALLOW",
            "architectures":["SCMP_ARCH_X86_64","SCMP_ARCH_MIPS","SCMP_ARCH_AARCH64"]}"#,
    );
    let compiled = compile_for(&profile, Architecture::X86_64).unwrap();
    assert_eq!(compiled.unreachable, [Arch::ScmpArchMips, Arch::ScmpArchAarch64]);
}

#[test]
fn a_filter_that_the_kernel_would_not_take_is_refused() {
    let rules: Vec<_> = (0..1200)
        .map(|value| {
            format!(
                r#"{{"names":["read"],"action":"SCMP_ACT_KILL","args":[
                    {{"index":0,"value":{value},"op":"SCMP_CMP_EQ"}}]}}"#
            )
        })
        .collect();
    let error = refusal(&format!(
        r#"{{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{}]}}"#,
        rules.join(",")
    ));
    assert!(matches!(error, Error::TooLong { instructions: 4800.. }), "{error}");
}
