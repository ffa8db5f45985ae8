//! Boots real guests. Slow, and it needs QEMU and (the first time) root and a network:
//! `cargo test -p vm -- --include-ignored`.

#![expect(clippy::unwrap_used, reason = "a test ends at what it did not expect")]

use std::{
    fs::{self, File},
    io::{Read, Write},
    path::Path,
    process::Command,
    time::Duration,
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    pty::{self, OpenptFlags},
    termios::{Winsize, tcsetwinsize},
};
use vm::{Config, Guest, GuestError, Kernel, Profile, Status};

fn quick(kernel: Kernel) -> Guest {
    Guest::boot(&Config::new(kernel, Profile::Quick)).unwrap()
}

/// Runs a shell script that must succeed, and gives what it printed.
fn script(guest: &mut Guest, text: &str) -> String {
    let output = guest.run(&["sh", "-euc", text]).unwrap();
    assert!(output.status.success(), "{text}: {:?}: {}", output.status, output.errors());
    output.text()
}

#[test]
#[ignore = "boots a guest"]
fn quick_guest_with_kernel_6_1() {
    containers_work(&mut quick(Kernel::V6_1), "6.1.");
}

#[test]
#[ignore = "boots a guest"]
fn quick_guest_with_kernel_6_12() {
    containers_work(&mut quick(Kernel::V6_12), "6.12.");
}

fn containers_work(guest: &mut Guest, series: &str) {
    assert!(guest.release().starts_with(series));
    assert_eq!(script(guest, "uname -r").trim(), guest.release());
    let enabled = script(guest, "cat /sys/fs/cgroup/cgroup.subtree_control");
    for controller in ["cpu", "cpuset", "io", "memory", "hugetlb", "pids", "rdma", "misc"] {
        assert!(enabled.split_whitespace().any(|one| one == controller), "{controller}: {enabled}");
    }
    assert!(script(guest, "cat /proc/pressure/memory").contains("some"));
    let overlay = "cd /tmp; mkdir l u w m; echo lower >l/f
        mount -t overlay o -o lowerdir=l,upperdir=u,workdir=w m; echo upper >m/f; cat l/f u/f";
    assert_eq!(script(guest, overlay), "lower\nupper\n");
    for module in ["veth", "br_netfilter", "nft_masq", "sch_netem", "sch_tbf", "tun", "fuse"] {
        script(guest, &format!("modprobe {module}"));
    }
    // A container of a peer's, born in its cgroup, with a limit that the kernel enforces.
    script(
        guest,
        r#"mkdir -p /tmp/b/rootfs/bin; cd /tmp/b; cp /bin/busybox rootfs/bin/sh; crun spec
        jq '.process.terminal=false | .process.args=["sh","-c","a=x; while :; do a=$a$a; done"]
            | .linux.resources.memory={limit:33554432,swap:33554432}' config.json >c
        mv c config.json"#,
    );
    let traced =
        guest.run(&["strace", "-fe", "clone3", "crun", "run", "-b", "/tmp/b", "x"]).unwrap();
    assert!(traced.errors().contains("CLONE_INTO_CGROUP"), "{}", traced.errors());
    assert_eq!(traced.status.code(), 137, "killed for memory: {}", traced.errors());
}

#[test]
#[ignore = "boots a guest"]
fn commands_behave() {
    let directory = std::env::temp_dir().join(format!("vm-share-{}", std::process::id()));
    fs::create_dir_all(directory.join("sub")).unwrap();
    fs::write(directory.join("sub/file"), "from the host").unwrap();
    let config = Config::new(Kernel::V6_12, Profile::Quick).share(&directory).unwrap();
    let mut guest = Guest::boot(&config).unwrap();
    statuses_and_input(&mut guest);
    output_is_whole(&mut guest);
    timeouts(&mut guest);

    let shared = directory.canonicalize().unwrap().display().to_string();
    let output =
        guest.command(&["cat", "file"]).current_dir(&format!("{shared}/sub")).run().unwrap();
    assert_eq!(output.text(), "from the host");
    let output = guest.run(&["touch", &format!("{shared}/new")]).unwrap();
    assert!(output.errors().contains("Read-only file system"), "{}", output.errors());
    fs::remove_dir_all(directory).unwrap();

    let pid = guest.pid();
    assert!(Path::new(&format!("/proc/{pid}")).exists());
    drop(guest);
    assert!(!Path::new(&format!("/proc/{pid}")).exists(), "QEMU outlived its guest");
}

fn statuses_and_input(guest: &mut Guest) {
    assert_eq!(guest.run(&["sh", "-c", "exit 7"]).unwrap().status, Status::Exited(7));
    assert_eq!(guest.run(&["sh", "-c", "kill -9 $$"]).unwrap().status, Status::Signaled(9));
    let refused = guest.run(&["no-such-program"]).unwrap_err();
    assert!(matches!(&refused, GuestError::Refused(why) if why.contains("no-such-program")));
    let output =
        guest.command(&["sh", "-c", "echo \"$A\"; pwd"]).env("A", "a  b").current_dir("/usr");
    assert_eq!(output.run().unwrap().text(), "a  b\n/usr\n");
    // More than any pipe holds, to a command that answers while it reads, and to one that does
    // not read at all.
    let input = vec![b'i'; 3 << 20];
    assert!(guest.command(&["cat"]).run_with_input(&input).unwrap().stdout == input);
    assert!(guest.command(&["true"]).run_with_input(&input).unwrap().status.success());
    // A child that stays behind does not hold the command up.
    let output = guest.run(&["sh", "-c", "sleep 1000 & echo done"]).unwrap();
    assert_eq!(output.text(), "done\n");
}

