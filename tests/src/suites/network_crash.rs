//! `kill -9` of minirun at every one of its system calls, with networks.
//!
//! As in [`super::crash`], strace(1) kills the program at its nth call, on a host of the test's own.
//! Whatever n is: the next commands work, nobody gets an address twice, and after `network prune` no
//! interface, rule, lease, record, network or process is left. A sample of the calls by default,
//! all of them with `MINIRUN_TESTS_ALL=1`.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use super::crash::spread;
use crate::call::{Ran, length_of_loop, wait_until};
use crate::host::Host;
use crate::needs::Need;
use crate::world::World;
use crate::{Test, programs, test};

/// How long the calls of one command are tried.
const LENGTH: Duration = Duration::from_secs(8);

pub(super) fn tests() -> Vec<Test> {
    let crash = |name, body: fn(&mut Scene<'_>)| {
        let test = test(name, move |world: &World| body(&mut Scene::new(world)));
        let programs = ["strace", "ip", "nft", "nsenter"];
        programs.into_iter().fold(test, |test, program| test.needs(Need::Program(program)))
    };
    vec![
        crash("run_on_a_bare_host", run_on_a_bare_host),
        crash("run_beside_another", run_beside_another),
        crash("run_without_a_word", run_without_a_word),
        crash("delete", delete),
        crash("create_a_network", create_a_network),
        crash("remove_a_network", remove_a_network),
        crash("prune", prune),
        crash("set_a_fault", set_a_fault),
        crash("clear_a_fault", clear_a_fault),
        crash("set_a_delay", set_a_delay),
        crash("change_a_delay", change_a_delay),
        crash("clear_a_delay", clear_a_delay),
    ]
}

/// A host, and a command on it that is killed again and again.
struct Scene<'a> {
    host: Host<'a>,
    world: &'a World,
    bundle: String,
}

impl<'a> Scene<'a> {
    fn new(world: &'a World) -> Self {
        let bundle = world.bundle("c").args(&["/bin/probe", "exit", "0"]).path().to_owned();
        Self { host: Host::new(world), world, bundle }
    }

    fn minirun(&self, arguments: &[&str]) -> Ran {
        self.host.minirun(arguments).env("MINIRUN_NET", "").run()
    }

    /// A container that runs until it is deleted.
    fn start(&self, id: &str, options: &[&str]) {
        let name = format!("waiting-{id}");
        let path = self.world.path(&name);
        if !path.exists() {
            self.world.bundle(&name).args(&["/bin/probe", "wait"]);
        }
        let bundle = path.to_str().expect("UTF-8");
        let run = [&["run", "-d", "--name", id][..], options, &[bundle]].concat();
        self.minirun(&run).exits(0);
    }

    /// The command under strace, with these options.
    fn traced(&self, options: &[&str], arguments: &[&str]) -> Ran {
        let (minirun, root) = (programs::minirun(), self.world.root());
        let minirun = [minirun.to_str().expect("UTF-8"), "--root", root.to_str().expect("UTF-8")];
        let all = [options, &minirun, arguments].concat();
        self.host.call("strace", &all).env("MINIRUN_NET", "").run()
    }

    /// Kills `call` at its system calls. `before` makes the same situation each time; `after` looks
    /// whether all is well, and returns to where nothing but what is always there is.
    fn play(&self, call: &[&str], before: &dyn Fn(&Self), after: &dyn Fn(&Self)) {
        let log = self.world.path("strace");
        before(self);
        let whole = self.traced(&["-qq", "-o", log.to_str().expect("UTF-8")], call);
        assert_eq!(whole.status, 0, "without a crash: {whole:?}");
        after(self);
        let text = std::fs::read_to_string(log).expect("a trace");
        let length = text.lines().filter(|line| line.contains('(')).count();
        let all = std::env::var_os("MINIRUN_TESTS_ALL").is_some();
        let (begun, mut tried) = (Instant::now(), 0);
        for number in spread(length) {
            if !all && tried >= 4 && begun.elapsed() > length_of_loop(LENGTH) {
                break;
            }
            before(self);
            let inject = format!("inject=all:signal=KILL:when={number}");
            let ran = self.traced(&["-qq", "-o", "/dev/null", "-e", &inject], call);
            // strace ends as its program did.
            assert!([1009, 137, 0].contains(&ran.status), "{number}: {ran:?}");
            let told = Told(number, length);
            after(self);
            drop(told);
            tried += 1;
        }
        eprintln!("crash: {call:?}: killed at {tried} of {length} system calls");
    }

