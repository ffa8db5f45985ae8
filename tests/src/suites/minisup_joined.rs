//! Services in the namespaces of others, as their containers, their clients and the kernel see it.

use serde_json::Value;

use super::minisup_keys::File;
use crate::project::kill;
use crate::traffic::{Client, Traffic};
use crate::world::World;
use crate::{Test, test};

pub(super) fn tests() -> Vec<Test> {
    vec![
        test("everything_is_shared", everything_is_shared),
        test("who_joins_goes_with_the_owner", who_joins_goes_with_the_owner),
        test("an_update_loses_no_request", an_update_loses_no_request),
        test("slots_join_slots", slots_join_slots),
    ]
}

/// `app` answers at the port that `net` publishes. Nothing in `net` listens.
fn pair(port: u16, of_net: &str, of_app: &str) -> String {
    format!(
        r#"
services:
  net:
    image: .
    command: [/bin/probe, wait]
    stop_grace_period: 1s
    ipc: shareable
    ports: ["127.0.0.1:{port}:3000"]
    extra_hosts: ["printer:192.0.2.7"]
    {of_net}
  app:
    image: .
    network_mode: "service:net"
    x-minisup: {{probes: {{ready: {{http: {{port: 3000, path: /health}}, interval: 200ms}}}}}}
    {of_app}
  other: {{image: ., expose: [3000]}}
"#
    )
}

fn ask(port: u16) -> Result<String, String> {
    Client::connect(port).and_then(|mut client| client.get("/"))
}

fn instances(file: &File<'_>) -> String {
    file.0.ok(&["ps", "--format", "{{.Instance}}"])
}

fn everything_is_shared(world: &World) {
    let file = File::new(world, "joined", "");
    let all = "pid: \"service:net\"\n    ipc: \"service:net\"";
    file.write(&pair(file.0.port, "", all));
    let told = file.up().exits(0);
    assert!(!told.errors.contains("cannot reach app"), "{told:?}");
    let of =
        |service: &str, kind: &str| file.sh(service, &format!("readlink /proc/self/ns/{kind}"));
    for kind in ["net", "ipc", "pid"] {
        assert_eq!(of("app", kind), of("net", kind), "{kind}");
        assert_ne!(of("app", kind), of("other", kind), "{kind}");
    }
    assert_ne!(of("app", "uts"), of("net", "uts"));
    assert_eq!(file.sh("app", "hostname"), "app.1\n");
    assert!(file.sh("app", "tr '\\0' ' ' < /proc/1/cmdline").starts_with("/bin/probe wait"));
    file.sh("net", "echo 7 > /dev/shm/number");
    assert_eq!(file.sh("app", "cat /dev/shm/number"), "7\n");
    // It asks for names, and is found, as the one whose network it is in.
    for name in ["/etc/resolv.conf", "/etc/hosts"] {
        let text = |service: &str| file.sh(service, &format!("cat {name} | grep -v localhost"));
        assert_eq!(text("app"), text("net"), "{name}");
        assert!(!text("app").is_empty(), "{name}");
    }
    let finds = |service: &str, name: &str| {
        let found = file.sh(service, &format!("busybox nslookup {name} 10.77.0.1; true"));
        found.lines().filter(|line| line.starts_with("Address")).count() > 1
    };
    assert!(finds("app", "other") && finds("other", "net") && !finds("other", "app"));
    let answer = ask(file.0.port).expect("an answer");
    assert!(answer.contains(" on app.1, "), "{answer}");
    // What goes through the network counts for the one that has it.
    let received = |instance: &str| -> Option<u64> {
        let told: Value =
            serde_json::from_str(&file.0.ok(&["stats", "--no-stream", "--json"])).ok()?;
        let mut all = told["stats"].as_array()?.iter();
        let one = all.find(|one| one["instance"] == instance)?;
        one["latest"]["received_bytes"].as_u64()
    };
    file.0.wait_for("its traffic", || received("net.1.1") > Some(0));
    assert_eq!(received("app.1.1"), Some(0));
    file.0.down();
}

