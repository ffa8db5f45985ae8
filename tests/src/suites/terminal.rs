//! Terminals: in the foreground, by console socket, their size, the keys that are signals.

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::path::Path;

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use serde_json::json;

use crate::pty::Pty;
use crate::world::World;
use crate::{Test, test};

pub(super) fn tests() -> Vec<Test> {
    vec![
        test("foreground", foreground),
        test("resize", resize),
        test("keys_are_signals", keys_are_signals),
        test("without_a_terminal_of_ours", without_a_terminal_of_ours),
        test("console_socket", console_socket),
        test("exec_with_a_terminal", exec_with_a_terminal),
        test("belongs_to_the_user", belongs_to_the_user),
        test("the_callers_terminal_is_as_before", the_callers_terminal_is_as_before),
    ]
}

fn foreground(world: &World) {
    let script = "tty; stty size; test -c /dev/console && echo console; echo out >/dev/tty
        read word; echo \"got $word\"; exit 5";
    let bundle = world.bundle("c").shell(script);
    let (mut pty, slave) = Pty::open(33, 99);
    let running = world.minirun(&["run", "--tty", bundle.path()]).spawn_on(&slave);
    let shown = pty.read_until("out\r\n");
    let lines: Vec<_> = shown.lines().collect();
    assert_eq!(lines, ["/dev/pts/0", "33 99", "console", "out"]);
    pty.write("hello\r");
    pty.read_until("got hello\r\n");
    running.wait().exits(5);
}

fn resize(world: &World) {
    let script =
        "trap 'exit 7' TERM; trap 'stty size' WINCH; echo ready; while :; do sleep 0.05; done";
    let bundle = world.bundle("c").shell(script).set("/process/terminal", json!(true));
    let (mut pty, slave) = Pty::open(20, 80);
    let running = world.minirun(&["run", bundle.path()]).spawn_on(&slave);
    pty.read_until("ready\r\n");
    for (rows, columns) in [(44, 111), (10, 20), (50, 200)] {
        pty.resize(rows, columns);
        pty.read_until(&format!("{rows} {columns}\r\n"));
    }
    world.run(&["kill", "c"]).ok();
    running.wait().exits(7);
}

fn keys_are_signals(world: &World) {
    let script = "trap 'echo interrupted; exit 6' INT; echo ready; while :; do sleep 0.05; done";
    let bundle = world.bundle("c").shell(script);
    let (mut pty, slave) = Pty::open(20, 80);
    let running = world.minirun(&["run", "--tty", bundle.path()]).spawn_on(&slave);
    pty.read_until("ready\r\n");
    // Not a signal to minirun, because the caller's terminal is raw: the container's makes it one.
    pty.write("\u{3}");
    pty.read_until("interrupted\r\n");
    running.wait().exits(6);
}

fn without_a_terminal_of_ours(world: &World) {
    let bundle =
        world.bundle("c").shell("tty; cat; echo end").set("/process/terminal", json!(true));
    let ran = world.minirun(&["run", bundle.path()]).input_text("typed\n").run().ok();
    // What is typed is shown, and then shown again by cat; the first may come before anything.
    assert!(ran.output.contains("/dev/pts/0\r\n"), "{:?}", ran.output);
    assert_eq!(ran.output.matches("typed\r\n").count(), 2, "{:?}", ran.output);
    assert!(ran.output.ends_with("end\r\n"), "{:?}", ran.output);
}

/// Accepts one connection and takes the descriptor that comes with the message.
pub(super) fn receive(listener: &UnixListener) -> (String, OwnedFd) {
    let (stream, _) = listener.accept().expect("a connection");
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut buffer = [0; 4096];
    let mut parts = [std::io::IoSliceMut::new(&mut buffer)];
    let message =
        recvmsg(&stream, &mut parts, &mut control, RecvFlags::CMSG_CLOEXEC).expect("a message");
    let descriptors = control.drain().flat_map(|message| match message {
        RecvAncillaryMessage::ScmRights(list) => list.collect::<Vec<_>>(),
        _ => Vec::new(),
    });
    let mut descriptors: Vec<_> = descriptors.collect();
    assert_eq!(descriptors.len(), 1, "exactly one descriptor");
    let name = String::from_utf8_lossy(&buffer[..message.bytes]).into_owned();
    (name, descriptors.remove(0))
}

