//! A container of somebody who is not root, connected by pasta.

use std::io::Read;
use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use linux::namespace::{Kind, open};
use network::netlink::{Batch, Connection};
use network::pool::Pool;
use network::process::Process;
use network::publish::parse;
use network::rootless::{self, Program};

use crate::testbed::{Place, Stored, connect, converse, on_a_fresh_host, outside, reaches};

/// Somebody who is not root.
const NOBODY: &str = "setpriv --reuid 1000 --regid 1000 --clear-groups";

/// A process of theirs in user and network namespaces of its own.
fn container() -> Child {
    let command = "exec $0 unshare -U -r -n sh -c 'ip link set lo up; echo ready; exec sleep 100'";
    let mut child = Command::new("sh")
        .args(["-c", &command.replace("$0", NOBODY)])
        .stdout(Stdio::piped())
        .process_group(0)
        .spawn()
        .unwrap();
    let mut ready = [0; 6];
    child.stdout.take().unwrap().read_exact(&mut ready).unwrap();
    child
}

#[test]
#[ignore = "needs pasta (package passt); run by name with --ignored"]
fn pasta_connects_a_container_without_root_and_ends_when_told() {
    on_a_fresh_host(|| {
        let elsewhere = outside();
        let mut kernel = Connection::open().unwrap();
        let uplink = kernel.link("uplink").unwrap().index;
        let mut batch = Batch::new();
        // pasta wants a default route; nobody has to be there.
        batch.add_default_route("192.0.2.254".parse().unwrap(), uplink);
        kernel.execute(&batch).unwrap();
        let mut child = container();
        let published = parse("8080:80").unwrap();
        let arguments =
            Program::Pasta.arguments(&rootless::Place::of_process(child.id()), &published).unwrap();
        // Some machines keep /dev/net/tun to root; distributions do not.
        let script = format!(
            "mkdir -p /dev/net && mount -t tmpfs none /dev/net && mknod -m 666 /dev/net/tun c 10 200 && \
             exec {NOBODY} pasta {}",
            arguments.join(" ")
        );
        let started = Command::new("unshare").args(["-m", "sh", "-c", &script]).output().unwrap();
        let namespace = format!("/proc/{}/ns/net", child.id());
        let place = Place::of(open(Path::new(&namespace), Kind::Network).unwrap());
        let finish = |child: &mut Child| {
            child.kill().unwrap();
            child.wait().unwrap();
        };
        if !started.status.success() {
            finish(&mut child);
            panic!("pasta did not connect the container: {started:?}");
        }
        let pasta = pasta_of(child.id());
        let out: SocketAddr = "192.0.2.2:7001".parse().unwrap();
        let reached = converse(&elsewhere, out, || place.run(|| connect(out)));
        pasta.kill().unwrap();
        finish(&mut child);
        assert_eq!(reached.expect("the way out").ip().to_string(), "192.0.2.1");
        while pasta.is_alive() {
            std::thread::yield_now();
        }
        pasta.kill().unwrap();
    });
}

/// The pasta that serves that process.
fn pasta_of(pid: u32) -> Process {
    let pids = std::fs::read_dir("/proc").unwrap().flatten();
    let pids = pids.filter_map(|entry| entry.file_name().to_string_lossy().parse::<u32>().ok());
    let serves = |other: &u32| {
        let line = std::fs::read(format!("/proc/{other}/cmdline")).unwrap_or_default();
        line.starts_with(b"pasta\0") && line.ends_with(format!("/proc/{pid}/ns/net\0").as_bytes())
    };
    pids.filter(serves).find_map(Process::of).expect("pasta runs")
}

#[test]
fn pooled_namespaces_are_ready_to_be_attached() {
    on_a_fresh_host(|| {
        let stored = Stored::new();
        stored.create("web", &["10.1.0.0/24"], false);
        let mut pool = Pool::new(2);
        while pool.refill().unwrap() {}
        assert_eq!(pool.ready(), 2);
        let places: Vec<Place> = (0..3).map(|_| Place::of(pool.take().unwrap())).collect();
        assert_eq!(pool.ready(), 0);
        stored.attach(&places[0], "a", &["web"]);
        let b = stored.attach(&places[2], "b", &["web"]);
        assert!(reaches(&places[0], &places[2], b.addresses()[0]));
    });
}
