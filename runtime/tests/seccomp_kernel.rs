//! The kernel takes our filters and acts on them. A filter holds for the thread that loads it, so
//! each test has a thread to spend. No privileges are needed.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::io::Error;
use std::os::fd::OwnedFd;

use linux::Errno;
use linux::seccomp::Flags;
use minirun::seccomp::{compile, default_profile};
use oci_spec::runtime::LinuxSeccomp;

/// Runs `inside` on a thread under the filter, with the listener if there is one.
fn filtered<T: Send + 'static>(
    profile: LinuxSeccomp,
    inside: impl FnOnce(Option<OwnedFd>) -> T + Send + 'static,
) -> T {
    let thread = std::thread::spawn(move || {
        let program = compile(&profile).unwrap().program;
        linux::prctl::set_no_new_privileges().unwrap();
        let listener = linux::seccomp::load(&program.instructions, program.flags).unwrap();
        inside(listener)
    });
    thread.join().unwrap()
}

fn parse(json: &str) -> LinuxSeccomp {
    serde_json::from_str(json).unwrap()
}

fn make_directory() -> Option<i32> {
    // The parent does not exist: without a filter this is ENOENT (2).
    fs::create_dir("/no such directory/child").err().as_ref().and_then(Error::raw_os_error)
}

#[test]
fn a_rule_decides_which_errno_the_program_sees() {
    assert_eq!(make_directory(), Some(2));
    let profile = parse(
        r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[
            {"names":["mkdir","mkdirat"],"action":"SCMP_ACT_ERRNO","errnoRet":95}]}"#,
    );
    assert_eq!(filtered(profile, |_| make_directory()), Some(95));
}

#[test]
fn the_default_profile_lets_programs_work_and_forbids_what_it_says() {
    let (allowed, keyring, domain) = filtered(default_profile::<&str>(&[]), |_| {
        let keyring = linux::keyring::join_new_session("test").unwrap_err().errno;
        let domain = linux::prctl::set_personality(0x0400_0000).unwrap_err().errno;
        (make_directory(), keyring, domain)
    });
    assert_eq!((allowed, keyring, domain), (Some(2), Errno::EPERM, Errno::EPERM));
}

#[test]
fn a_listener_comes_back_where_calls_are_handed_out() {
    let profile = parse(
        r#"{"defaultAction":"SCMP_ACT_ALLOW","listenerPath":"/run/agent.sock",
            "flags":["SECCOMP_FILTER_FLAG_LOG","SECCOMP_FILTER_FLAG_SPEC_ALLOW"],
            "syscalls":[{"names":["mkdir"],"action":"SCMP_ACT_NOTIFY"}]}"#,
    );
    let flags = compile(&profile).unwrap().program.flags;
    assert_eq!(flags, Flags::NEW_LISTENER | Flags::LOG | Flags::SPEC_ALLOW);
    assert!(filtered(profile, |listener| listener.is_some()));
}

#[test]
fn the_longest_filter_is_one_that_the_kernel_takes() {
    let rules: Vec<_> = (0..900)
        .map(|value| {
            format!(
                r#"{{"names":["getpriority"],"action":"SCMP_ACT_ERRNO","args":[
                    {{"index":0,"value":{value},"op":"SCMP_CMP_EQ"}}]}}"#
            )
        })
        .collect();
    let json = format!(r#"{{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{}]}}"#, rules.join(","));
    assert_eq!(filtered(parse(&json), |_| make_directory()), Some(2));
}