fn listen(path: &Path) -> (UnixListener, &str) {
    drop(std::fs::remove_file(path));
    (UnixListener::bind(path).expect("listen"), path.to_str().expect("UTF-8"))
}

fn console_socket(world: &World) {
    let path = world.path("console");
    let (listener, name) = listen(&path);
    let bundle = world
        .bundle("c")
        .shell("stty size; read word; echo got $word; sleep 1000")
        .set("/process/terminal", json!(true))
        .set("/process/consoleSize", json!({"height": 40, "width": 120}));
    world.run(&["create", "-b", bundle.path(), "c"]).fails("without setting console socket");
    world.run(&["create", "-b", bundle.path(), "--console-socket", name, "c"]).ok();
    let (_, master) = receive(&listener);
    let mut pty = Pty::of(master);
    world.run(&["start", "c"]).ok();
    pty.read_until("40 120\r\n");
    pty.write("it\r");
    pty.read_until("got it\r\n");
    world.run(&["delete", "-f", "c"]).ok();
    // A socket for a process without a terminal is a mistake, and so is one where nobody listens.
    let plain = world.bundle("plain").args(&["true"]);
    let ran = world.run(&["create", "-b", plain.path(), "--console-socket", name, "p"]);
    ran.fails("process.terminal is not set");
    drop(listener);
    let ran = world.run(&["create", "-b", bundle.path(), "--console-socket", name, "c"]);
    ran.fails("--console-socket");
}

fn exec_with_a_terminal(world: &World) {
    let bundle = world.bundle("c").args(&["/bin/probe", "wait"]);
    world.run(&["run", "-d", bundle.path()]).ok();
    let (mut pty, slave) = Pty::open(17, 71);
    let call = ["exec", "--tty", "c", "sh", "-c", "tty; stty size; read x; exit 9"];
    let running = world.minirun(&call).spawn_on(&slave);
    assert!(pty.read_until("17 71\r\n").starts_with("/dev/pts/"));
    pty.write("\r");
    running.wait().exits(9);
    // Detached, by socket.
    let path = world.path("console");
    let (listener, name) = listen(&path);
    let call =
        ["exec", "-d", "-t", "--console-socket", name, "c", "sh", "-c", "echo here; sleep 9"];
    world.run(&call).ok();
    let (_, master) = receive(&listener);
    Pty::of(master).read_until("here\r\n");
    let ran = world.run(&["exec", "-d", "-t", "c", "true"]).exits(255);
    assert!(ran.errors.contains("without setting console socket"), "{}", ran.errors);
    world.run(&["delete", "-f", "c"]).ok();
}

fn belongs_to_the_user(world: &World) {
    let bundle = world
        .bundle("c")
        .shell("stat -c '%u %a' $(tty); echo w >/dev/tty && echo x >/dev/console && echo fine")
        .set("/process/user", json!({"uid": 1000, "gid": 1000}));
    let (mut pty, slave) = Pty::open(20, 80);
    let running = world.minirun(&["run", "--tty", bundle.path()]).spawn_on(&slave);
    let shown = pty.read_until("fine\r\n");
    assert!(shown.starts_with("1000 6"), "{shown}");
    running.wait().exits(0);
}

fn the_callers_terminal_is_as_before(world: &World) {
    let bundle = world.bundle("c").shell("echo here; read x");
    let (mut pty, slave) = Pty::open(20, 80);
    let modes = || format!("{:?}", rustix::termios::tcgetattr(&slave).expect("its modes"));
    let before = modes();
    let running = world.minirun(&["run", "--tty", bundle.path()]).spawn_on(&slave);
    pty.read_until("here\r\n");
    assert_ne!(modes(), before, "raw while the container has it");
    pty.write("\r");
    running.wait().exits(0);
    assert_eq!(modes(), before);
}
