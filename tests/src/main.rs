//! The integration tests of minirun: real containers, made by the real program.
//!
//! One static program that runs on this host and, unchanged, in a guest with another kernel and
//! another cgroup layout. A test that cannot run where it is says so: it is listed as ignored, with
//! what it needs in brackets. After each test nothing may be left of it: no process, mount, cgroup
//! or file, see [`leaks`].
//!
//! What it tests is the program that `MINIRUN` names, else the one that was built beside it.

mod bundle;
mod call;
mod leaks;
mod needs;
mod programs;
mod project;
mod pty;
mod suites;
mod traffic;
mod world;

use std::cell::RefCell;
use std::process::ExitCode;

use libtest_mimic::{Arguments, Failed, Trial};

use needs::Need;
use world::World;

/// One test: its name, what it needs, what it does.
pub(crate) struct Test {
    name: String,
    needs: Vec<Need>,
    body: Body,
}

type Body = Box<dyn Fn(&World) + Send>;

/// A test that runs wherever there is root.
pub(crate) fn test(name: impl Into<String>, body: impl Fn(&World) + Send + 'static) -> Test {
    Test { name: name.into(), needs: vec![Need::Root], body: Box::new(body) }
}

impl Test {
    /// A test that needs no privileges.
    fn anybody(name: impl Into<String>, body: impl Fn(&World) + Send + 'static) -> Self {
        Self { needs: Vec::new(), ..test(name, body) }
    }

    /// The test also needs this.
    fn needs(mut self, need: Need) -> Self {
        self.needs.push(need);
        self
    }

    fn into_trial(self, suite: &str) -> Trial {
        let name = format!("{suite}::{}", self.name);
        let missing: Vec<_> = self.needs.iter().filter(|need| !need.is_met()).collect();
        let body = self.body;
        let within = name.clone();
        let trial = Trial::test(name, move || run(&within, &body));
        match missing.first() {
            None => trial,
            Some(need) => trial.with_kind(format!("needs {need}")).with_ignored_flag(true),
        }
    }
}

fn run(name: &str, body: &dyn Fn(&World)) -> Result<(), Failed> {
    let world = World::new(name);
    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| body(&world)));
    let left = match outcome {
        Ok(()) => world.what_is_left(),
        Err(_) => Vec::new(),
    };
    world.clean_up();
    match (outcome, left.is_empty()) {
        (Err(_), _) => Err(WORDS.take().into()),
        (Ok(()), false) => Err(format!("left behind:\n  {}", left.join("\n  ")).into()),
        (Ok(()), true) => Ok(()),
    }
}

thread_local! {
    /// What this thread's last panic said, and where.
    static WORDS: RefCell<String> = const { RefCell::new(String::new()) };
}

fn main() -> ExitCode {
    // A failure is told once, at the end, and not in the middle of the list.
    std::panic::set_hook(Box::new(|panic| WORDS.set(panic.to_string())));
    let mut arguments = Arguments::from_args();
    // Two at a time: containers wait for the kernel more than they compute.
    arguments.test_threads = arguments.test_threads.or(Some(2));
    let trials = suites::all()
        .into_iter()
        .flat_map(|(suite, tests)| tests.into_iter().map(move |test| test.into_trial(suite)))
        .collect();
    let conclusion = libtest_mimic::run(&arguments, trials);
    world::remove_base();
    conclusion.exit_code()
}
