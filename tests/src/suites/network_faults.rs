//! Bad networks, with real traffic, whoever makes them: the kernel's `netem`, or a process where
//! the kernel does not have it. Every test has a host of its own.
//!
//! No test says how fast something must be, so none fails because the machine is busy: what must
//! be slow is, and what must get through does.

use rustix::process::{Pid, Signal, kill_process};

use super::network::{end, make, nothing_is_left};
use crate::call::{Ran, wait_until};
use crate::host::Host;
use crate::needs::Need;
use crate::programs;
use crate::world::World;
use crate::{Test, test};

pub(super) fn tests() -> Vec<Test> {
    let net = |name, body: fn(&mut Host<'_>, &World)| {
        let test = test(name, move |world: &World| body(&mut Host::new(world), world));
        ["ip", "nft", "nsenter"].into_iter().fold(test, |test, p| test.needs(Need::Program(p)))
    };
    let relayed = |name, body| net(name, body).needs(Need::NoNetem);
    vec![
        net("delays", delays),
        net("duplicates", duplicates),
        net("disorder", disorder),
        net("losses", losses),
        net("transfers_arrive_whole", transfers_arrive_whole),
        net("with_a_rate", with_a_rate),
        net("of_one_who_administers_its_network", of_one_who_administers_its_network),
        net("changed_and_taken_back", changed_and_taken_back),
        net("with_a_process", with_a_process),
        relayed("large_packets_pass_whole", large_packets_pass_whole),
        relayed("a_relay_that_is_killed", a_relay_that_is_killed),
        relayed("a_change_without_a_gap", a_change_without_a_gap),
        relayed("a_relay_ends_by_itself", a_relay_ends_by_itself),
        relayed("a_relay_that_hangs", a_relay_that_hangs),
        relayed("a_relay_without_its_interface", a_relay_without_its_interface),
        relayed("hosts_that_cannot", hosts_that_cannot),
    ]
}

fn fault(host: &Host<'_>, words: &[&str]) -> Ran {
    host.minirun(&["network", "fault"]).args(words).run()
}

/// Replaces the faults of `a`.
#[track_caller]
fn set(host: &Host<'_>, words: &[&str]) {
    fault(host, &[&["set", "a"], words].concat()).ok();
}

/// The times of the answers in milliseconds, and what ping has printed.
fn ping(host: &Host<'_>, address: &str, count: &str) -> (Vec<f64>, String) {
    let words = host.busybox(&["ping", "-c", count, "-i", "0.02", "-W", "5", address]).1;
    let times = words.lines().filter_map(|line| line.split_once("time=")?.1.split(' ').next());
    (times.map(|text| text.parse().expect("a time")).collect(), words)
}

#[track_caller]
fn takes_at_least(host: &Host<'_>, address: &str, ms: f64) {
    let (times, words) = ping(host, address, "4");
    assert!(!times.is_empty() && times.iter().all(|time| *time >= ms), "{words}");
}

fn answers(host: &Host<'_>, address: &str) -> bool {
    host.busybox(&["ping", "-c", "1", "-W", "1", address]).0
}

fn delays(host: &mut Host<'_>, _: &World) {
    make(host, "web", &["--subnet", "10.77.0.0/24", "--subnet", "fd77::/64"]);
    host.serve("a", &["--net", "web"]);
    let (four, six) = host.addresses("web", "a");
    // The first packets of a new address wait until nobody else has it.
    assert!(wait_until(|| answers(host, &four) && answers(host, &six)));
    for (words, at_least) in [
        (&["--delay", "60ms"][..], 120.0),
        (&["--delay", "60ms", "--jitter", "20ms"], 80.0),
        (&["--delay", "60ms", "--direction", "in"], 60.0),
        (&["--delay", "60ms", "--direction", "out"], 60.0),
    ] {
        set(host, words);
        takes_at_least(host, &four, at_least);
        takes_at_least(host, &six, at_least);
    }
    end(host, &["a"]);
}

fn duplicates(host: &mut Host<'_>, _: &World) {
    host.serve("a", &["--net", "bridge"]);
    let address = host.addresses("bridge", "a").0;
    for direction in ["in", "out"] {
        set(host, &["--duplicate", "100%", "--direction", direction]);
        let doubled = || ping(host, &address, "5").1.matches("DUP!").count();
        assert!(wait_until(|| doubled() >= 3), "nothing comes twice {direction}");
    }
    fault(host, &["clear", "a"]).ok();
    assert_eq!(ping(host, &address, "5").1.matches("DUP!").count(), 0);
    end(host, &["a"]);
}

