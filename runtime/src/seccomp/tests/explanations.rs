//! What `explain` says.

use super::*;

const PROFILE: &str = r#"{"defaultAction":"SCMP_ACT_ERRNO","architectures":["SCMP_ARCH_X86"],
    "syscalls":[
        {"names":["openat2"],"action":"SCMP_ACT_ALLOW"},
        {"names":["personality"],"action":"SCMP_ACT_LOG","args":[
            {"index":0,"value":8,"op":"SCMP_CMP_EQ"}]},
        {"names":["socket"],"action":"SCMP_ACT_ALLOW","args":[
            {"index":0,"value":40,"op":"SCMP_CMP_NE"},{"index":1,"value":1,"op":"SCMP_CMP_GE"}]}]}"#;

fn explained(on: Architecture, syscall: &str, arguments: [u64; 6]) -> String {
    let profile = parse(PROFILE);
    explain_on(&profile, Architecture::X86_64, on, syscall, &arguments).unwrap().to_string()
}

#[test]
fn each_reason_has_its_sentence() {
    use Architecture::{Arm, X86, X86_64};
    let none = [0; 6];
    for (on, syscall, arguments, sentence) in [
        (X86_64, "openat2", none, "openat2 (number 437 on x86_64): allow: syscalls[0] says so"),
        (
            X86_64,
            "135",
            [8, 0, 0, 0, 0, 0],
            "personality (number 135 on x86_64): allow and log: \
             syscalls[1] says so where arg0 == 0x8",
        ),
        (
            X86_64,
            "personality",
            none,
            "personality (number 135 on x86_64): fail with EPERM (1): \
             no rule holds (arg0 == 0x8), so defaultAction decides",
        ),
        (
            X86_64,
            "mount",
            none,
            "mount (number 165 on x86_64): fail with EPERM (1): \
             no rule is about it, so defaultAction decides",
        ),
        (
            X86_64,
            "mseal",
            none,
            "mseal (number 462 on x86_64): fail with ENOSYS (38): \
             the profile names no call this new, so it does not exist",
        ),
        (
            Arm,
            "read",
            none,
            "read (number 3 on arm): kill the thread: \
             the profile is not for this architecture: see architectures",
        ),
        (
            X86,
            "socketcall",
            [1, 7, 0, 0, 0, 0],
            "socketcall (number 102 on x86): allow: \
             syscalls[2] says so where arg0 == 0x1 and arg1 >= 0x1",
        ),
    ] {
        assert_eq!(explained(on, syscall, arguments), sentence);
    }
}

#[test]
fn unknown_names_are_refused() {
    let error = explain(&parse(PROFILE), "opne", &[0; 6]).unwrap_err();
    assert!(error.to_string().starts_with("no system call is named \"opne\" on "), "{error}");
}
