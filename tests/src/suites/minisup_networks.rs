//! Networks of projects, with real traffic. Every test has a host of its own, and beside it a machine
//! outside that knows no way to any container.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use crate::call::wait_until;
use crate::host::Host;
use crate::needs::Need;
use crate::project::{Project, kill};
use crate::world::World;
use crate::{Test, programs, test};

pub(super) fn tests() -> Vec<Test> {
    let net = |name, body: fn(&mut Host<'_>, &World)| {
        let test = test(name, move |world: &World| body(&mut Host::new(world), world));
        ["ip", "nft", "nsenter"].into_iter().fold(test, |test, p| test.needs(Need::Program(p)))
    };
    vec![
        net("ways_out", ways_out),
        net("the_host_has_a_name", the_host_has_a_name),
        net("a_host_without_a_way", a_host_without_a_way),
        net("two_projects", two_projects),
        net("apart_and_together", apart_and_together),
        net("ports_of_images", ports_of_images),
        net("addresses_of_the_file", addresses_of_the_file),
        net("a_changed_network", a_changed_network),
        net("everything_is_killed", everything_is_killed),
    ]
}

/// A project of one file, on a host of its own.
struct File<'a>(Project<'a>);

impl<'a> File<'a> {
    fn new(world: &'a World, host: &Host<'_>, name: &str, text: &str) -> File<'a> {
        let project = Project::new(world, name).on(host);
        let etc = project.bundle().join("rootfs/etc");
        std::fs::create_dir_all(&etc).expect("make a directory");
        for empty in ["hosts", "resolv.conf"] {
            std::fs::write(etc.join(empty), "").expect("write a file");
        }
        let file = File(project);
        file.write(text);
        file
    }

    fn write(&self, text: &str) {
        std::fs::write(self.path(), text).expect("write the file");
    }

    fn path(&self) -> std::path::PathBuf {
        self.0.bundle().join("compose.yaml")
    }

    fn up(&self, more: &[&str]) -> crate::call::Ran {
        let (file, runtime) = (self.path(), programs::minirun());
        let mut up = vec!["up", "-d", "--wait", "--file", file.to_str().expect("UTF-8")];
        up.extend(["--runtime", runtime.to_str().expect("UTF-8")]);
        up.extend(more);
        self.0.minisup(&up)
    }

    /// Whether a shell in a service's container succeeds, and what it prints.
    fn sh(&self, service: &str, script: &str) -> (bool, String) {
        let ran = self.0.minisup(&["exec", service, "sh", "-c", script]);
        (ran.status == 0, ran.output)
    }

    /// What the server at HOST:PORT/PATH says to a container, which asks for the name itself.
    /// (A static wget cannot.)
    fn asks(&self, service: &str, at: &str) -> Option<String> {
        let (host, rest) = at.split_once(':').expect("a port");
        let (port, path) = rest.split_once('/').expect("a path");
        let address = match host.parse() {
            Ok(address) => address,
            Err(_) => *self.addresses(service, host).first()?,
        };
        let request = format!("GET /{path} HTTP/1.0\\r\\nHost: {host}\\r\\n\\r\\n");
        let ask = format!("printf '{request}' | nc -w 3 {address} {port}");
        let (_, answer) = self.sh(service, &ask);
        let (head, body) = answer.split_once("\r\n\r\n")?;
        head.contains(" 200 ").then(|| body.trim().to_string())
    }

    /// The addresses that a container is told for a name.
    fn addresses(&self, service: &str, name: &str) -> Vec<Ipv4Addr> {
        let (_, text) = self.sh(service, &format!("nslookup {name}"));
        // The server's own address comes first.
        let answers = text.split_once("Name:").map_or("", |(_, answers)| answers);
        let found = answers.lines().filter_map(|line| line.strip_prefix("Address"));
        let found = found.filter_map(|rest| rest.split_once(": ")?.1.trim().parse().ok());
        found.collect()
    }

    fn one(&self, service: &str, name: &str) -> Ipv4Addr {
        let found = self.addresses(service, name);
        assert_eq!(found.len(), 1, "{name} for {service}");
        found[0]
    }
}