fn disorder(host: &mut Host<'_>, _: &World) {
    host.serve("a", &["--net", "bridge"]);
    let address = host.addresses("bridge", "a").0;
    let is_in_order = || {
        let words = ping(host, &address, "20").1;
        let numbers = words.lines().filter_map(|line| line.split_once("seq=")?.1.split(' ').next());
        let numbers: Vec<u32> = numbers.map(|text| text.parse().expect("a number")).collect();
        assert!(numbers.len() > 2, "{words}");
        numbers.is_sorted()
    };
    for direction in ["in", "out"] {
        set(host, &["--delay", "300ms", "--reorder", "50%", "--direction", direction]);
        assert!(wait_until(|| !is_in_order()), "nothing overtakes {direction}");
    }
    fault(host, &["clear", "a"]).ok();
    assert!(is_in_order());
    end(host, &["a"]);
}

/// Of one direction; what the other one carries still comes.
fn losses(host: &mut Host<'_>, _: &World) {
    host.serve("a", &["--net", "bridge"]);
    let address = host.addresses("bridge", "a").0;
    let statistics = || host.minirun(&["network", "stats", "--json", "a"]).run().ok().json();
    let number = |of: &serde_json::Value| of.as_u64().expect("a number");
    assert!(answers(host, &address));
    set(host, &["--delay", "1ms", "--loss", "100%", "--direction", "out"]);
    let before = statistics();
    assert!(!answers(host, &address));
    let after = statistics();
    let came = |all: &serde_json::Value| number(&all[0]["traffic"]["received_packets"]);
    assert!(came(&after) > came(&before), "{before} {after}");
    set(host, &["--delay", "1ms", "--loss", "100%", "--direction", "in"]);
    let before = statistics();
    assert!(!answers(host, &address));
    let after = statistics();
    let dropped = |all: &serde_json::Value| number(&all[0]["shaped_drops"]);
    assert!(dropped(&after) > dropped(&before), "{before} {after}");
    end(host, &["a"]);
}

/// The sum of what the server at `at` sends, as `a` or as the host gets it.
#[track_caller]
fn sum(host: &Host<'_>, within: Option<&str>, at: &str) -> String {
    let busybox = match within {
        Some(_) => "/bin/busybox".to_owned(),
        None => programs::busybox().display().to_string(),
    };
    let script = format!("{busybox} wget -q -O - http://{at}:7000/data | {busybox} md5sum");
    let ran = match within {
        Some(container) => host.minirun(&["exec", container, "sh", "-c", &script]).run(),
        None => host.call("sh", &["-c", &script]).run(),
    };
    ran.ok().output
}

/// A connection that one side has closed and the other side's end has not heard of keeps its
/// namespace for minutes when the other side is gone: so all of them come to their ends first.
#[track_caller]
fn hang_up(host: &Host<'_>, containers: &[&str]) {
    const LISTENING: &str = "0A";
    const OVER: &str = "06";
    let is_over = |container: &&str| {
        let words = ["exec", container, "cat", "/proc/net/tcp", "/proc/net/tcp6"];
        let table = host.minirun(&words).run().ok().output;
        let states = table.lines().filter_map(|line| line.split_whitespace().nth(3));
        states.filter(|state| *state != "st").all(|state| [LISTENING, OVER].contains(&state))
    };
    assert!(wait_until(|| containers.iter().all(is_over)), "connections do not end");
}

