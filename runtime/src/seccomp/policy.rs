//! A profile, understood: for each architecture the rules of each call, in the order in which they
//! decide.
//!
//! The meaning is libseccomp's, as runc and crun use it, because profiles are written against that:
//!
//! * A rule whose action is the default's is dropped, and so is a name that we do not know.
//! * Conditions of one rule are combined by "and". But when two of them are about the same
//!   argument, each becomes a rule of its own ("or"), because that is what runc has always done.
//! * Rules about one call are alternatives. One without conditions beats all that have some; of
//!   two without, the first one counts.
//! * Where rules overlap and disagree, the more special one decides ([`Condition::precedence`]), at
//!   last the first. Two with the same conditions and different actions are an error.
//! * On 32-bit architectures (x32 is one) only the lower half of values and masks counts.

use oci_spec::runtime::{Arch, LinuxSeccomp, LinuxSyscall};

use super::condition::Condition;
use super::syscalls::{self, Syscall};
use super::{Action, Architecture, Error, multiplexed};

/// What a profile decides, before it is a program.
#[derive(Debug)]
pub(super) struct Policy {
    /// For calls that no rule decides.
    pub(super) default: Action,
    /// For calls beyond the last one that the profile names, where that differs from the default:
    /// see [`newer`].
    pub(super) newer: Option<Action>,
    /// One per architecture, sorted.
    pub(super) sections: Vec<Section>,
    /// Names that no table has, in the profile's order.
    pub(super) skipped: Vec<String>,
    /// Architectures whose programs cannot run here.
    pub(super) unreachable: Vec<Arch>,
    /// Whether a rule hands calls to a listener.
    pub(super) notifies: bool,
}

/// The rules for one architecture.
#[derive(Debug)]
pub(super) struct Section {
    pub(super) architecture: Architecture,
    /// Sorted by number; rules with the same number are tried in this order.
    pub(super) rules: Vec<Rule>,
    /// The largest number that the profile names, of those that are given out in order.
    pub(super) last: Option<u32>,
}

/// One way for one call to meet its fate.
#[derive(Debug)]
pub(super) struct Rule {
    pub(super) number: u32,
    /// All of them must hold; sorted by argument.
    pub(super) conditions: Vec<Condition>,
    pub(super) action: Action,
    /// The index in the profile's `syscalls`.
    pub(super) source: usize,
    /// Whether it is about a multiplexed call, on behalf of one that the profile names.
    derived: bool,
}

/// One entry of the profile's `syscalls`, without its names.
struct Entry {
    action: Action,
    /// Each with conditions that must all hold.
    alternatives: Vec<Vec<Condition>>,
    source: usize,
    /// Whether its action is the default's, so that it only tells how new the profile is.
    redundant: bool,
}

impl Policy {
    pub(super) fn of(profile: &LinuxSeccomp, native: Architecture) -> Result<Self, Error> {
        let (action, errno) = (profile.default_action(), profile.default_errno_ret());
        let default = Action::of_profile(action, errno, || "defaultAction".into())?;
        if default == Action::NOTIFY {
            return Err(Error::NotifyByDefault);
        }
        let (sections, unreachable) = sections(profile, native);
        let newer = newer(default);
        let mut policy =
            Self { default, newer, sections, skipped: Vec::new(), unreachable, notifies: false };
        for (source, written) in profile.syscalls().iter().flatten().enumerate() {
            policy.add(Entry::of(written, source, default)?, written.names())?;
        }
        for section in &mut policy.sections {
            section.arrange(native)?;
        }
        Ok(policy)
    }

    fn add(&mut self, entry: Entry, names: &[String]) -> Result<(), Error> {
        let notifies = entry.action == Action::NOTIFY;
        self.notifies |= notifies;
        for name in names {
            if name.is_empty() {
                return Err(Error::EmptyName { rule: entry.source });
            }
            if notifies && name == "write" {
                return Err(Error::NotifyOnWrite { rule: entry.source });
            }
            let call = syscalls::by_name(name);
            let mut known = false;
            for section in &mut self.sections {
                known |= section.add(name, call, &entry);
            }
            if !known {
                self.skipped.push(name.clone());
            }
        }
        Ok(())
    }
}

/// What a call gets that is newer than all that the profile names: "no such call", so that
/// programs fall back on an older one instead of giving up at the default's EPERM (or dying of it).
/// runc's rule, and its exception: where the default lets calls through, they go through.
fn newer(default: Action) -> Option<Action> {
    (!default.is_permissive() && default != Action::ENOSYS).then_some(Action::ENOSYS)
}

/// The native architecture and those that the profile names, as far as their programs can run;
/// and the others.
fn sections(profile: &LinuxSeccomp, native: Architecture) -> (Vec<Section>, Vec<Arch>) {
    let mut architectures = vec![native];
    let mut unreachable = Vec::new();
    for name in profile.architectures().iter().flatten() {
        match Architecture::named(*name, native) {
            Some(architecture) if native.family().contains(&architecture) => {
                architectures.push(architecture);
            }
            _ => unreachable.push(*name),
        }
    }
    architectures.sort_unstable();
    architectures.dedup();
    let names = profile.syscalls().iter().flatten().map(|rule| rule.names().len()).sum();
    let section =
        |architecture| Section { architecture, rules: Vec::with_capacity(names), last: None };
    (architectures.into_iter().map(section).collect(), unreachable)
}