fn who_joins_goes_with_the_owner(world: &World) {
    let file = File::new(world, "orphans", "");
    for pid in ["", "pid: \"service:net\""] {
        file.write(&pair(file.0.port, "", pid));
        file.up().exits(0);
        let before = instances(&file);
        let rows = file.0.ok(&["ps", "--format", "{{.Instance}} {{.PID}}"]);
        let owner = rows.lines().rev().find(|line| line.starts_with("net.1.")).expect("it runs");
        let (name, pid) = owner.split_once(' ').expect("two words");
        kill("-KILL", pid);
        file.0.wait_for("another owner", || {
            let now = instances(&file);
            now.lines().any(|line| line.starts_with("net.1.") && line != name)
        });
        file.0.wait_for("an answer", || ask(file.0.port).is_ok_and(|text| text.contains("app.1")));
        file.0.wait_for("nobody who was with the old one", || {
            let now = instances(&file);
            !before.lines().any(|line| line.starts_with("app") && now.contains(line))
        });
    }
    let told = file.0.ok(&["events", "--json"]);
    assert!(told.contains("\"orphaned\"") && told.contains("\"rule\":\"joined\""), "{told}");
    // A brain that comes later knows who is in whose.
    let (before, brain) = (file.0.pids(), file.0.role("brain"));
    kill("-KILL", brain.as_ref().expect("it runs"));
    file.0.wait_for("another brain", || {
        file.0.role("brain") != brain && file.0.minisup(&["ps"]).status == 0
    });
    assert_eq!(file.0.pids(), before);
    file.0.ok(&["stop", "net"]);
    let is_there = |name: &str| instances(&file).contains(name);
    file.0.wait_for("nothing but the other", || !is_there("net.1.") && !is_there("app.1."));
    file.0.ok(&["start", "net"]);
    file.0.wait_for("an answer", || ask(file.0.port).is_ok());
    file.0.down();
}

fn an_update_loses_no_request(world: &World) {
    let file = File::new(world, "owner", "");
    file.write(&pair(file.0.port, "", ""));
    file.up().exits(0);
    let traffic = Traffic::begin(file.0.port, 4);
    file.write(&pair(file.0.port, "environment: {A: b}", ""));
    let compose = file.0.bundle().join("compose.yaml");
    let plan = file.0.minisup(&["plan", "--file", compose.to_str().expect("UTF-8")]);
    assert!(plan.output.contains("~ app: 1 replica replaced with net"), "{plan:?}");
    file.up().exits(0);
    file.0.wait_for("both replaced", || {
        let now = instances(&file);
        now.contains("net.1.2") && now.contains("app.1.2") && now.lines().count() == 3
    });
    let answered = traffic.answered();
    file.0.wait_for("more answers", || traffic.answered() > answered);
    assert!(traffic.end() > 0);
    file.0.down();
}

fn slots_join_slots(world: &World) {
    let text = "services:\n  net: {image: ., deploy: {replicas: 2}}\n  \
                app: {image: ., command: [/bin/probe, wait], network_mode: \"service:net\", \
                stop_grace_period: 1s, deploy: {replicas: 3}}\n";
    let file = File::new(world, "slots", text);
    file.up().exits(0);
    let of = |slot: &str| file.sh(slot, "readlink /proc/self/ns/net");
    let is_with = |app: &str, net: &str| of(app) == of(net);
    assert!(is_with("app.1", "net.1") && is_with("app.2", "net.2") && is_with("app.3", "net.1"));
    file.0.ok(&["scale", "net=3"]);
    file.0.wait_for("its own", || {
        let now = instances(&file);
        now.contains("app.3.2") && !now.contains("app.3.1") && file.0.pids().len() == 6
    });
    assert!(is_with("app.1", "net.1") && is_with("app.3", "net.3"));
    file.0.ok(&["scale", "net=1"]);
    file.0.wait_for("all with the first", || {
        let now = file.0.ok(&["ps", "--format", "{{.Instance}} {{.CurrentState}}"]);
        now.lines().count() == 4
            && now.contains("app.1.1 ")
            && now.contains("app.2.2 ")
            && now.contains("app.3.3 ")
            && file.0.pids().len() == 4
    });
    assert!(is_with("app.2", "net.1") && is_with("app.3", "net.1"));
    file.0.down();
}