/// Large packets pass whole, and come together again in their order.
fn transfers_arrive_whole(host: &mut Host<'_>, world: &World) {
    let wide = ["--subnet", "10.77.0.0/24", "--subnet", "fd77::/64", "--mtu", "9000"];
    make(host, "web", &wide);
    for name in ["a", "b"] {
        host.serve(name, &["--net", "web"]);
        let file = world.path(name).join("rootfs/www/data");
        // No two blocks are alike, so that none can stand for another.
        let numbers = (0..500_000_u64).map(|number| number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let bytes: Vec<u8> = numbers.flat_map(u64::to_le_bytes).collect();
        std::fs::write(file, bytes).expect("write what is sent");
    }
    let (a, b) = (host.addresses("web", "a"), host.addresses("web", "b"));
    let expected = sum(host, Some("b"), "127.0.0.1");
    let everything = ["--delay", "5ms", "--jitter", "4ms", "--duplicate", "5%", "--reorder", "10%"];
    for (words, at) in [
        (&everything[..], [&a.0, &b.0]),
        (&everything, [&a.1, &b.1]),
        (&["--delay", "1ms", "--duplicate", "100%"], [&a.0, &b.0]),
    ] {
        set(host, words);
        let [a, b] = at.map(|at| if at.contains(':') { format!("[{at}]") } else { at.clone() });
        assert_eq!(sum(host, Some("a"), &b), expected, "{words:?} into the container");
        assert_eq!(sum(host, Some("b"), &a), expected, "{words:?} out of the container");
        assert_eq!(sum(host, None, &a), expected, "{words:?} out of the container, to the host");
    }
    hang_up(host, &["a", "b"]);
    end(host, &["a", "b"]);
}

/// Both hold, in each direction.
fn with_a_rate(host: &mut Host<'_>, world: &World) {
    host.serve("a", &["--net", "bridge"]);
    host.serve("b", &["--net", "bridge"]);
    both_hold(host, world);
    end(host, &["a", "b"]);
}

#[track_caller]
fn both_hold(host: &Host<'_>, world: &World) {
    let address = |name| host.addresses("bridge", name).0;
    set(host, &["--delay", "30ms", "--rate", "8mbit"]);
    takes_at_least(host, &address("a"), 60.0);
    for (from, to) in [("b", "a"), ("a", "b")] {
        let file = world.path(from).join("rootfs/www/data");
        std::fs::write(file, vec![7; 2_000_000]).expect("write what is sent");
        let begun = std::time::Instant::now();
        sum(host, Some(to), &address(from));
        // One megabyte in a second; only a burst and what sockets hold are for nothing.
        let took = begun.elapsed();
        assert!(took.as_millis() > 1250, "{from} to {to} took {took:?}");
    }
    hang_up(host, &["a", "b"]);
}

/// It could remove what stands at its own end.
fn of_one_who_administers_its_network(host: &mut Host<'_>, world: &World) {
    let bundle = host.serving("a");
    let bundle = ["bounding", "effective", "permitted"].into_iter().fold(bundle, |bundle, set| {
        let path = format!("/process/capabilities/{set}/-");
        bundle.set(&path, serde_json::json!("CAP_NET_ADMIN"))
    });
    host.minirun(&["run", "-d", "--net", "bridge", bundle.path()]).run().exits(0);
    host.serve("b", &["--net", "bridge"]);
    assert!(wait_until(|| host.asks("a", "127.0.0.1:7000").is_some()));
    both_hold(host, world);
    // The queue is gone, and with it what waited there.
    fault(host, &["clear", "a"]).ok();
    assert!(wait_until(|| answers(host, &host.addresses("bridge", "a").0)));
    end(host, &["a", "b"]);
}

fn changed_and_taken_back(host: &mut Host<'_>, _: &World) {
    host.serve("a", &["--net", "bridge"]);
    let address = host.addresses("bridge", "a").0;
    let listed = || fault(host, &["ls"]).ok().output;
    set(host, &["--delay", "30ms", "--loss", "100%"]);
    assert!(!answers(host, &address));
    assert_eq!(listed().matches("latency=30ms,loss=100%").count(), 2, "{}", listed());
    set(host, &["--delay", "70ms", "--direction", "out"]);
    takes_at_least(host, &address, 70.0);
    assert_eq!(listed().matches("latency=").count(), 1, "{}", listed());
    assert!(listed().contains(" out "), "{}", listed());
    // At most one process and one interface are behind it.
    assert_eq!(host.relays().len(), host.interfaces("mt").len());
    fault(host, &["clear", "a"]).ok();
    assert_eq!((host.relays(), host.interfaces("mt")), (vec![], vec![]));
    assert_eq!(listed().lines().count(), 1, "{}", listed());
    assert!(answers(host, &address));
    end(host, &["a"]);
}

/// A fault ends with the process that it is tied to; the next command has seen it. Another host's
/// container that has the same address does not come between.
fn with_a_process(host: &mut Host<'_>, world: &World) {
    let other = Host::new(world);
    other.serve("before", &["--net", "bridge"]);
    host.serve("a", &["--net", "bridge"]);
    let address = host.addresses("bridge", "a").0;
    assert_eq!(other.addresses("bridge", "before").0, address);
    fault(host, &["set", "a", "--loss", "1%", "--until-exit", "x"]).fails("no such process");
    let process = host.call("sleep", &["1000"]).spawn();
    let pid = process.pid().as_raw_nonzero().to_string();
    set(host, &["--delay", "1ms", "--loss", "100%", "--until-exit", &pid]);
    assert!(!answers(host, &address));
    assert_eq!(fault(host, &["ls"]).ok().output.lines().count(), 3);
    process.signal(Signal::KILL);
    process.wait();
    assert_eq!(fault(host, &["ls"]).ok().output.lines().count(), 1);
    assert!(wait_until(|| answers(host, &address)), "the loss has stayed");
    assert_eq!(host.relays(), Vec::<i32>::new());
    end(host, &["a"]);
    end(&other, &["before"]);
}

/// The one relay of this host, as minirun shows it too.
#[track_caller]
fn relay(host: &Host<'_>) -> Pid {
    let [pid] = host.relays()[..] else { panic!("not one: {:?}", host.relays()) };
    let seen = host.minirun(&["network", "inspect", "bridge"]).run().ok().json();
    let expected = serde_json::json!({"pid": pid, "alive": true});
    assert_eq!(seen["containers"][0]["relay"], expected);
    let listed = fault(host, &["ls"]).ok().output;
    assert!(listed.contains(&format!("(by process {pid})")), "{listed}");
    Pid::from_raw(pid).expect("a process")
}

/// What the relay reads is larger than what a cable carries.
fn large_packets_pass_whole(host: &mut Host<'_>, world: &World) {
    for name in ["a", "b"] {
        host.serve(name, &["--net", "bridge"]);
    }
    let file = world.path("b").join("rootfs/www/data");
    std::fs::write(file, vec![7; 4_000_000]).expect("write what is sent");
    set(host, &["--delay", "1ms", "--direction", "in"]);
    sum(host, Some("a"), &host.addresses("bridge", "b").0);
    let [tap] = &host.interfaces("mt")[..] else { panic!("{:?}", host.interfaces("mt")) };
    let seen = host.call("ip", &["-s", "-j", "link", "show", "dev", tap]).run().ok().json();
    let number = |key: &str| seen[0]["stats64"]["tx"][key].as_u64().expect("a number");
    assert!(number("bytes") > 4_000_000, "{seen}");
    assert!(number("bytes") / number("packets") > 1514, "{seen}");
    hang_up(host, &["a", "b"]);
    end(host, &["a", "b"]);
}

/// What a program that was left would do shows in the ping: it would lead packets to an interface
/// that is not there.
#[track_caller]
fn flows_as_usual(host: &Host<'_>, address: &str) {
    assert!(wait_until(|| answers(host, address)), "packets do not get through");
    assert_eq!(ping(host, address, "3").0.len(), 3);
    assert_eq!((host.relays(), host.interfaces("mt")), (vec![], vec![]));
}

fn a_relay_that_is_killed(host: &mut Host<'_>, _: &World) {
    host.serve("a", &["--net", "bridge"]);
    let address = host.addresses("bridge", "a").0;
    let all_lost = ["--delay", "1ms", "--loss", "100%"];
    set(host, &all_lost);
    let first = relay(host);
    assert_eq!(host.interfaces("mt").len(), 2);
    assert!(!answers(host, &address));
    kill_process(first, Signal::KILL).expect("kill it");
    flows_as_usual(host, &address);
    // That is shown, and stays so until something else is wanted.
    for _ in 0..2 {
        let listed = fault(host, &["ls"]).ok().output;
        assert_eq!(listed.matches("(over: process").count(), 2, "{listed}");
    }
    let seen = host.minirun(&["network", "inspect", "bridge"]).run().ok().json();
    assert_eq!(seen["containers"][0]["relay"]["alive"], false);
    assert_eq!(host.relays(), Vec::<i32>::new());
    set(host, &all_lost);
    assert_ne!(relay(host), first);
    assert!(!answers(host, &address));
    // The same again is no reason to begin anew.
    let same = relay(host);
    set(host, &all_lost);
    assert_eq!(relay(host), same);
    kill_process(same, Signal::TERM).expect("end it");
    flows_as_usual(host, &address);
    fault(host, &["clear", "a"]).ok();
    assert_eq!(fault(host, &["ls"]).ok().output.lines().count(), 1);
    end(host, &["a"]);
}

/// While one relay goes and the next one comes, not one packet passes by.
fn a_change_without_a_gap(host: &mut Host<'_>, _: &World) {
    host.serve("a", &["--net", "bridge"]);
    let address = host.addresses("bridge", "a").0;
    set(host, &["--delay", "1ms", "--loss", "100%"]);
    let busybox = programs::busybox();
    let pinging =
        host.call(busybox.to_str().expect("UTF-8"), &["ping", "-i", "0.01", &address]).spawn();
    let mut seen = std::collections::BTreeSet::new();
    for round in 2..10 {
        set(host, &["--delay", &format!("{round}ms"), "--loss", "100%"]);
        seen.insert(relay(host).as_raw_nonzero());
    }
    assert!(seen.len() == 8 && pinging.is_alive(), "{seen:?}");
    pinging.signal(Signal::INT);
    let pinged = pinging.wait();
    assert!(pinged.output.contains(" 0 packets received"), "{pinged:?}");
    fault(host, &["clear", "a"]).ok();
    flows_as_usual(host, &address);
    end(host, &["a"]);
}

/// No command of minirun is needed for it.
fn a_relay_ends_by_itself(host: &mut Host<'_>, _: &World) {
    host.serve("a", &["--net", "bridge"]);
    let address = host.addresses("bridge", "a").0;
    let process = host.call("sleep", &["1000"]).spawn();
    let pid = process.pid().as_raw_nonzero().to_string();
    set(host, &["--delay", "1ms", "--loss", "100%", "--until-exit", &pid]);
    relay(host);
    process.signal(Signal::KILL);
    process.wait();
    flows_as_usual(host, &address);
    set(host, &["--delay", "1ms"]);
    relay(host);
    let seen = host.minirun(&["state", "a"]).run().ok().json();
    let init = seen["pid"].as_i64().and_then(|pid| i32::try_from(pid).ok()).expect("a process");
    kill_process(Pid::from_raw(init).expect("a process"), Signal::KILL).expect("kill it");
    assert!(wait_until(|| host.relays().is_empty()), "it has stayed without its container");
    assert!(wait_until(|| host.interfaces("mt").is_empty()));
    end(host, &["a"]);
}

/// One that does nothing any more cannot end by itself.
fn a_relay_that_hangs(host: &mut Host<'_>, _: &World) {
    host.serve("a", &["--net", "bridge"]);
    let address = host.addresses("bridge", "a").0;
    set(host, &["--delay", "1ms"]);
    kill_process(relay(host), Signal::STOP).expect("stop it");
    assert!(!answers(host, &address));
    fault(host, &["clear", "a"]).ok();
    flows_as_usual(host, &address);
    set(host, &["--delay", "1ms"]);
    kill_process(relay(host), Signal::STOP).expect("stop it");
    host.minirun(&["delete", "--force", "a"]).run().ok();
    nothing_is_left(host);
    assert!(wait_until(|| host.relays().is_empty()), "{:?}", host.relays());
}

/// Somebody removes the interface that packets are led to.
fn a_relay_without_its_interface(host: &mut Host<'_>, _: &World) {
    host.serve("a", &["--net", "bridge"]);
    let address = host.addresses("bridge", "a").0;
    set(host, &["--delay", "1ms"]);
    relay(host);
    let tap = host.interfaces("mt").first().cloned().expect("a tap");
    host.call("ip", &["link", "del", &tap]).run().ok();
    flows_as_usual(host, &address);
    end(host, &["a"]);
}

/// Both ways are named, and nothing is changed.
fn hosts_that_cannot(host: &mut Host<'_>, world: &World) {
    host.serve("a", &["--net", "bridge"]);
    let address = host.addresses("bridge", "a").0;
    let (minirun, root) = (programs::minirun(), world.root());
    let set = format!(
        "mount -t tmpfs none /dev/net && {} --root {} network fault set a --delay 1s",
        minirun.display(),
        root.display()
    );
    let arguments = ["--mount", "--propagation", "private", "sh", "-c", &set];
    let ran = host.call("unshare", &arguments).run().fails("CONFIG_NET_SCH_NETEM");
    ran.says("CONFIG_NET_XGRESS").says("/dev/net/tun");
    assert_eq!(fault(host, &["ls"]).ok().output.lines().count(), 1);
    flows_as_usual(host, &address);
    end(host, &["a"]);
}
