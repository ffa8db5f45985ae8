//! Keys of Compose files, as the containers see them.

use std::collections::BTreeSet;
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::Path;
use std::time::Duration;

use rustix::process::Signal;

use crate::project::{Project, kill};
use crate::traffic::Client;
use crate::world::World;
use crate::{Test, programs, test};

pub(super) fn tests() -> Vec<Test> {
    vec![
        test("identity_names_and_devices", identity_names_and_devices),
        test("namespaces_and_rights", namespaces_and_rights),
        test("other_names_are_asked_elsewhere", other_names_are_asked_elsewhere),
        test("who_asks_by_tcp_has_few_places", who_asks_by_tcp_has_few_places),
        test("followers_are_replaced_too", followers_are_replaced_too),
        test("free_ports_are_found_and_kept", free_ports_are_found_and_kept),
        test("ports_of_both_families", both_families),
        test("a_terminal_outlives_the_brain", a_terminal_outlives_the_brain),
        test("a_cgroup_in_another", a_cgroup_in_another),
        test("rotated_logs_are_compressed", rotated_logs_are_compressed),
        test("refusals_have_their_place", refusals_have_their_place),
    ]
}

/// A project of one file.
pub(super) struct File<'a>(pub(super) Project<'a>);

impl<'a> File<'a> {
    /// Writes the file, beside an image with accounts.
    pub(super) fn new(world: &'a World, name: &str, text: &str) -> File<'a> {
        let project = Project::new(world, name);
        let etc = project.bundle().join("rootfs/etc");
        std::fs::create_dir(&etc).expect("make a directory");
        std::fs::write(etc.join("passwd"), "shop:x:33:44::/:/bin/sh\n").expect("write passwd");
        std::fs::write(etc.join("group"), "staff:x:50:\nother:x:60:\n").expect("write group");
        for empty in ["hosts", "resolv.conf"] {
            std::fs::write(etc.join(empty), "").expect("write a file");
        }
        let file = File(project);
        file.write(text);
        file
    }

    pub(super) fn write(&self, text: &str) {
        std::fs::write(self.0.bundle().join("compose.yaml"), text).expect("write the file");
    }

    pub(super) fn up(&self) -> crate::call::Ran {
        let (file, runtime) = (self.0.bundle().join("compose.yaml"), programs::minirun());
        let mut up = vec!["up", "-d", "--wait", "--file", file.to_str().expect("UTF-8")];
        up.extend(["--runtime", runtime.to_str().expect("UTF-8")]);
        self.0.minisup(&up)
    }

    /// What a shell in a service's container prints.
    #[track_caller]
    pub(super) fn sh(&self, service: &str, script: &str) -> String {
        self.0.ok(&["exec", service, "sh", "-c", script])
    }
}

const IDENTITY: &str = r#"
services:
  web:
    image: .
    user: "shop:staff"
    group_add: [other]
    init: true
    tmpfs: ["/tmp:mode=1777"]
    extra_hosts: ["printer:192.0.2.7"]
    dns_search: [example.org]
    dns_opt: ["ndots:3"]
    devices: ["/dev/null:/dev/nothing:rw"]
    post_start:
      - {command: [sh, -c, "id -u > /tmp/by; echo $$WORD > /tmp/said"], user: "0:0",
         environment: {WORD: hello}, working_dir: /tmp}
    logging: {driver: none}
    networks: {default: {aliases: [shop]}}
    container_name: the-shop
    expose: [3000]
    labels: {a: b}
    deploy: {labels: {team: sales}, placement: {constraints: [node.role == manager]}}
"#;

fn identity_names_and_devices(world: &World) {
    let file = File::new(world, "identity", IDENTITY);
    file.up().exits(0);
    assert_eq!(file.sh("web", "id -u; id -g; id -G"), "33\n50\n50 60\n");
    assert_eq!(file.sh("web", "cat /tmp/by /tmp/said"), "0\nhello\n");
    assert!(file.sh("web", "cat /etc/hosts").ends_with("192.0.2.7\tprinter\n"));
    let resolver = file.sh("web", "cat /etc/resolv.conf");
    assert!(resolver.contains(".internal example.org\noptions ndots:3\n"), "{resolver}");
    let device = file.sh("web", "stat -c '%F %t %T' /dev/nothing; echo x > /dev/nothing");
    assert_eq!(device, "character special file 1 3\n");
    // Orphans are reaped: the shell's child ends after the shell, and nothing of it stays.
    assert!(file.sh("web", "tr '\\0' ' ' < /proc/1/cmdline").starts_with("/dev/minisup-init init"));
    file.sh("web", "sh -c 'sleep 0.3 & exit' ");
    let zombies = "for f in /proc/[0-9]*/stat; do cat $f; done 2>/dev/null | grep -c ' Z '; true";
    file.0.wait_for("no zombie", || file.sh("web", zombies).trim() == "0");
    for name in ["web", "shop", "the-shop"] {
        let found = file.sh("web", &format!("busybox nslookup {name} 10.77.0.1"));
        assert!(found.lines().filter(|line| line.starts_with("Address")).count() > 1, "{found}");
    }
    assert_eq!(file.0.ok(&["logs"]), "", "nothing is kept of its output");
    assert!(file.0.ok(&["inspect"]).contains("sales"));
    file.0.down();
}

const NAMESPACES: &str = r#"
services:
  all: {image: ., command: [/bin/probe, wait], privileged: true, cap_drop: [NET_RAW]}
  host:
    image: .
    command: [/bin/probe, wait]
    pid: host
    uts: host
    ipc: host
    network_mode: host
  alone:
    image: .
    command: [sh, -c, "cat; echo ended"]
    stdin_open: true
    network_mode: none
    cgroup: private
    cap_add: [ALL]
    security_opt: ["no-new-privileges:true", seccomp=unconfined, systempaths=unconfined]
"#;

fn namespaces_and_rights(world: &World) {
    let file = File::new(world, "rights", NAMESPACES);
    file.up().exits(0);
    let own = |kind: &str| {
        let link = std::fs::read_link(format!("/proc/self/ns/{kind}")).expect("a namespace");
        format!("{}\n", link.display())
    };
    let of =
        |service: &str, kind: &str| file.sh(service, &format!("readlink /proc/self/ns/{kind}"));
    for kind in ["pid", "uts", "ipc", "net"] {
        assert_eq!(of("host", kind), own(kind), "{kind}");
        assert_ne!(of("all", kind), own(kind), "{kind}");
    }
    assert_ne!(of("alone", "cgroup"), of("all", "cgroup"));
    let devices = file.sh("alone", "cat /proc/net/dev");
    assert_eq!(devices.lines().filter(|line| line.contains(':')).count(), 1, "{devices}");
    assert!(file.sh("all", "cat /proc/net/dev").contains("eth0"), "the project's network");
    let capabilities = |service: &str| {
        let text = file.sh(service, "grep CapEff /proc/self/status");
        let number = text.split_whitespace().last().expect("a number");
        u64::from_str_radix(number, 16).expect("hexadecimal")
    };
    let own = std::fs::read_to_string("/proc/self/status").expect("our status");
    let own = own.lines().find_map(|line| line.strip_prefix("CapBnd:")).expect("our bounds");
    let own = u64::from_str_radix(own.trim(), 16).expect("hexadecimal");
    const NET_RAW: u64 = 1 << 13;
    assert_eq!(capabilities("all"), own & !NET_RAW, "all but the one that was dropped");
    assert_eq!(capabilities("alone"), own);
    assert!(file.sh("alone", "grep NoNewPrivs /proc/self/status").ends_with("1\n"));
    // Any device, also one that was not there when it started.
    file.sh("all", "mknod /dev/loop-x c 1 5 && head -c 4 /dev/loop-x > /dev/null");
    // An open input never ends, so neither does `cat`.
    let running: BTreeSet<String> = file.0.pids().into_iter().collect();
    assert_eq!(running.len(), 3);
    assert!(!file.0.ok(&["logs"]).contains("ended"));
    file.0.down();
}

fn other_names_are_asked_elsewhere(world: &World) {
    let Ok(server) = UdpSocket::bind("127.0.77.53:53") else {
        panic!("port 53 of 127.0.77.53 is somebody else's");
    };
    server.set_read_timeout(Some(Duration::from_secs(60))).expect("not for ever");
    let text = "services:\n  web: {image: ., dns: [127.0.77.53]}\n  other: {image: .}\n";
    let file = File::new(world, "dns", text);
    file.up().exits(0);
    let asked = std::thread::scope(|scope| {
        let asking = scope.spawn(|| {
            let mut buffer = [0; 4096];
            let (length, client) = server.recv_from(&mut buffer).expect("a question");
            let question = buffer[..length].to_vec();
            let mut answer = question.clone();
            answer[2] |= 0x80; // an answer
            answer[3] = 3; // there is no such name
            drop(server.send_to(&answer, client));
            question
        });
        file.0.minisup(&["exec", "web", "busybox", "nslookup", "elsewhere.test", "10.77.0.1"]);
        asking.join().expect("the server does not panic")
    });
    let asked = String::from_utf8_lossy(&asked).into_owned();
    assert!(asked.contains("elsewhere"), "{asked:?}");
    file.0.down();
}

/// A container that connects to the resolver again and again takes no descriptors away that the
/// requests of others need.
fn who_asks_by_tcp_has_few_places(world: &World) {
    let file = File::new(world, "greedy", "services: {web: {image: ., expose: [3000]}}\n");
    file.up().exits(0);
    let plane = file.0.role("plane").expect("it runs");
    let open = || std::fs::read_dir(format!("/proc/{plane}/fd")).expect("it runs").count();
    let before = open();
    let greedy = "for i in $(seq 100); do sleep 20 | nc 10.77.0.1 53 >/dev/null & done";
    file.0.ok(&["exec", "-d", "web", "sh", "-c", &format!("{greedy}; wait")]);
    // On a slow machine the first are sent away before the last have come.
    file.0.wait_for("its connections", || open() >= before + 16);
    let look = |_| {
        std::thread::sleep(Duration::from_millis(50));
        open()
    };
    let most = (0..40).map(look).max().unwrap_or_default();
    assert!(most <= before + 64 + 8, "{} descriptors more", most - before);
    let found = file.sh("web", "busybox nslookup web 10.77.0.1; true");
    assert!(found.contains("Address") && found.contains("10.77."), "{found}");
    file.0.wait_for("the end of those that say nothing", || open() <= before + 8);
    file.0.down();
}

fn followers_are_replaced_too(world: &World) {
    let text = |restart: bool, word: &str| {
        format!(
            "services:\n  db: {{image: ., environment: {{WORD: {word}}}}}\n  \
             web: {{image: ., depends_on: {{db: {{condition: service_started, restart: {restart}}}}}}}\n"
        )
    };
    let file = File::new(world, "follow", &text(true, "one"));
    file.up().exits(0);
    file.write(&text(true, "two"));
    file.up().exits(0);
    let rows = || file.0.ok(&["ps", "--format", "{{.Instance}}"]);
    file.0.wait_for("both replaced", || rows() == "db.1.2\nweb.1.2\n");
    file.0.down();
}

fn free_ports_are_found_and_kept(world: &World) {
    let text = |ports: &str| format!("services: {{web: {{image: ., ports: [{ports}]}}}}\n");
    // The lower port of the range is somebody else's.
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let first = taken.local_addr().expect("it is bound").port();
    let range = format!("\"127.0.0.1:{first}-{}:3000\"", first + 9);
    let ports = format!("\"127.0.0.1::3000\", {range}, \"127.0.0.1::3000\"");
    let file = File::new(world, "ports", &text(&ports));
    let ports = || -> Vec<u16> {
        let view: serde_json::Value =
            serde_json::from_str(&file.0.ok(&["registry", "--json"])).expect("JSON");
        let published = view["services"]["web"]["publish"].as_array().expect("a list").clone();
        let host = |one: &serde_json::Value| one["host"].as_str()?.rsplit(':').next()?.parse().ok();
        published.iter().map(|one| host(one).expect("a port")).collect()
    };
    let summary = file.up().exits(0);
    let found = ports();
    assert!((first + 1..=first + 9).contains(&found[1]), "{found:?} beside {first}");
    for port in &found {
        assert!(summary.output.contains(&format!("127.0.0.1:{port}")), "{summary:?}");
        Client::connect(*port).and_then(|mut client| client.get("/")).expect("an answer");
    }
    let before = file.0.pids();
    file.up().exits(0);
    let brain = file.0.role("brain");
    kill("-KILL", brain.as_ref().expect("it runs"));
    file.0.wait_for("another brain", || {
        file.0.role("brain") != brain && file.0.minisup(&["ps"]).status == 0
    });
    assert_eq!(ports(), found, "what was found stays");
    // Where a service is published is nothing to its containers.
    file.write(&text(&format!("\"127.0.0.1:{}:3000\"", file.0.port)));
    let compose = file.0.bundle().join("compose.yaml");
    let plan = file.0.minisup(&["plan", "--file", compose.to_str().expect("UTF-8")]);
    assert!(plan.output.contains("published elsewhere, its containers stay"), "{plan:?}");
    file.up().exits(0);
    assert_eq!(file.0.pids(), before);
    Client::connect(file.0.port).and_then(|mut client| client.get("/")).expect("an answer");
    assert!(Client::connect(found[0]).is_err(), "the old port is closed");
    file.0.down();
}

fn both_families(world: &World) {
    let text = |ports: &str| format!("services: {{web: {{image: ., ports: [{ports}]}}}}\n");
    let file = File::new(world, "families", "services: {}\n");
    let port = file.0.port;
    file.write(&text(&format!("\"{port}:3000\", \"3000\"")));
    // Somebody has it by IPv6.
    if let Ok(taken) = TcpListener::bind((Ipv6Addr::LOCALHOST, port)) {
        let refused = file.up();
        assert_ne!(refused.status, 0, "{refused:?}");
        let remedy = format!(
            "cannot listen at [::]:{port}; to publish by IPv4 alone, write \
                              0.0.0.0:{port}:3000"
        );
        assert!(refused.errors.contains(&remedy), "{refused:?}");
        drop(taken);
    }
    file.up().exits(0);
    let rows = file.0.ok(&["ls"]);
    let free = rows.rsplit("*:").next().and_then(|last| last.split_once("->"));
    let free: u16 = free.and_then(|(port, _)| port.parse().ok()).expect("a free port");
    assert!(rows.contains(&format!("*:{port}->3000, *:{free}->3000")), "{rows}");
    let answers = |at: SocketAddr| -> std::io::Result<bool> {
        let mut stream = TcpStream::connect(at)?;
        stream.write_all(b"GET / HTTP/1.1\r\nHost: web\r\nConnection: close\r\n\r\n")?;
        std::io::read_to_string(stream).map(|text| text.starts_with("HTTP/1.1 200"))
    };
    let mut families: Vec<IpAddr> = vec![Ipv4Addr::LOCALHOST.into()];
    families.extend(TcpListener::bind("[::1]:0").map(|_| IpAddr::from(Ipv6Addr::LOCALHOST)));
    for (ip, port) in families.iter().flat_map(|ip| [(*ip, port), (*ip, free)]) {
        assert!(answers((ip, port).into()).expect("an answer"), "{ip} {port}");
    }
    // IPv4 alone, and the port by IPv6 is another's again.
    file.write(&text(&format!("\"0.0.0.0:{port}:3000\"")));
    file.up().exits(0);
    assert!(answers((Ipv4Addr::LOCALHOST, port).into()).expect("an answer"));
    assert!(answers((Ipv6Addr::LOCALHOST, port).into()).is_err());
    file.0.down();
}

fn a_terminal_outlives_the_brain(world: &World) {
    let script = "test -t 0 && test -t 1 && test -t 2 && echo three; tty; \
                  while [ ! -e /tmp/go ]; do sleep 0.1; done; echo later; exec sleep 1000";
    let text = format!(
        "services: {{web: {{image: ., tty: true, tmpfs: [/tmp], command: [sh, -c, '{script}']}}}}\n"
    );
    let file = File::new(world, "tty", &text);
    file.up().exits(0);
    let logs = || file.0.ok(&["logs"]);
    file.0.wait_for("its first words", || logs().contains("three") && logs().contains("/dev/"));
    let brain = file.0.role("brain");
    kill("-KILL", brain.as_ref().expect("it runs"));
    file.0.wait_for("another brain", || {
        file.0.role("brain") != brain && file.0.minisup(&["ps"]).status == 0
    });
    let before = file.0.pids();
    file.sh("web", "touch /tmp/go");
    file.0.wait_for("what it says after that", || logs().contains("later"));
    assert_eq!(file.0.pids(), before, "no hang-up reached it");
    file.0.down();
}

/// The parent stays when the project goes, for it is not the project's.
fn a_cgroup_in_another(world: &World) {
    let parent = format!("minisup-keys-{}", std::process::id());
    let text = format!("services: {{web: {{image: ., cgroup_parent: {parent}/inner}}}}\n");
    let file = File::new(world, "parent", &text);
    let hierarchies = || {
        let root = Path::new("/sys/fs/cgroup");
        let below = std::fs::read_dir(root).expect("cgroups").flatten().map(|entry| entry.path());
        let all = below.chain([root.to_path_buf()]).map(|root| root.join(&parent));
        all.filter(|group| group.exists()).collect::<Vec<_>>()
    };
    file.up().exits(0);
    let own = format!("/{parent}/inner/minisup-parent-{}-web.1.1", std::process::id());
    let pid = &file.0.pids()[0];
    let groups = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).expect("its groups");
    assert!(groups.lines().any(|line| line.ends_with(&own)), "{groups}");
    file.0.ok(&["stats", "--no-stream"]);
    file.0.down();
    assert!(!hierarchies().is_empty());
    for group in hierarchies() {
        // Only empty ones can be removed.
        std::fs::remove_dir(group.join("inner")).expect("nothing is left in it");
        std::fs::remove_dir(group).expect("nothing is left in it");
    }
}

