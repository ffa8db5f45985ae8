//! The rules of one architecture, laid out over all possible call numbers.
//!
//! A profile names some hundred calls, but neighbours mostly share their fate: the default profile
//! has 276 rules for aarch64, and 76 ranges. A search tree over ranges is what makes our
//! programs short, and it makes loading them fast: the kernel runs a new filter once for every call
//! number of the native architecture, to learn which are always allowed.

use super::policy::{Policy, Rule, Section};
use super::{Action, Architecture};

/// Some numbers with one fate; the last one ends where the next one starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Range<'p> {
    /// The first number.
    pub(super) start: u32,
    pub(super) fate: Fate<'p>,
}

/// What happens to a call, once its number is known.
#[derive(Debug, Clone, Copy)]
pub(super) enum Fate<'p> {
    /// This, whatever the arguments.
    Sealed(Action),
    /// The first rule that holds decides, else the default.
    Depends(&'p [Rule]),
}

impl PartialEq for Fate<'_> {
    /// Equal fates need only one copy in the program, whatever call and profile entry they are for.
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Sealed(one), Self::Sealed(other)) => one == other,
            (Self::Depends(one), Self::Depends(other)) => {
                let pair = |(one, other): (&Rule, &Rule)| {
                    one.action == other.action && one.conditions == other.conditions
                };
                one.len() == other.len() && one.iter().zip(*other).all(pair)
            }
            _ => false,
        }
    }
}

impl Eq for Fate<'_> {}

/// All ranges of the architectures that share the audit number `audit`, from 0 to the last number.
pub(super) fn of(policy: &Policy, audit: u32) -> Vec<Range<'_>> {
    let mut ranges = Vec::new();
    let mut next = 0;
    for section in policy.sections.iter().filter(|section| section.architecture.audit() == audit) {
        section.cover(policy, &mut ranges);
        next = section.architecture.numbers().end;
    }
    // x32 numbers in a filter that knows only x86_64 are calls from a foreign architecture.
    push(&mut ranges, next..u32::MAX, Fate::Sealed(FOREIGN));
    // The number -1 is how a tracer skips a call. It is neither foreign nor new.
    push(&mut ranges, u32::MAX..u32::MAX, Fate::Sealed(policy.default));
    ranges
}

/// For calls from an architecture that the filter does not know: libseccomp's `ACT_BADARCH`, which
/// runc and crun leave at its default.
pub(super) const FOREIGN: Action = Action::KILL_THREAD;

impl Section {
    fn cover<'p>(&'p self, policy: &'p Policy, ranges: &mut Vec<Range<'p>>) {
        let numbers = self.architecture.numbers();
        let mut next = numbers.start;
        for rules in self.rules.chunk_by(|one, other| one.number == other.number) {
            let [first, ..] = rules else { continue };
            self.cover_unnamed(policy, next..first.number, ranges);
            let fate = match first.conditions.is_empty() {
                true => Fate::Sealed(first.action),
                false => Fate::Depends(rules),
            };
            next = first.number + 1;
            push(ranges, first.number..next, fate);
        }
        self.cover_unnamed(policy, next..numbers.end, ranges);
    }

    /// Covers numbers that have no rule: known ones get the default, new ones the answer to those.
    fn cover_unnamed<'p>(
        &'p self,
        policy: &'p Policy,
        numbers: std::ops::Range<u32>,
        ranges: &mut Vec<Range<'p>>,
    ) {
        if numbers.is_empty() {
            return;
        }
        let (default, newer) = (policy.default, policy.newer.unwrap_or(policy.default));
        let private = self.architecture.private_numbers();
        let new = self.last.map_or(private, |last| last + 1)..private;
        let Range3 { below, within, above } = split(numbers, &new);
        push(ranges, below, Fate::Sealed(default));
        push(ranges, within, Fate::Sealed(newer));
        push(ranges, above, Fate::Sealed(default));
    }

    /// Whether a call without rules is newer than all that the profile names.
    pub(super) fn is_new(&self, number: u32) -> bool {
        let private = self.architecture.private_numbers();
        self.last.is_some_and(|last| number > last && number < private)
    }
}

/// Three neighbouring pieces of a range, each of which may be empty.
struct Range3 {
    below: std::ops::Range<u32>,
    within: std::ops::Range<u32>,
    above: std::ops::Range<u32>,
}

fn split(range: std::ops::Range<u32>, middle: &std::ops::Range<u32>) -> Range3 {
    let clamp = |number: u32| number.clamp(range.start, range.end);
    let (start, end) = (clamp(middle.start), clamp(middle.end));
    Range3 { below: range.start..start, within: start..end, above: end..range.end }
}

/// Appends a range, unless it is empty or continues the one before. The very last number is a
/// range of its own, whose end cannot be written.
fn push<'p>(ranges: &mut Vec<Range<'p>>, numbers: std::ops::Range<u32>, fate: Fate<'p>) {
    let empty = numbers.is_empty() && numbers.start != u32::MAX;
    if empty || ranges.last().is_some_and(|last| last.fate == fate) {
        return;
    }
    ranges.push(Range { start: numbers.start, fate });
}

/// The architectures of a policy by audit number, the native one first: its calls are the usual
/// case, and the kernel runs them through a new filter.
pub(super) fn audits(policy: &Policy, native: Architecture) -> Vec<u32> {
    let mut audits: Vec<u32> = vec![native.audit()];
    for section in &policy.sections {
        let audit = section.architecture.audit();
        if !audits.contains(&audit) {
            audits.push(audit);
        }
    }
    audits
}