fn output_is_whole(guest: &mut Guest) {
    let output = guest.run(&["sh", "-c", "seq 400000; seq 100000 >&2"]).unwrap();
    let lines = |last: u32| (1..=last).map(|line| format!("{line}\n")).collect::<String>();
    assert!(output.stdout.len() > 2 << 20);
    assert!(output.text() == lines(400_000), "standard output came through whole");
    assert!(output.errors() == lines(100_000), "standard error came through whole");
}

fn timeouts(guest: &mut Guest) {
    let command = ["sh", "-c", "setsid sleep 987 & sleep 987"];
    let error = guest.command(&command).deadline(Some(Duration::from_secs(2))).run().unwrap_err();
    assert!(error.to_string().contains("sh -c 'setsid sleep 987 & sleep 987'"), "{error}");
    assert!(matches!(error, GuestError::CommandTimeout { .. }));
    // The guest goes on, without what the command had started.
    let left = guest.run(&["pgrep", "-c", "sleep"]).unwrap();
    assert_eq!(left.text(), "0\n");
}

#[test]
#[ignore = "boots a guest"]
fn a_panic_is_reported_with_the_console() {
    let mut guest = quick(Kernel::V6_1);
    let error = guest.run(&["sh", "-c", "echo c >/proc/sysrq-trigger; sleep 60"]).unwrap_err();
    assert!(matches!(&error, GuestError::Panicked { .. }), "{error}");
    assert!(error.to_string().contains("sysrq triggered crash"), "{error}");
}

#[test]
#[ignore = "boots a guest"]
fn a_shell_has_a_terminal_whose_size_can_change() {
    let size =
        |rows, columns| Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    let master = pty::openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    pty::unlockpt(&master).unwrap();
    let slave = pty::ptsname(&master, Vec::new()).unwrap().into_string().unwrap();
    let slave = File::options().read(true).write(true).open(slave).unwrap();
    tcsetwinsize(&master, size(33, 99)).unwrap();
    let text = "tty; stty size; trap 'stty size; exit 3' WINCH; read word; echo got $word; \
        while :; do sleep 1; done";
    // setsid makes the pseudo-terminal the controlling one, as a terminal emulator would.
    let mut shell = Command::new("setsid")
        .args(["--ctty", "--wait", env!("CARGO_BIN_EXE_vm"), "shell", "--", "sh", "-c", text])
        .stdin(slave.try_clone().unwrap())
        .stdout(slave.try_clone().unwrap())
        .stderr(slave)
        .spawn()
        .unwrap();
    let mut master = File::from(master);
    let mut shown = read_until(&mut master, "33 99\r\n");
    master.write_all(b"hello\r").unwrap();
    shown += &read_until(&mut master, "got hello\r\n");
    tcsetwinsize(&master, size(44, 111)).unwrap();
    shown += &read_until(&mut master, "44 111\r\n");
    assert_eq!(shell.wait().unwrap().code(), Some(3), "{shown}");
    let lines: Vec<_> = shown.lines().collect();
    // Echoed once: by the guest's terminal, not by the host's as well.
    assert_eq!(lines, ["/dev/pts/0", "33 99", "hello", "got hello", "44 111"]);
}

fn read_until(from: &mut File, end: &str) -> String {
    let mut text = String::new();
    while !text.ends_with(end) {
        let patience = Timespec { tv_sec: 200, tv_nsec: 0 };
        let mut ready = [PollFd::new(&*from, PollFlags::IN)];
        assert_eq!(poll(&mut ready, Some(&patience)), Ok(1), "nothing came after {text:?}");
        let mut buffer = [0; 1024];
        let length =
            from.read(&mut buffer).unwrap_or_else(|error| panic!("{error} after {text:?}"));
        text.push_str(&String::from_utf8_lossy(&buffer[..length]));
    }
    text
}

#[test]
#[ignore = "boots a guest"]
fn the_full_guest_has_systemd_and_delegation() {
    let mut guest = Guest::boot(&Config::new(Kernel::V6_12, Profile::Full)).unwrap();
    let text =
        "systemctl start user@1000; systemctl --version | head -1; systemctl --failed --quiet";
    let output = script(&mut guest, text);
    assert!(output.starts_with("systemd 252"), "{output}");
    assert_eq!(output.lines().count(), 1, "failed units: {output}");
    let slice = "/sys/fs/cgroup/user.slice/user-1000.slice/user@1000.service/cgroup.controllers";
    let delegated = script(&mut guest, &format!("cat {slice}"));
    assert_eq!(delegated.trim(), "cpuset cpu io memory pids");
    let rootless = "runuser -u user -- env XDG_RUNTIME_DIR=/run/user/1000 \
        systemd-run --user --scope -q -p MemoryMax=64M cat /proc/self/cgroup";
    assert!(script(&mut guest, rootless).contains("user@1000.service/app.slice"));
}
