//! Networks, with real traffic. Every test has a host of its own.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::call::wait_until;
use crate::host::Host;
use crate::needs::Need;
use crate::world::World;
use crate::{Test, test};

pub(super) fn tests() -> Vec<Test> {
    let net = |name, body: fn(&mut Host<'_>, &World)| {
        let test = test(name, move |world: &World| body(&mut Host::new(world), world));
        ["ip", "nft", "nsenter"].into_iter().fold(test, |test, p| test.needs(Need::Program(p)))
    };
    vec![
        net("those_who_do_not_ask", those_who_do_not_ask),
        net("hosts_that_cannot", hosts_that_cannot).needs(Need::Program("setpriv")),
        net("neighbours_and_strangers", neighbours_and_strangers),
        net("masquerade", masquerade),
        net("published_ports", published_ports),
        net("ports_that_are_taken", ports_that_are_taken),
        net("rates", rates),
        net("namespaces_of_others", namespaces_of_others),
        net("faults", faults),
        net("words_that_make_no_sense", words_that_make_no_sense),
        net("other_firewalls", other_firewalls).needs(Need::Program("iptables-legacy")),
        net("killed_at_any_moment", killed_at_any_moment),
        net("again_and_again", again_and_again),
        net("many_at_once", many_at_once),
    ]
}

/// More of it, with `MINIRUN_TESTS_ALL=1`.
fn rounds(usual: usize, all: usize) -> usize {
    if std::env::var_os("MINIRUN_TESTS_ALL").is_some() { all } else { usual }
}

pub(super) fn make(host: &Host<'_>, name: &str, options: &[&str]) {
    host.minirun(&["network", "create", name]).args(options).run().ok();
}

/// Ends these containers; after `prune` nothing is left of any.
#[track_caller]
pub(super) fn end(host: &Host<'_>, containers: &[&str]) {
    for id in containers {
        host.minirun(&["delete", "--force", id]).run().ok();
    }
    nothing_is_left(host);
}

#[track_caller]
pub(super) fn nothing_is_left(host: &Host<'_>) {
    // A network namespace ends some moments after its last process, and takes the cables along.
    let gone = wait_until(|| {
        host.minirun(&["network", "prune"]).run().exits(0);
        host.traces().is_empty()
    });
    assert!(gone, "{:?}", host.traces());
}

/// The interfaces that a container tells of; some kernels give every namespace ends of tunnels.
fn interfaces(output: &str) -> BTreeSet<String> {
    let names = output.split_whitespace().map(str::to_owned);
    names.filter(|name| ["lo", "eth0", "uplink"].contains(&name.as_str())).collect()
}

const TELL: &str = "cut -d: -f1 /proc/net/dev | tail -n +3";

fn names(all: &[&str]) -> BTreeSet<String> {
    all.iter().map(|name| (*name).to_owned()).collect()
}