/// What the machine outside sees its clients under.
const OUTSIDE: &str = "192.0.2.2:7000/cgi-bin/who";

const WAYS: &str = r#"
services:
  open: {image: ., expose: [3000]}
  shut: {image: ., expose: [3000], networks: [shut]}
  both: {image: ., expose: [3000], networks: {shut: {priority: 9}, default: }}
networks:
  shut: {internal: true}
"#;

fn ways_out(host: &mut Host<'_>, world: &World) {
    host.outside();
    let file = File::new(world, host, "ways", WAYS);
    let plan = file.0.minisup(&["plan", "--file", file.path().to_str().expect("UTF-8")]);
    assert!(plan.output.contains("net.ipv4.ip_forward of this host is 0"), "{plan:?}");
    file.up(&[]).exits(0).says("net/ipv4/ip_forward was 0, is 1");
    // The host's address towards the outside, for that machine knows no other.
    assert_eq!(file.asks("open", OUTSIDE).as_deref(), Some("192.0.2.1"));
    assert_eq!(file.asks("both", OUTSIDE).as_deref(), Some("192.0.2.1"));
    assert_eq!(file.asks("shut", OUTSIDE), None);
    // Not for want of a route only: one that a container adds itself leads nowhere.
    let gateway = "$(sed -n 's/nameserver //p' /etc/resolv.conf)";
    assert!(file.sh("shut", &format!("ip route add default via {gateway}")).0);
    assert_eq!(file.asks("shut", OUTSIDE), None);
    let interfaces = "ls /sys/class/net 2>/dev/null || cut -d: -f1 /proc/net/dev";
    let interfaces = file.sh("both", interfaces).1;
    assert!(interfaces.contains("eth0") && interfaces.contains("eth1"), "{interfaces}");
    for (service, others) in [("open", "both"), ("shut", "both"), ("both", "shut")] {
        assert!(file.asks(service, &format!("{others}:3000/")).is_some(), "{service}");
    }
    let doctor = file.0.minisup(&["doctor"]).output;
    assert!(doctor.contains("the network default has a way out"), "{doctor}");
    assert!(doctor.contains("the network shut is internal"), "{doctor}");

    // Killed, whoever it is: the way stays, or comes back.
    for role in ["keeper", "brain", "plane"] {
        let old = file.0.role(role).expect("a process");
        kill("-KILL", &old);
        file.0.wait_for(role, || file.0.role(role).is_some_and(|new| new != old));
        file.0.wait_for("an answer", || file.0.minisup(&["ps"]).status == 0);
        assert_eq!(file.asks("open", OUTSIDE).as_deref(), Some("192.0.2.1"), "{role}");
        file.0.wait_for("a name", || file.asks("open", "both:3000/").is_some());
    }
    // One cable for the one network that leads out.
    assert_eq!(links(host), 1);

    // It can be taken, and given again to the same containers.
    let pids = file.0.pids();
    file.up(&["--way-out", "no"]).exits(0);
    let doctor = file.0.minisup(&["doctor"]).output;
    assert!(doctor.contains("the network default has no way out: `--way-out no`"), "{doctor}");
    assert_eq!(file.asks("open", OUTSIDE), None);
    assert_eq!(host.traces(), Vec::<String>::new());
    file.up(&[]).exits(0);
    assert_eq!(file.asks("open", OUTSIDE).as_deref(), Some("192.0.2.1"));
    assert_eq!(file.0.pids(), pids);
    file.0.down();
    assert_eq!(host.traces(), Vec::<String>::new());
}

/// The cables that end on a host.
fn links(host: &Host<'_>) -> usize {
    host.traces().iter().filter(|trace| trace.starts_with("link mr")).count()
}

/// Services go on, what is missing is told, and nothing is left of the try.
const NAMED: &str = r#"
services:
  web: {image: ., extra_hosts: ["the-host:host-gateway", "other:192.0.2.9"]}
  app: {image: ., command: [/bin/probe, wait], network_mode: "service:web"}
  near: {image: ., network_mode: host, extra_hosts: ["the-host:host-gateway"]}
"#;