    fn delete(&self, id: &str) {
        self.minirun(&["delete", "--force", id]).ok();
    }

    #[track_caller]
    fn nothing_is_left(&self) {
        let left = self.world.what_is_left();
        assert!(left.is_empty(), "{left:?}");
        self.only_this_is_left(&(Vec::new(), Vec::new()));
    }

    /// A network namespace ends some moments after its last process, and takes its cable along.
    #[track_caller]
    fn only_this_is_left(&self, expected: &(Vec<String>, Vec<i32>)) {
        let same = wait_until(|| {
            self.minirun(&["network", "prune"]).exits(0);
            self.what_is_there() == *expected
        });
        assert!(same, "{:?}, not {expected:?}", self.what_is_there());
    }

    fn what_is_there(&self) -> (Vec<String>, Vec<i32>) {
        (self.host.traces(), self.host.processes_of_minirun())
    }

    /// The addresses that containers have; each must be one of a kind.
    #[track_caller]
    fn addresses(&self, network: &str) -> BTreeSet<String> {
        let seen = self.minirun(&["network", "inspect", network]).ok().json();
        let all = seen["containers"].as_array().expect("containers");
        let text = |one: &serde_json::Value| one["ipv4"].as_str().expect("an address").to_owned();
        let given: BTreeSet<String> = all.iter().map(text).collect();
        assert_eq!(given.len(), all.len(), "an address is given twice: {seen}");
        given
    }
}

/// Tells at which call it was that something went wrong after it.
struct Told(usize, usize);

impl Drop for Told {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("crash: it was killed at call {} of {}", self.0, self.1);
        }
    }
}

fn run_on_a_bare_host(scene: &mut Scene<'_>) {
    let bundle = scene.bundle.clone();
    let call = ["run", "--net", "bridge", "-p", "8080:7000", &bundle];
    scene.play(&call, &|_| {}, &|scene| {
        scene.delete("c");
        scene.nothing_is_left();
    });
}

/// What the killed one had or not, the next one gets another address than those who live.
fn run_beside_another(scene: &mut Scene<'_>) {
    scene.minirun(&["network", "create", "web", "--subnet", "10.77.0.0/29"]).ok();
    scene.start("keeper", &["--net", "web", "-p", "9090:7000"]);
    let usual = scene.what_is_there();
    let bundle = scene.bundle.clone();
    let call = ["run", "--net", "web", "-p", "8080:7000", &bundle];
    scene.play(&call, &|_| {}, &|scene| {
        scene.start("next", &["--net", "web"]);
        assert!(scene.addresses("web").len() >= 2);
        for id in ["next", "c"] {
            scene.delete(id);
        }
        // Of five addresses the next round needs two more.
        let alone = || scene.addresses("web").len() == 1;
        assert!(wait_until(alone), "{:?}", scene.addresses("web"));
        // A network keeps its bridge and the routing rule of ports: those of the first round.
        scene.only_this_is_left(&usual);
    });
    scene.delete("keeper");
    scene.nothing_is_left();
}

fn run_without_a_word(scene: &mut Scene<'_>) {
    let bundle = scene.bundle.clone();
    scene.play(&["run", &bundle], &|_| {}, &|scene| {
        scene.delete("c");
        scene.nothing_is_left();
    });
}

fn delete(scene: &mut Scene<'_>) {
    let before = |scene: &Scene<'_>| scene.start("c", &["--net", "bridge", "-p", "8080:7000"]);
    scene.play(&["delete", "--force", "c"], &before, &|scene| {
        scene.delete("c");
        scene.nothing_is_left();
    });
}

fn create_a_network(scene: &mut Scene<'_>) {
    let call = ["network", "create", "web", "--ipv6"];
    scene.play(&call, &|_| {}, &|scene| {
        // There or not: it can be had, and used.
        if scene.minirun(&["network", "create", "web"]).status != 0 {
            scene.minirun(&["network", "inspect", "web"]).ok();
        }
        scene.minirun(&["network", "rm", "web"]).ok();
        scene.nothing_is_left();
    });
}