impl Entry {
    fn of(written: &LinuxSyscall, source: usize, default: Action) -> Result<Self, Error> {
        let place = || format!("syscalls[{source}]");
        let action = Action::of_profile(written.action(), written.errno_ret(), place)?;
        let mut conditions = Vec::new();
        for argument in written.args().iter().flatten() {
            let condition = Condition::of_profile(argument)
                .ok_or_else(|| Error::NoSuchArgument { rule: source, index: argument.index() })?;
            conditions.push(condition);
        }
        conditions.sort_by_key(|condition| condition.argument);
        let twice = conditions.windows(2).any(|pair| pair[0].argument == pair[1].argument);
        let alternatives = if twice {
            conditions.into_iter().map(|condition| vec![condition]).collect()
        } else {
            vec![conditions]
        };
        Ok(Self { action, alternatives, source, redundant: action == default })
    }
}

impl Section {
    /// Adds the rules about the call `name`. False when this architecture has no such call.
    fn add(&mut self, name: &str, call: Option<&Syscall>, entry: &Entry) -> bool {
        let mut known = false;
        if let Some(number) = call.and_then(|call| call.number(self.architecture)) {
            known = true;
            if number < self.architecture.private_numbers() {
                self.last = self.last.max(Some(number));
            }
            self.push(number, None, entry);
        }
        if self.architecture == Architecture::X86
            && call.is_some_and(|call| call.is_multiplexed)
            && let Some((multiplexed, selector)) = multiplexed::way_to(name)
            && let Some(call) = syscalls::by_name(multiplexed)
            && let Some(number) = call.number(self.architecture)
        {
            known = true;
            self.push(number, Some(Condition::equal(0, selector.into())), entry);
        }
        known
    }

    fn push(&mut self, number: u32, selector: Option<Condition>, entry: &Entry) {
        if entry.redundant {
            return;
        }
        let derived = selector.is_some();
        for own in &entry.alternatives {
            let simple = own.is_empty() && !derived;
            let conditions = if simple { Vec::new() } else { self.conditions(selector, own) };
            let (action, source) = (entry.action, entry.source);
            self.rules.push(Rule { number, conditions, action, source, derived });
        }
    }

    /// The conditions as this architecture can check them; a selector takes the first argument.
    fn conditions(&self, selector: Option<Condition>, own: &[Condition]) -> Vec<Condition> {
        let wide = self.architecture.has_wide_arguments();
        let own = own.iter().filter(|own| selector.is_none() || own.argument != 0);
        (selector.iter().chain(own))
            .map(|condition| if wide { *condition } else { condition.narrow() })
            .filter(|condition| !condition.is_void())
            .collect()
    }

    /// Puts the rules into the order in which they decide, and drops those that never will.
    fn arrange(&mut self, native: Architecture) -> Result<(), Error> {
        self.rules.sort_by_key(|rule| rule.number);
        for rules in self.rules.chunk_by_mut(|one, other| one.number == other.number) {
            insert_in_order(rules);
        }
        let mut kept: Vec<Rule> = Vec::with_capacity(self.rules.len());
        // Where the rules about the number at hand begin.
        let mut start = 0;
        for rule in std::mem::take(&mut self.rules) {
            if kept.last().is_none_or(|last| last.number != rule.number) {
                start = kept.len();
            }
            let covers = |other: &&mut Rule| {
                other.conditions.is_empty() || other.conditions == rule.conditions
            };
            match kept[start..].iter_mut().find(covers) {
                None => kept.push(rule),
                Some(other) if other.conditions.is_empty() => {}
                Some(other) => other.settle_with(rule, self.architecture == native)?,
            }
        }
        self.rules = kept;
        Ok(())
    }

    /// The rules about one call.
    pub(super) fn rules_about(&self, number: u32) -> &[Rule] {
        let start = self.rules.partition_point(|rule| rule.number < number);
        let count = self.rules[start..].partition_point(|rule| rule.number == number);
        &self.rules[start..start + count]
    }
}

/// Brings the rules about one call into order: each comes before the first that it overtakes. (This
/// is no sort, because draws are not transitive; the outcome depends on the profile's order.)
fn insert_in_order(rules: &mut [Rule]) {
    for next in 1..rules.len() {
        if let Some(place) = rules[..next].iter().position(|other| rules[next].overtakes(other)) {
            rules[place..=next].rotate_right(1);
        }
    }
}

impl Rule {
    /// Whether this rule must be tried before `other`, which the profile has earlier.
    fn overtakes(&self, other: &Self) -> bool {
        let mut pairs = self.conditions.iter().zip(&other.conditions);
        match pairs.find(|(own, others)| own != others) {
            Some((own, others)) => own.precedence(*others).is_lt(),
            None => self.conditions.len() < other.conditions.len(),
        }
    }

    /// Fails when `other` decides differently under the same conditions. Only the stronger action
    /// stays where nobody meant that: among rules on behalf of other calls, and on architectures
    /// other than the native one, whose shortened values can coincide.
    fn settle_with(&mut self, other: Self, native: bool) -> Result<(), Error> {
        let meant = native && !self.derived && !other.derived;
        if meant && self.action != other.action {
            let rules = [self.source.min(other.source), self.source.max(other.source)];
            return Err(Error::Conflict { rules });
        }
        if other.action.rank() < self.action.rank() {
            *self = other;
        }
        Ok(())
    }

    /// Whether this rule decides about a call with these arguments.
    pub(super) fn holds(&self, arguments: &[u64; 6]) -> bool {
        self.conditions.iter().all(|condition| condition.holds(arguments))
    }
}