/// `run BUNDLE` connects; engines, and configurations with a network of somebody else's, are left
/// alone.
fn those_who_do_not_ask(host: &mut Host<'_>, world: &World) {
    let plain = world.bundle("plain").shell(TELL);
    let ask = |variable: &str, words: &[&str]| {
        host.minirun(&["run"]).args(words).env("MINIRUN_NET", variable).run()
    };
    let first = ask("", &["--explain", plain.path()]).exits(0);
    assert_eq!(interfaces(&first.output), names(&["eth0", "lo"]), "{first:?}");
    // The host did not forward before, and that is told and shown.
    let changed = "net/ipv4/ip_forward was 0, is 1";
    assert!(first.errors.matches(changed).count() == 1, "{first:?}");
    assert!(first.errors.contains("is there a network"), "{first:?}");
    let second = ask("", &[plain.path()]).ok();
    assert_eq!(interfaces(&second.output), names(&["eth0", "lo"]));
    let hosts = world.bundle("hosts").args(&["cat", "/etc/hosts"]);
    let said = ask("", &["--add-host", "db:10.9.9.9", hosts.path()]).ok().output;
    assert!(said.contains("10.9.9.9\tdb") && said.contains("10.112.0."), "{said}");

    let engine = ["--bundle", plain.path(), "engine"];
    let hook = serde_json::json!([{"path": "/bin/true"}]);
    let hooked = world.bundle("hooked").shell(TELL).set("/hooks", serde_json::json!({}));
    let hooked = hooked.set("/hooks/createRuntime", hook);
    let shared = world.bundle("shared").shell(TELL).without_namespace("network");
    for (variable, words, expected) in [
        ("", &engine[..], &["lo"][..]),
        ("", &["--net", "none", plain.path()], &["lo"]),
        ("none", &[plain.path()], &["lo"]),
        ("bridge", &[plain.path()], &["eth0", "lo"]),
        ("none", &["--net", "bridge", plain.path()], &["eth0", "lo"]),
        ("", &[hooked.path()], &["lo"]),
        ("bridge", &[hooked.path()], &["lo"]),
        ("", &[shared.path()], &["lo"]),
    ] {
        let ran = ask(variable, words).ok();
        assert_eq!(interfaces(&ran.output), names(expected), "{variable:?} {words:?}");
    }
    ask("x:y", &[plain.path()]).fails("MINIRUN_NET");
    ask("", &["--dns", "10.0.0.1", "--bundle", plain.path(), "c"]).fails("need a --net");
    nothing_is_left(host);
}

/// What is missing is told in one line, and the container runs without a network.
fn hosts_that_cannot(host: &mut Host<'_>, world: &World) {
    // In a user namespace of its own it needs no capability of the host's for its loopback.
    let map = serde_json::json!([{"containerID": 0, "hostID": 0, "size": 65_536}]);
    let mapped = world.bundle("mapped").shell(TELL).set("/linux/uidMappings", map.clone());
    let mapped = mapped.set("/linux/gidMappings", map);
    let mapped = mapped.set("/linux/namespaces/-", serde_json::json!({"type": "user"}));
    let plain = world.bundle("c").shell(TELL);
    let (minirun, root) = (crate::programs::minirun(), world.root());
    let run = format!("{} --root {} run", minirun.display(), root.display());
    // Each in a mount namespace of its own, where it breaks something first.
    let without = |what: &str, words: &str| {
        let bundle = if what.starts_with("setpriv") { &mapped } else { &plain };
        let script = format!("{what} {run} {words} {}", bundle.path());
        let arguments = ["--mount", "--propagation", "private", "sh", "-c", &script];
        host.call("unshare", &arguments).env("MINIRUN_NET", "").run()
    };
    let read_only = "mount --bind DIR DIR && mount -o remount,bind,ro DIR && ";
    let no_forwarding = read_only.replace("DIR", "/proc/sys");
    let no_state = read_only.replace("DIR", "/var/lib");
    let no_capability = "setpriv --bounding-set -net_admin --inh-caps -net_admin";
    for (what, missing) in [
        (no_forwarding.as_str(), "ip_forward"),
        (&no_state, "/var/lib/minirun"),
        (no_capability, "CAP_NET_ADMIN"),
        ("PATH=/nowhere", "nft in PATH"),
    ] {
        let ran = without(what, "").exits(0).says(missing).says("the container has no network");
        assert_eq!(interfaces(&ran.output), names(&["lo"]), "{what}");
        assert_eq!(ran.errors.lines().count(), 1, "{what}: {}", ran.errors);
        assert_eq!(host.traces(), Vec::<String>::new(), "{what}");
        // Who asks gets an error.
        without(what, "--net bridge").exits(1).says("minirun: ");
        without(what, "--dns 10.0.0.1").fails(missing);
        nothing_is_left(host);
    }
}