fn rotated_logs_are_compressed(world: &World) {
    let script = "i=0; while [ $$i -lt 200 ]; do echo line $$i; i=$$((i+1)); done; \
                  while [ ! -e /tmp/go ]; do sleep 0.1; done; \
                  while [ $$i -lt 300 ]; do echo line $$i; i=$$((i+1)); done; exec sleep 1000";
    let text = format!(
        "services:\n  web:\n    image: .\n    tmpfs: [/tmp]\n    stop_grace_period: 1s\n    \
         command: [sh, -c, '{script}']\n    \
         logging: {{options: {{compress: \"true\", max-size: 4k, max-file: \"20\"}}}}\n"
    );
    let file = File::new(world, "packed", &text);
    file.up().exits(0);
    let logs = |options: &[&str]| file.0.ok(&[&["logs"][..], options].concat());
    let lines = |from: usize, to: usize| -> String {
        (from..to).map(|n| format!("web.1.1        | line {n}\n")).collect()
    };
    let files = |last: &str| {
        let names = std::fs::read_dir(file.0.state_dir().join("logs")).expect("a directory");
        let names = names.flatten().filter_map(|entry| entry.file_name().into_string().ok());
        names.filter(|name| name.ends_with(last)).count()
    };
    // 200 lines of about 75 bytes are three full files and a rest.
    file.0.wait_for("the last of them", || logs(&["--tail", "1"]) == lines(199, 200));
    file.0.wait_for("all compressed", || files(".gz") >= 3 && files(".1") == 0);
    assert_eq!(logs(&[]), lines(0, 200));
    assert_eq!(logs(&["--since", "1h"]), lines(0, 200));
    assert_eq!(logs(&["--tail", "150"]), lines(50, 200));
    // Who follows sees each line once, whatever becomes of the files.
    let follow = file.0.call(&["logs", "--follow"]).spawn();
    follow.wait_for("line 199");
    file.sh("web", "touch /tmp/go");
    follow.wait_for("line 299");
    assert_eq!(follow.output(), lines(0, 300));
    follow.signal(Signal::KILL);
    follow.wait();
    file.0.ok(&["restart", "web"]);
    file.0.wait_for("its successor", || logs(&["web.1.2"]).contains("line 199"));
    file.0.wait_for("the end of the first", || file.0.pids().len() == 1);
    assert_eq!(logs(&["--previous"]), lines(0, 300));
    file.0.down();
}