fn the_host_has_a_name(host: &mut Host<'_>, world: &World) {
    host.outside();
    host.serves_itself();
    let file = File::new(world, host, "named", NAMED);
    // Where nothing leads out, a name for the host would lead nowhere.
    let nft = host.call("sh", &["-c", "command -v nft"]).run().ok().output;
    host.call("mount", &["--bind", "/dev/null", nft.trim()]).run().ok();
    file.up(&["--wait-timeout", "3s"]).fails("there is no way to the host").fails("nft");
    host.call("umount", &[nft.trim()]).run().ok();
    file.up(&[]).exits(0);
    let name = "sed -n 's/[[:space:]]the-host$//p' /etc/hosts";
    let (_, address) = file.sh("web", name);
    let address = address.trim();
    assert_eq!(file.sh("app", name).1.trim(), address);
    assert_eq!(file.sh("near", name).1.trim(), "127.0.0.1");
    // It sees the project under one address of the host's network.
    let seen = file.asks("web", &format!("{address}:7000/cgi-bin/who"));
    let same_network = |seen: &str| seen.rsplit_once('.').map(|(net, _)| net.to_owned());
    assert_eq!(seen.as_deref().and_then(same_network), same_network(address), "{seen:?}");
    assert_eq!(file.asks("app", &format!("{address}:7000/cgi-bin/who")), seen);
    file.up(&["--way-out", "no"]).fails("nothing leads there");
    let pids = file.0.pids();
    assert_eq!(pids.len(), 3);
    // The way goes, and comes back from another address: who runs is told.
    host.call("nft", &["flush", "ruleset"]).run().ok();
    host.call("mount", &["--bind", "/dev/null", nft.trim()]).run().ok();
    for cable in host.interfaces("mr") {
        host.call("ip", &["link", "del", &cable]).run().ok();
    }
    file.up(&[]).exits(0).says("no way out of the network default");
    host.call("umount", &[nft.trim()]).run().ok();
    host.minirun(&["network", "create", "first"]).run().ok();
    file.up(&[]).exits(0);
    let (_, moved) = file.sh("web", name);
    assert_ne!(moved.trim(), address);
    assert!(file.asks("web", &format!("{}:7000/cgi-bin/who", moved.trim())).is_some(), "{moved}");
    assert_eq!(file.0.pids(), pids);
    host.minirun(&["network", "rm", "first"]).run().ok();
    file.0.down();
}

fn a_host_without_a_way(host: &mut Host<'_>, world: &World) {
    host.outside();
    let file = File::new(world, host, "nowhere", WAYS);
    let nft = host.call("sh", &["-c", "command -v nft"]).run().ok().output;
    host.call("mount", &["--bind", "/dev/null", nft.trim()]).run().ok();
    file.up(&[]).exits(0).says("no way out of the network default").says("nft");
    assert!(file.asks("open", "both:3000/").is_some());
    assert_eq!(file.asks("open", OUTSIDE), None);
    let doctor = file.0.minisup(&["doctor"]).output;
    assert!(doctor.contains("– the network default has no way out"), "{doctor}");
    let forwards = host.call("cat", &["/proc/sys/net/ipv4/ip_forward"]).run().ok().output;
    assert_eq!(forwards.trim(), "0", "changed for nothing");
    // When it is there, the next `up` opens the way, also for those who came before.
    host.call("umount", &[nft.trim()]).run().ok();
    assert_eq!(host.traces(), Vec::<String>::new());
    let pids = file.0.pids();
    file.up(&[]).exits(0);
    assert_eq!(file.asks("open", OUTSIDE).as_deref(), Some("192.0.2.1"));
    assert_eq!(file.0.pids(), pids);
    file.0.down();
    assert_eq!(host.traces(), Vec::<String>::new());
}