fn neighbours_and_strangers(host: &mut Host<'_>, _: &World) {
    make(host, "web", &["--subnet", "10.77.0.0/24", "--subnet", "fd77::/64"]);
    make(host, "db", &["--subnet", "10.78.0.0/24", "--subnet", "fd78::/64"]);
    host.serve("a", &["--net", "web"]);
    host.serve("b", &["--net", "web"]);
    host.serve("stranger", &["--net", "db"]);
    host.serve("both", &["--net", "web:interface=front", "--net", "db:ip=10.78.0.50"]);
    let (four, six) = host.addresses("web", "a");
    let at = |four: &str, six: &str| [format!("{four}:7000"), format!("[{six}]:7000")];
    for asking in ["b", "both"] {
        let (own_four, own_six) = host.addresses("web", asking);
        let seen = at(&four, &six).map(|at| host.asks(asking, &at).expect("a neighbour"));
        assert_eq!(seen, [own_four, own_six], "{asking}");
    }
    for at in at(&four, &six) {
        assert_eq!(host.asks("stranger", &at), None, "{at} from another network");
    }
    let (four, six) = host.addresses("db", "stranger");
    for at in at(&four, &six) {
        assert_eq!(host.asks("a", &at), None, "{at} from another network");
    }
    let own = host.addresses("db", "both").0;
    assert_eq!(own, "10.78.0.50");
    assert_eq!(host.asks("both", &format!("{four}:7000")), Some(own));
    let interfaces = host.minirun(&["exec", "both", "ls", "/sys/class/net"]).run().ok().output;
    let interfaces: BTreeSet<&str> = interfaces.split_whitespace().collect();
    assert!(interfaces.is_superset(&["front", "eth1", "lo"].into()), "{interfaces:?}");
    end(host, &["a", "b", "stranger", "both"]);
}

fn masquerade(host: &mut Host<'_>, _: &World) {
    host.outside();
    make(host, "inside", &["--internal"]);
    host.serve("a", &["--net", "bridge"]);
    host.serve("closed", &["--net", "inside"]);
    let seen = || host.asks("a", "192.0.2.2:7000");
    assert!(wait_until(|| seen().is_some()), "the machine outside was not reached");
    assert_eq!(seen().as_deref(), Some("192.0.2.1"));
    assert_eq!(host.asks("closed", "192.0.2.2:7000"), None);
    end(host, &["a", "closed"]);
}

fn published_ports(host: &mut Host<'_>, world: &World) {
    let outside = host.outside().to_string();
    let bundle = host.serving("a");
    let ports = ["-p", "8080:7000", "-p", "9000-9001:7000"];
    let run = [&["--debug", "run", "-d"], &ports[..], &[bundle.path()]].concat();
    let ran = host.minirun(&run).run().exits(0);
    let from_outside = |port: u16| {
        let url = format!("http://192.0.2.1:{port}/cgi-bin/who");
        let there = world.program("nsenter").args(&["-t", &outside, "--net"]);
        let busybox = crate::programs::busybox();
        let asked = [busybox.to_str().expect("UTF-8"), "wget", "-q", "-O", "-", &url];
        there.args(&asked).run()
    };
    assert!(wait_until(|| from_outside(8080).status == 0), "nobody answers");
    // Without nft_socket the address is lost, and minirun says so.
    let seen = from_outside(8080).ok().output;
    if !ran.errors.contains("nft_socket") {
        assert_eq!(seen.trim(), "192.0.2.2");
    }
    from_outside(9000).ok();
    host.minirun(&["delete", "--force", "a"]).run().ok();
    assert!(wait_until(|| from_outside(8080).status != 0), "the port is still open");
    nothing_is_left(host);
}

fn ports_that_are_taken(host: &mut Host<'_>, _: &World) {
    host.serve("a", &["--net", "bridge", "-p", "8080:7000"]);
    let second = host.serving("b");
    let ran = host.minirun(&["run", "-d", "-p", "8080:7000", second.path()]).run();
    ran.fails("8080").says("is taken by minirun-ports");
    assert_eq!(host.minirun(&["list", "-q"]).run().ok().output, "a\n");
    end(host, &["a"]);
}