fn refusals_have_their_place(world: &World) {
    let file = File::new(world, "refused", "");
    for (line, message) in [
        ("user: nobody", "has no user \"nobody\""),
        ("group_add: [wheel]", "has no group \"wheel\""),
        ("devices: [/dev/no-such]", "there is no /dev/no-such"),
        (
            "extra_hosts: [\"h:host-gateway\"]\n    network_mode: none",
            "without a network there is no way to the host",
        ),
        (
            "extra_hosts: [\"h:host-gateway\"]\n    networks: [back]",
            "every network of the service is internal",
        ),
        ("network_mode: \"service:no\"", "there is no service `no`"),
        ("ipc: \"service:db\"", "`db` keeps it to itself"),
        ("pid: \"service:web\"", "a service cannot join itself"),
        ("networks: {back: {ipv6_address: \"fd00::9\"}}", "is in no subnet"),
        ("cgroup_parent: /x/../y", "`/x/../y` is no path of a cgroup"),
        ("runtime: kata", "one runtime serves all"),
        ("security_opt: [\"seccomp=./no-such.json\"]", "no-such.json"),
        (
            "logging: {options: {compress: \"true\", max-file: \"1\"}}",
            "there is none that could be compressed",
        ),
    ] {
        file.write(&format!(
            "services:\n  db: {{image: .}}\n  web:\n    image: .\n    {line}\n\
             networks: {{back: {{internal: true}}}}\n"
        ));
        let refused = file.up().fails(message);
        assert!(refused.errors.contains("compose.yaml:5:"), "{line}: {}", refused.errors);
    }
    file.0.is_gone();
}