/// Two projects have the same addresses, and nothing to do with each other.
fn two_projects(host: &mut Host<'_>, world: &World) {
    host.outside();
    let one = File::new(world, host, "one", WAYS);
    one.up(&[]).exits(0);
    let text = "services: {lone: {image: ., expose: [3000]}}\n";
    let other = one.path().with_file_name("other.yaml");
    std::fs::write(&other, text).expect("write a file");
    let second = Project::new(world, "other").on(host);
    let runtime = programs::minirun();
    second.ok(&[
        "up",
        "-d",
        "--wait",
        "--file",
        other.to_str().expect("UTF-8"),
        "--runtime",
        runtime.to_str().expect("UTF-8"),
    ]);
    assert_eq!(links(host), 2);
    let second = File(second);
    assert_eq!(second.asks("lone", OUTSIDE).as_deref(), Some("192.0.2.1"));
    assert!(second.addresses("lone", "open").is_empty());
    // The ends of the cables are in one network of the host; nobody is let in there.
    let inspected = host.minirun(&["network", "inspect", "minisup"]).run().ok().json();
    let ends = inspected["containers"].as_array().expect("containers").iter();
    let ends: Vec<&str> = ends.filter_map(|end| end["ipv4"].as_str()).collect();
    assert_eq!(ends.len(), 2);
    for end in ends {
        for port in [53, 3000] {
            assert_eq!(second.asks("lone", &format!("{end}:{port}/")), None);
        }
    }
    one.0.down();
    assert_eq!(links(host), 1);
    assert_eq!(second.asks("lone", OUTSIDE).as_deref(), Some("192.0.2.1"));
    second.0.down();
    assert_eq!(host.traces(), Vec::<String>::new());
}

const APART: &str = r#"
services:
  web: {image: ., expose: [3000], networks: [front], deploy: {replicas: 2}}
  api: {image: ., expose: [3000], networks: {front: , back: {aliases: [store]}}}
  db: {image: ., expose: [3000], networks: {back: {aliases: [base]}}}
networks:
  front: {name: the-front, labels: {team: sales}}
  back: {internal: true}
"#;

fn apart_and_together(host: &mut Host<'_>, world: &World) {
    let file = File::new(world, host, "apart", APART);
    file.up(&[]).exits(0);
    let reaches = |from: &str, to: &str| file.asks(from, &format!("{to}:3000/")).is_some();
    for (from, to, expected) in [
        ("web", "api", true),
        ("web", "db", false),
        ("api", "web", true),
        ("api", "db", true),
        ("api", "base", true),
        ("db", "api", true),
        ("db", "store", true),
        ("web", "store", false),
        ("db", "web", false),
    ] {
        assert_eq!(reaches(from, to), expected, "{from} to {to}");
        assert_eq!(file.addresses(from, to).is_empty(), !expected, "{from} asks for {to}");
    }
    // Knowing the addresses helps nobody: neither a service's nor a container's.
    for address in [file.one("api", "db"), file.one("api", "tasks.db"), file.one("db", "api")] {
        assert!(!reaches("web", &address.to_string()), "{address}");
    }
    assert!(reaches("api", &file.one("api", "tasks.db").to_string()));
    let replicas = file.addresses("api", "tasks.web");
    assert_eq!(replicas.len(), 2);
    for address in replicas.iter().map(Ipv4Addr::to_string) {
        file.0.wait_for(&address, || reaches("api", &address));
        assert!(!reaches("db", &address), "{address}");
    }
    // Each is told the address in a network of its own.
    assert_ne!(file.one("web", "api"), file.one("db", "api"));
    // Who is in internal networks alone cannot have others asked, for a question is a message.
    let asked = file.sh("db", "nslookup example.org").1;
    assert!(!asked.contains("Name:"), "{asked}");
    let seen = file.0.ok(&["inspect"]);
    assert!(seen.contains("the-front") && seen.contains("sales"), "{seen}");
    file.0.down();
    assert_eq!(host.traces(), Vec::<String>::new());
}

const UNNAMED: &str = r#"
services:
  web: {image: ., healthcheck: {disable: false}}
  bare: {image: ., deploy: {replicas: 2}}
  told: {image: ./told, deploy: {replicas: 2}}
  mute: {image: ., command: [/bin/probe, echo, "5"], stop_signal: KILL, deploy: {replicas: 2}}
"#;