fn rates(host: &mut Host<'_>, world: &World) {
    host.serve("slow", &["--net", "bridge", "--net-rate", "in=8mbit,out=16mbit"]);
    host.serve("b", &["--net", "bridge"]);
    for (from, to, at_least) in [("b", "slow", 2500), ("slow", "b", 1250)] {
        let file = world.path(from).join("rootfs/www/data");
        std::fs::write(file, vec![7; 3_000_000]).expect("write what is sent");
        let url = format!("http://{}:7000/data", host.addresses("bridge", from).0);
        let script = format!("wget -q -O - {url} | wc -c");
        let begun = Instant::now();
        host.minirun(&["exec", to, "sh", "-c", &script]).run().ok().prints("3000000\n");
        // One and two megabytes in a second; only a burst and what sockets hold are for nothing.
        let took = begun.elapsed();
        assert!(took > Duration::from_millis(at_least), "{from} to {to} took {took:?}");
    }
    let all = host.minirun(&["network", "stats", "--json", "slow"]).run().ok().json();
    assert!(all[0]["traffic"]["received_bytes"].as_u64() > Some(3_000_000), "{all}");
    assert!(all[0]["shaped_waits"].as_u64() > Some(0), "{all}");
    let table = host.minirun(&["network", "stats"]).run().ok().output;
    assert!(table.lines().any(|line| line.starts_with("slow ")), "{table}");
    end(host, &["slow", "b"]);
}

fn namespaces_of_others(host: &mut Host<'_>, world: &World) {
    let outside = host.outside();
    host.serve("a", &["--net", "bridge"]);
    let interfaces = |name: &str, mode: &str| {
        let bundle = world.bundle(name).shell(TELL);
        interfaces(&host.minirun(&["run", "--net", mode, bundle.path()]).run().ok().output)
    };
    let of = names;
    assert_eq!(interfaces("none", "none"), of(&["lo"]));
    assert_eq!(interfaces("host", "host"), of(&["lo", "uplink"]));
    assert_eq!(interfaces("other", "container:a"), of(&["eth0", "lo"]));
    assert_eq!(interfaces("path", &format!("ns:/proc/{outside}/ns/net")), of(&["eth0", "lo"]));
    // The very same one, not one like it.
    let bundle = world.bundle("same").shell("wget -q -O - http://127.0.0.1:7000/cgi-bin/who");
    let ran = host.minirun(&["run", "--net", "container:a", bundle.path()]).run();
    ran.ok().prints("127.0.0.1\n");
    let gone = host.minirun(&["run", "--net", "container:nobody", bundle.path()]).run();
    gone.fails("nobody");
    end(host, &["a"]);
}

/// Those that the packet filter can do; see also the suite `network_faults`.
fn faults(host: &mut Host<'_>, _: &World) {
    host.serve("a", &["--net", "bridge"]);
    let address = host.addresses("bridge", "a").0;
    let ping = || host.busybox(&["ping", "-c", "2", "-W", "1", &address]);
    let fault = |words: &[&str]| host.minirun(&["network", "fault"]).args(words).run();
    let inspected = || host.minirun(&["network", "inspect", "bridge"]).run().ok().json();
    assert!(ping().0);
    fault(&["set", "a", "--loss", "100%", "--direction", "in"]).ok();
    assert!(!ping().0, "nothing is lost");
    let list = fault(&["ls"]).ok().output;
    assert!(list.contains("loss=100%") && list.lines().count() == 2, "{list}");
    let shown = inspected()["containers"][0]["fault"]["in"]["loss_ppm"].clone();
    assert_eq!(shown, 1_000_000);
    fault(&["clear", "a"]).ok();
    assert!(wait_until(|| ping().0), "the loss has stayed");
    assert_eq!(inspected()["containers"][0].get("fault"), None);
    fault(&["set", "a", "--rate", "10mbit"]).ok();
    // It goes with its container.
    host.minirun(&["delete", "--force", "a"]).run().ok();
    assert!(wait_until(|| fault(&["ls"]).ok().output.lines().count() == 1));
    nothing_is_left(host);
}

