//! What a service manager passes on: sockets to listen on, and one to tell when it is ready.

use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use crate::call::Call;
use crate::world::World;
use crate::{Test, test};

pub(super) fn tests() -> Vec<Test> {
    vec![
        test("ready_after_start", ready_after_start),
        test("ready_in_the_foreground", ready_in_the_foreground),
        test("never_ready", never_ready),
        test("nobody_wants_to_know", nobody_wants_to_know),
        test("sockets_to_listen_on", sockets_to_listen_on),
    ]
}

/// The manager's socket.
fn manager(world: &World) -> UnixDatagram {
    let socket = UnixDatagram::bind(world.path("manager")).expect("listen");
    socket.set_read_timeout(Some(Duration::from_secs(60))).expect("not for ever");
    socket
}

fn heard(manager: &UnixDatagram) -> String {
    let mut buffer = [0; 4096];
    let length = manager.recv(&mut buffer).expect("a message");
    String::from_utf8_lossy(&buffer[..length]).into_owned()
}

fn call(world: &World, arguments: &[&str]) -> Call {
    world.minirun(arguments).env("NOTIFY_SOCKET", world.path("manager").as_os_str())
}

fn ready_after_start(world: &World) {
    let manager = manager(world);
    let bundle = world.bundle("c").args(&["/bin/probe", "ready"]);
    call(world, &["create", "-b", bundle.path(), "c"]).run().ok();
    // Returns when it is ready, and not before.
    call(world, &["start", "c"]).run().ok();
    let pid = world.state("c")["pid"].to_string();
    assert_eq!(heard(&manager), format!("READY=1\nMAINPID={pid}\n"));
    world.run(&["delete", "-f", "c"]).ok();
    call(world, &["run", "-d", bundle.path()]).run().ok();
    assert!(heard(&manager).starts_with("READY=1\n"));
    world.run(&["delete", "-f", "c"]).ok();
}

fn ready_in_the_foreground(world: &World) {
    let manager = manager(world);
    let bundle = world.bundle("c").args(&["/bin/probe", "ready"]);
    let running = call(world, &["run", bundle.path()]).spawn();
    assert!(heard(&manager).starts_with("READY=1\nMAINPID="));
    world.run(&["kill", "c", "KILL"]).ok();
    running.wait().exits(137);
}

/// A container that ends without a word: `start` does not wait for ever.
fn never_ready(world: &World) {
    let _manager = manager(world);
    let bundle = world.bundle("c").shell("test -S $NOTIFY_SOCKET && exit 3");
    call(world, &["create", "-b", bundle.path(), "c"]).run().ok();
    call(world, &["start", "c"]).run().ok();
    assert!(crate::call::wait_until(|| world.status("c") == "stopped"));
    world.run(&["delete", "c"]).ok();
    call(world, &["run", bundle.path()]).run().exits(3);
}

fn nobody_wants_to_know(world: &World) {
    let bundle = world.bundle("c").shell("echo ${NOTIFY_SOCKET:-none}; ls /run 2>&1 | grep notify");
    world.minirun(&["run", bundle.path()]).run().exits(1).prints("none\n");
}

fn sockets_to_listen_on(world: &World) {
    let bundle = world.bundle("c").shell("echo $LISTEN_FDS $LISTEN_PID $LISTEN_FDNAMES; cat <&3");
    let script = "exec 3</etc/hostname; LISTEN_FDS=1 LISTEN_FDNAMES=web exec \"$@\"";
    let minirun = crate::programs::minirun();
    let root = world.root();
    let ran = world
        .program("/bin/sh")
        .args(&["-c", script, "sh", minirun.to_str().expect("UTF-8")])
        .args(&["--root", root.to_str().expect("UTF-8"), "run", bundle.path()])
        .run();
    let name = std::fs::read_to_string("/etc/hostname").expect("a name");
    ran.ok().prints(&format!("1 1 web\n{name}"));
}