/// Most files leave ports between services to the images, and the containers.
fn ports_of_images(host: &mut Host<'_>, world: &World) {
    let file = File::new(world, host, "unnamed", UNNAMED);
    let bundle = file.0.bundle();
    let config = std::fs::read(bundle.join("config.json")).expect("a bundle");
    let mut config: serde_json::Value = serde_json::from_slice(&config).expect("JSON");
    config["root"]["path"] = bundle.join("rootfs").to_str().expect("UTF-8").into();
    config["annotations"] =
        serde_json::json!({"org.opencontainers.image.exposedPorts": "9/tcp,53/udp"});
    std::fs::create_dir(bundle.join("told")).expect("make a directory");
    std::fs::write(bundle.join("told/config.json"), config.to_string()).expect("write it");
    file.up(&[]).exits(0);
    // Nobody knows of a port, and none is listened on: its name leads to the replicas themselves.
    let addresses = |name: &str| BTreeSet::from_iter(file.addresses("web", name));
    assert_eq!((addresses("mute"), addresses("mute").len()), (addresses("tasks.mute"), 2));
    // Where nobody has said it the containers show it, also beside what the image says.
    for name in ["bare", "told"] {
        let replicas = file.addresses("web", &format!("tasks.{name}"));
        file.0.wait_for(name, || {
            let named = file.addresses("web", name);
            named.iter().all(|address| !replicas.contains(address))
                && file.asks("web", &format!("{name}:3000/")).is_some()
        });
    }
    // So its requests are balanced, and none is lost with a replica.
    kill("-KILL", &file.0.pids()[0]);
    for _ in 0..10 {
        assert!(file.asks("web", "bare:3000/").is_some());
    }
    // What was found stays when the project changes, and another data plane finds it again.
    let bare = format!("{}:3000/", file.one("web", "bare"));
    file.0.ok(&["scale", "bare=1", "mute=1"]);
    file.0.wait_for("one address", || file.addresses("web", "mute").len() == 1);
    assert!(file.asks("web", &bare).is_some());
    kill("-KILL", &file.0.role("plane").expect("a data plane"));
    file.0.wait_for("another data plane", || file.asks("web", &bare).is_some());
    file.0.down();
    assert_eq!(host.traces(), Vec::<String>::new());
}

const ADDRESSES: &str = r#"
services:
  web: {image: ., expose: [3000], networks: {front: {ipv4_address: 10.5.0.7}, back: }}
  api: {image: ., expose: [3000], deploy: {replicas: 2}, networks: {front: , back: {gw_priority: 1}}}
networks:
  front:
    driver_opts: {com.docker.network.driver.mtu: 1400}
    ipam: {config: [{subnet: 10.5.0.0/24, gateway: 10.5.0.254, ip_range: 10.5.0.64/27,
                     aux_addresses: {printer: 10.5.0.70}}]}
  back:
"#;

fn addresses_of_the_file(host: &mut Host<'_>, world: &World) {
    let file = File::new(world, host, "given", ADDRESSES);
    file.up(&[]).exits(0);
    let show = |service: &str, words: &str| file.sh(service, &format!("ip {words}")).1;
    let (eth0, eth1) = ("-o -4 addr show dev eth1", "-o link show dev eth1");
    assert!(show("web", eth0).contains("10.5.0.7/24"), "back is before front");
    assert!(show("web", eth1).contains("mtu 1400"));
    assert!(show("api", "route").contains("default via 10.7"), "{}", show("api", "route"));
    assert!(show("api", "-o -4 addr show dev eth1").contains("10.5.0."));
    let text = file.0.ok(&["exec", "web", "cat", "/etc/resolv.conf"]);
    assert!(text.starts_with("nameserver 10.7"), "{text}");
    let asked = file.sh("web", "nslookup tasks.api 10.5.0.254").1;
    assert!(asked.contains("Name:"), "DNS is at the gateway, too: {asked}");
    // Its own address, in every life.
    let old = file.0.pids();
    kill("-KILL", old.last().expect("web"));
    file.0.wait_for("another web", || {
        let new = file.0.pids();
        new.len() == 3 && new != old
    });
    assert!(show("web", eth0).contains("10.5.0.7/24"));
    file.write(&ADDRESSES.replace("expose: [3000], networks", "environment: {A: b}, networks"));
    file.up(&[]).exits(0);
    assert!(show("web", eth0).contains("10.5.0.7/24"), "stopped first, then started");
    file.0.minisup(&["scale", "web=2"]).fails("one address");
    for (wrong, message) in [
        ("subnet: 10.5.0.0/30", "is not between"),
        ("subnet: \"fd00::/64\"", "IPv6"),
        ("gateway: 10.5.0.7", "is the network's own"),
    ] {
        let key = wrong.split(':').next().expect("a key");
        let right = match key {
            "subnet" => {
                "subnet: 10.5.0.0/24, gateway: 10.5.0.254, ip_range: 10.5.0.64/27,\n                     aux_addresses: {printer: 10.5.0.70}"
            }
            _ => "gateway: 10.5.0.254",
        };
        let text = ADDRESSES.replace(right, wrong);
        let text =
            if key == "subnet" { text.replace("{ipv4_address: 10.5.0.7}", "") } else { text };
        assert_ne!(text, ADDRESSES);
        file.write(&text);
        file.up(&[]).fails(message);
    }
    file.0.down();
    assert_eq!(host.traces(), Vec::<String>::new());
}