fn remove_a_network(scene: &mut Scene<'_>) {
    let before = |scene: &Scene<'_>| {
        scene.minirun(&["network", "create", "web"]).ok();
        scene.minirun(&["run", "--net", "web", "--name", "c", &scene.bundle]).exits(0);
        // Its cable goes with its namespace, which nobody waits for.
        assert!(wait_until(|| scene.addresses("web").is_empty()));
    };
    scene.play(&["network", "rm", "web"], &before, &|scene| scene.nothing_is_left());
}

fn prune(scene: &mut Scene<'_>) {
    let before = |scene: &Scene<'_>| {
        scene.minirun(&["network", "create", "web"]).ok();
        scene.minirun(&["run", "--net", "web", "-p", "8080:80", &scene.bundle]).exits(0);
    };
    scene.play(&["network", "prune"], &before, &|scene| scene.nothing_is_left());
}

/// Half of a fault can be set again, and taken back.
fn set_a_fault(scene: &mut Scene<'_>) {
    let before = |scene: &Scene<'_>| scene.start("c", &["--net", "bridge"]);
    let call = ["network", "fault", "set", "c", "--loss", "5%", "--rate", "10mbit"];
    scene.play(&call, &before, &|scene| {
        scene.minirun(&["network", "fault", "ls"]).ok();
        scene.minirun(&call).ok();
        let listed = scene.minirun(&["network", "fault", "ls"]).ok().output;
        assert_eq!(listed.lines().filter(|line| line.starts_with("c ")).count(), 2, "{listed}");
        scene.delete("c");
        scene.nothing_is_left();
    });
}

fn clear_a_fault(scene: &mut Scene<'_>) {
    let set = ["network", "fault", "set", "c", "--loss", "5%"];
    let before = |scene: &Scene<'_>| {
        scene.start("c", &["--net", "bridge"]);
        scene.minirun(&set).ok();
    };
    let call = ["network", "fault", "clear", "c"];
    scene.play(&call, &before, &|scene| {
        scene.minirun(&call).ok();
        let listed = scene.minirun(&["network", "fault", "ls"]).ok().output;
        assert_eq!(listed.lines().count(), 1, "{listed}");
        scene.delete("c");
        scene.nothing_is_left();
    });
}

/// On a kernel without netem this takes a process: it is there and known, or it is not there.
fn set_a_delay(scene: &mut Scene<'_>) {
    let before = |scene: &Scene<'_>| scene.start("c", &["--net", "bridge"]);
    scene.play(&SET_A_DELAY, &before, &|scene| {
        at_most_one_relay(scene);
        scene.minirun(&SET_A_DELAY).ok();
        at_most_one_relay(scene);
        scene.delete("c");
        scene.nothing_is_left();
    });
}

fn change_a_delay(scene: &mut Scene<'_>) {
    let before = |scene: &Scene<'_>| {
        scene.start("c", &["--net", "bridge"]);
        scene.minirun(&SET_A_DELAY).ok();
    };
    let call = ["network", "fault", "set", "c", "--delay", "2ms", "--direction", "in"];
    scene.play(&call, &before, &|scene| {
        at_most_one_relay(scene);
        scene.minirun(&call).ok();
        at_most_one_relay(scene);
        scene.delete("c");
        scene.nothing_is_left();
    });
}

fn clear_a_delay(scene: &mut Scene<'_>) {
    let before = |scene: &Scene<'_>| {
        scene.start("c", &["--net", "bridge"]);
        scene.minirun(&SET_A_DELAY).ok();
    };
    let call = ["network", "fault", "clear", "c"];
    scene.play(&call, &before, &|scene| {
        scene.minirun(&call).ok();
        assert_eq!(scene.host.relays(), Vec::<i32>::new());
        scene.delete("c");
        scene.nothing_is_left();
    });
}

const SET_A_DELAY: [&str; 6] = ["network", "fault", "set", "c", "--delay", "1ms"];

/// And when there is one, minirun knows of it.
#[track_caller]
fn at_most_one_relay(scene: &Scene<'_>) {
    // One that nobody has written down ends when it sees that its starter has died.
    let is_known = wait_until(|| {
        let seen = scene.minirun(&["network", "inspect", "bridge"]).ok().json();
        let relay = &seen["containers"][0]["relay"];
        let alive = relay["pid"].as_i64().filter(|_| relay["alive"] == true);
        let there: Vec<i64> = scene.host.relays().into_iter().map(i64::from).collect();
        there == alive.into_iter().collect::<Vec<_>>()
    });
    assert!(is_known, "{:?}", scene.host.relays());
}