/// One that minirun cannot read is named, and what it says then lets the packets pass.
fn other_firewalls(host: &mut Host<'_>, _: &World) {
    host.outside();
    host.call("iptables-legacy", &["-P", "FORWARD", "DROP"]).run().exits(0);
    let bundle = host.serving("a");
    let run = ["--debug", "run", "-d", "--net", "bridge", bundle.path()];
    let ran = host.minirun(&run).run().exits(0);
    let remedy = ran.errors.lines().find_map(|line| line.split_once("packets: "));
    for line in remedy.expect("a warning with a remedy").1.split("; ") {
        let (program, words) = line.split_once(' ').expect("a command");
        assert_eq!(program, "iptables-legacy");
        host.call(program, &words.split(' ').collect::<Vec<_>>()).run().exits(0);
    }
    assert!(wait_until(|| host.asks("a", "192.0.2.2:7000").is_some()), "the remedy does not help");
    end(host, &["a"]);
}

fn words_that_make_no_sense(host: &mut Host<'_>, world: &World) {
    let bundle = world.bundle("c").args(&["true"]);
    for (words, expected) in [
        (&["--net", "nowhere"][..], "nowhere"),
        (&["--net", "bridge", "--add-host", "x"], "x"),
        (&["--net", "none", "--add-host", "x:10.0.0.1"], "--add-host"),
        (&["--net", "bridge", "--add-host", "x:10.0.0"], "10.0.0"),
        (&["--net", "none", "-p", "80:80"], "publish"),
        (&["--net", "bridge", "--net-rate", "in=5mbps"], "mbps"),
    ] {
        let ran = host.minirun(&["run"]).args(words).args(&[bundle.path()]).run();
        ran.fails(expected);
    }
    let fault = |words: &[&str]| host.minirun(&["network", "fault", "set"]).args(words).run();
    fault(&["nobody", "--loss", "1%"]).fails("nobody");
    fault(&["nobody"]).fails("--loss");
    fault(&["nobody", "--reorder", "1%"]).fails("delay");
    nothing_is_left(host);
}

/// The numbers are spread, not random: a failure can be repeated.
fn killed_at_any_moment(host: &mut Host<'_>, world: &World) {
    let bundle = world.bundle("c").args(&["/bin/probe", "wait"]);
    let run = ["run", "--net", "bridge", "-p", "8080:7000", bundle.path()];
    let begun = Instant::now();
    let running = host.minirun(&run).spawn();
    running.wait_for("waiting");
    let whole = begun.elapsed();
    running.signal(Signal::KILL);
    running.wait();
    host.minirun(&["delete", "--force", "c"]).run().ok();
    let count = u32::try_from(rounds(15, 200)).expect("small");
    for round in 0..count {
        let running = host.minirun(&run).spawn();
        std::thread::sleep(whole * round / count);
        running.signal(Signal::KILL);
        running.wait();
        host.minirun(&["delete", "--force", "c"]).run().ok();
        let left = world.what_is_left();
        assert!(left.is_empty(), "round {round}: {left:?}");
    }
    nothing_is_left(host);
}

fn again_and_again(host: &mut Host<'_>, world: &World) {
    let bundle = world.bundle("c").args(&["true"]);
    let (count, begun) = (rounds(15, 1000), Instant::now());
    for _ in 0..count {
        host.minirun(&["run", "--net", "bridge", bundle.path()]).run().exits(0);
    }
    eprintln!("network: {count} starts and ends in {:.1?}", begun.elapsed());
    nothing_is_left(host);
}

fn many_at_once(host: &mut Host<'_>, world: &World) {
    let names: Vec<String> = (0..rounds(12, 200)).map(|number| format!("c{number}")).collect();
    let started = names.iter().map(|name| {
        let bundle = world.bundle(name).args(&["/bin/probe", "wait"]);
        host.minirun(&["run", "-d", "--net", "bridge", bundle.path()]).spawn()
    });
    let begun = Instant::now();
    let started: Vec<_> = started.collect();
    for running in started {
        running.wait().exits(0);
    }
    eprintln!("network: {} at once run after {:.1?}", names.len(), begun.elapsed());
    let seen = host.minirun(&["network", "inspect", "bridge"]).run().ok().json();
    let all = seen["containers"].as_array().expect("containers");
    let given: BTreeSet<_> = all.iter().map(|one| one["ipv4"].as_str()).collect();
    assert_eq!((all.len(), given.len()), (names.len(), names.len()), "{seen}");
    end(host, &names.iter().map(String::as_str).collect::<Vec<_>>());
}