/// Its containers are replaced, those of other networks stay, and both find each other meanwhile.
fn a_changed_network(host: &mut Host<'_>, world: &World) {
    host.outside();
    let file = File::new(world, host, "changed", WAYS);
    file.up(&[]).exits(0);
    let before = file.0.pids();
    let inner = WAYS.replace("shut: {internal: true}", "shut: {}");
    file.write(&inner);
    let plan = file.0.minisup(&["plan", "--file", file.path().to_str().expect("UTF-8")]).output;
    assert!(plan.contains("~ shut") && plan.contains("~ both"), "{plan}");
    assert!(plan.contains("  open: no change"), "{plan}");
    file.up(&[]).exits(0);
    let kept = || file.0.pids().into_iter().filter(|pid| before.contains(pid)).count();
    file.0.wait_for("other containers", || file.0.pids().len() == 3 && kept() == 1);
    assert_eq!(file.asks("shut", OUTSIDE).as_deref(), Some("192.0.2.1"));
    assert!(file.asks("shut", "both:3000/").is_some());
    file.0.wait_for("the old network's end", || links(host) == 2);
    // Labels and names are no part of it.
    file.write(&inner.replace("shut: {}", "shut: {labels: {a: b}, name: other}"));
    let pids = file.0.pids();
    file.up(&[]).exits(0);
    assert_eq!(file.0.pids(), pids);
    file.0.down();
    assert_eq!(host.traces(), Vec::<String>::new());
}

/// What all processes together leave when they are killed, the next command removes.
fn everything_is_killed(host: &mut Host<'_>, world: &World) {
    let file = File::new(world, host, "killed", WAYS);
    host.outside();
    file.up(&[]).exits(0);
    assert!(links(host) == 1);
    let pids = file.0.pids();
    kill_all(&file);
    // The namespace ends with its last descriptor, and takes the cable along.
    assert!(wait_until(|| links(host) == 0), "{:?}", host.traces());
    // The containers have lived on, and are connected again.
    file.up(&[]).exits(0);
    assert_eq!(file.0.pids(), pids);
    for (service, other) in [("open", "both"), ("shut", "both"), ("both", "shut")] {
        file.0.wait_for(other, || file.asks(service, &format!("{other}:3000/")).is_some());
    }
    assert_eq!(file.asks("both", OUTSIDE).as_deref(), Some("192.0.2.1"));
    assert_eq!(file.asks("shut", OUTSIDE), None);
    kill_all(&file);
    file.0.down();
    assert_eq!(host.traces(), Vec::<String>::new());
}

/// Kills keeper, brain and data plane.
fn kill_all(file: &File<'_>) {
    // The keeper first, or it would mend what is killed after it; then who was started meanwhile.
    let roles = ["keeper", "brain", "plane"];
    let gone = wait_until(|| {
        for role in roles {
            file.0.role(role).iter().for_each(|pid| kill("-KILL", pid));
        }
        roles.iter().all(|role| file.0.role(role).is_none())
    });
    assert!(gone);
}
