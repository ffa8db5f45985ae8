//! Groups that systemd makes, where there is one: as root with that of the system, else with the
//! user's own.

use std::path::Path;
use std::process::Command;

use libtest_mimic::Trial;
use linux::OFlag;
use linux::clone::{Birth, Child, Strings, spawn};
use minirun::cgroup::{Cgroup, Error, Host, Record, Unit};

use super::group::{resources, test, wait};

pub(crate) fn all() -> Vec<Trial> {
    let tests: [(&str, fn()); 3] = [
        ("systemd_makes_the_group_with_its_limits", life),
        ("systemd_takes_no_limit_back", reload),
        ("what_systemd_refuses_is_told", refused),
    ];
    let is_there = bus().exists();
    let marked = |(name, act)| test(name, act).with_ignored_flag(!is_there);
    tests.into_iter().map(marked).collect()
}

fn is_root() -> bool {
    linux::credentials::effective_user() == 0
}

fn bus() -> std::path::PathBuf {
    if is_root() {
        return "/run/dbus/system_bus_socket".into();
    }
    Path::new(&std::env::var_os("XDG_RUNTIME_DIR").unwrap_or_default()).join("bus")
}

fn systemctl(arguments: &[&str]) -> String {
    let mut command = Command::new("systemctl");
    if !is_root() {
        command.arg("--user");
    }
    let output = command.args(arguments).output().unwrap();
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// A process that sleeps in the group of this test.
fn sleeper() -> Child {
    spawn(Birth::default(), || {
        let arguments = Strings::new(["sleep", "10000"]).unwrap();
        let environment = Strings::new(Vec::<String>::new()).unwrap();
        eprintln!("{}", linux::clone::execute(Path::new("/bin/sleep"), &arguments, &environment));
        98
    })
    .unwrap()
}

fn unit(name: &str) -> Unit {
    Unit::parse(None, &format!("test-{}-{name}", std::process::id())).unwrap()
}

fn shows(group: &Cgroup, file: &str) -> String {
    let file = linux::path::open_at(group.birth_fd(), Path::new(file), OFlag::O_RDONLY).unwrap();
    std::io::read_to_string(std::fs::File::from(file)).unwrap().trim().to_owned()
}

fn end(group: &Cgroup, child: &Child) {
    group.kill_all().unwrap();
    wait(child);
    group.remove().unwrap();
}

fn life() {
    let host = Host::detect().unwrap().unwrap();
    let wanted = resources(
        r#"{"memory":{"limit":67108864},"cpu":{"quota":33333,"period":50000,"shares":512},
            "pids":{"limit":9},"unified":{"memory.high":"50331648"}}"#,
    );
    let (unit, child) = (unit("life"), sleeper());
    let planned = unit.record(&host).unwrap();
    let group = unit.start(&host, child.pid, &wanted).unwrap();
    group.apply(&wanted).unwrap();
    assert_eq!(group.record(), &Record { made: true, ..planned });
    let text = std::fs::read_to_string(format!("/proc/{}/cgroup", child.pid)).unwrap();
    assert!(text.trim().ends_with(&format!("/{}", unit.name)), "{text}");
    assert_eq!(shows(&group, "memory.max"), "67108864");
    assert_eq!(shows(&group, "memory.high"), "50331648");
    assert_eq!(shows(&group, "cpu.max"), "33333 50000");
    assert_eq!(shows(&group, "cpu.weight"), "59");
    assert_eq!(shows(&group, "pids.max"), "9");
    assert_eq!(systemctl(&["show", "-P", "MemoryMax", &unit.name]), "67108864");
    assert_eq!(systemctl(&["show", "-P", "Delegate", &unit.name]), "yes");
    // As delete does it: another process, which knows only the record.
    let again = Cgroup::open(&host, group.record()).unwrap();
    end(&again, &child);
    assert!(!group.path().exists());
    assert_eq!(systemctl(&["show", "-P", "LoadState", &unit.name]), "not-found");
    group.remove().unwrap();
}

fn reload() {
    let host = Host::detect().unwrap().unwrap();
    let (unit, child) = (unit("reload"), sleeper());
    let wanted = resources(r#"{"memory":{"limit":67108864},"pids":{"limit":9}}"#);
    let group = unit.start(&host, child.pid, &wanted).unwrap();
    group.apply(&wanted).unwrap();
    group.update(&resources(r#"{"memory":{"limit":33554432},"cpu":{"quota":20000}}"#)).unwrap();
    systemctl(&["daemon-reload"]);
    systemctl(&["set-property", "--runtime", &unit.name, "CPUWeight=50"]);
    assert_eq!(shows(&group, "memory.max"), "33554432");
    assert_eq!(shows(&group, "cpu.max"), "20000 100000");
    assert_eq!(shows(&group, "pids.max"), "9");
    end(&group, &child);
}

fn refused() {
    let host = Host::detect().unwrap().unwrap();
    let (unit, child) = (unit("twice"), sleeper());
    let group = unit.start(&host, child.pid, &resources("{}")).unwrap();
    let second = sleeper();
    let error = unit.start(&host, second.pid, &resources("{}")).unwrap_err();
    assert!(matches!(&error, Error::Systemd { .. }), "{error}");
    assert!(error.to_string().contains("systemctl stop"), "{error}");
    linux::pidfd::signal(&second.pidfd, 9).unwrap();
    wait(&second);
    end(&group, &child);
    let gone = unit.start(&host, second.pid, &resources("{}")).unwrap_err();
    assert!(gone.to_string().contains("systemd says"), "{gone}");
}
