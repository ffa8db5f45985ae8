//! What follows an exit: nothing, another start at once, a start later, or giving up.
//!
//! The first restart is immediate, because most crashes are accidents. Then the pause doubles
//! from 100 ms (Docker's curve) to 30 s, spread by a quarter so that slots that died together do
//! not come back together. Having been *ready* for ten seconds, not merely running, wipes the
//! slate; having been ready for one keeps the pause as it was. So what dies while it starts waits
//! longer and longer, and what is killed now and then is back at once, however often.
//! The history is part of the state, so a restart of the supervisor forgives nothing.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::name::SlotId;
use crate::time::{Mono, Span};

/// The shortest pause that is not zero.
const FIRST_PAUSE: Span = Span::from_ms(100);
/// The longest pause. A fault that has been repaired keeps nobody waiting for minutes.
const LONGEST_PAUSE: Span = Span::from_secs(30);
/// Ready for at least this long (and twice the last pause) counts as recovered.
const STABLE: Span = Span::from_secs(10);
/// Ready for less than this counts against the pause: it never really worked. And an update trusts
/// nothing that no probe can ask before this time has passed.
pub(crate) const WORKED: Span = Span::from_secs(1);
/// Restarts remembered when no budget says how many matter.
const REMEMBERED: usize = 64;

/// After which exits an instance is started again.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RestartOn {
    /// Never: it runs once.
    Never,
    /// After failures; success is the end (a one-shot service that may be tried again).
    Failure,
    /// After every exit.
    Any,
}

/// The restart policy of a service.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct RestartPolicy {
    /// After which exits.
    pub on: RestartOn,
    /// The least pause before each restart.
    pub delay: Span,
    /// How many restarts there may be, in `window` or else in a row; `None` is no limit.
    pub max_attempts: Option<u32>,
    /// The time over which attempts are counted; `None` counts those in a row.
    pub window: Option<Span>,
}

impl Default for RestartPolicy {
    fn default() -> RestartPolicy {
        RestartPolicy { on: RestartOn::Any, delay: Span::ZERO, max_attempts: None, window: None }
    }
}

/// How an instance came to its end.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ExitCause {
    /// It exited with this code.
    Code(i32),
    /// A signal killed it.
    Signal(i32),
    /// The kernel killed its first process for want of memory.
    OutOfMemory(OomScope),
    /// The runtime could not start it.
    LaunchFailed(String),
    /// It is gone and nobody saw how (its parent had died too).
    Unknown,
}

/// Whose memory ran out.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OomScope {
    /// The container's own limit.
    Limit,
    /// The whole host's memory; the container was only the victim.
    Host,
}

impl ExitCause {
    /// Whether the instance did what it was started for.
    pub fn is_success(&self) -> bool {
        *self == ExitCause::Code(0)
    }
}

impl fmt::Display for ExitCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ExitCause::Code(code) => write!(f, "exited with code {code}"),
            ExitCause::Signal(signal) => write!(f, "killed by signal {signal}"),
            ExitCause::OutOfMemory(OomScope::Limit) => f.write_str("out of memory at its limit"),
            ExitCause::OutOfMemory(OomScope::Host) => {
                f.write_str("killed as the host ran out of memory")
            }
            ExitCause::LaunchFailed(error) => write!(f, "could not be started: {error}"),
            ExitCause::Unknown => f.write_str("gone, exit status unknown"),
        }
    }
}

/// The restart history of a slot.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct History {
    /// Failures since the slot was last stable: what a budget without a window counts.
    pub streak: u32,
    /// Those of them before which it had not worked: what the pause grows with.
    pub futile: u32,
    /// The pause before the latest restart.
    pub pause: Span,
    /// When restarts were decided, oldest first, bounded.
    pub restarts: Vec<Mono>,
}

/// What the policy says after an exit.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// Start again at that time.
    Again {
        /// Failures in a row, this one included.
        streak: u32,
        /// Those before which it had not worked.
        futile: u32,
        /// The pause.
        pause: Span,
        /// When.
        at: Mono,
    },
    /// It has done its work.
    Completed,
    /// The policy does not want another try.
    Failed(String),
}

/// An end to be judged.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct End {
    /// Whether the instance did what it was started for.
    pub success: bool,
    /// What happened, in words.
    pub what: String,
    /// How long before it had become ready, if it ever had.
    pub ready_for: Option<Span>,
}

/// Decides what follows an end that nobody asked for.
pub fn after_end(
    policy: &RestartPolicy,
    slot: &SlotId,
    history: &History,
    end: &End,
    now: Mono,
) -> Verdict {
    let what = &end.what;
    match (policy.on, end.success) {
        (RestartOn::Never | RestartOn::Failure, true) => return Verdict::Completed,
        (RestartOn::Never, false) => {
            return Verdict::Failed(format!("{what}, and the policy is never to restart"));
        }
        (RestartOn::Failure, false) | (RestartOn::Any, _) => {}
    }
    let stable = STABLE.max(history.pause * 2);
    let recovered = end.ready_for.is_some_and(|span| span >= stable);
    let worked = end.ready_for.is_some_and(|span| span >= WORKED);
    let streak = if recovered { 1 } else { history.streak.saturating_add(1) };
    let futile = match (recovered, worked) {
        (true, _) => 1,
        (false, true) => history.futile.max(1),
        (false, false) => history.futile.saturating_add(1),
    };
    if let Some(limit) = policy.max_attempts {
        let (used, over) = match policy.window {
            Some(window) => (history.restarts_within(window, now), format!(" within {window}")),
            None => (streak - 1, " in a row".to_string()),
        };
        if used >= limit {
            return Verdict::Failed(format!("{what}, after {used} restarts{over}"));
        }
    }
    let pause = pause_before(futile, slot, history.restarts.len()).max(policy.delay);
    Verdict::Again { streak, futile, pause, at: now + pause }
}

/// The pause before futile restart number `streak`: 0, 100 ms, 200 ms … 30 s, each spread by a
/// quarter up or down. The spread is a hash of slot and history: no two slots agree, and a replay
/// of the history decides the same.
fn pause_before(streak: u32, slot: &SlotId, salt: usize) -> Span {
    if streak <= 1 {
        return Span::ZERO;
    }
    let doublings = (streak - 2).min(16);
    let base = (FIRST_PAUSE * 2u32.saturating_pow(doublings)).min(LONGEST_PAUSE);
    let mut hash = 0xcbf2_9ce4_8422_2325_u64; // FNV-1a
    for byte in slot.to_string().bytes().chain((salt as u64).to_le_bytes()) {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }
    base.percent(75 + (hash >> 32) % 51).min(LONGEST_PAUSE)
}

impl History {
    /// How many restarts were decided in the last `window`.
    pub fn restarts_within(&self, window: Span, now: Mono) -> u32 {
        let recent = self.restarts.iter().filter(|at| now.since(**at) < window).count();
        u32::try_from(recent).unwrap_or(u32::MAX)
    }

    /// Writes down a restart decided at `now`, forgetting what no budget can ask for.
    pub(crate) fn record(
        &mut self,
        policy: &RestartPolicy,
        (streak, futile): (u32, u32),
        pause: Span,
        now: Mono,
    ) {
        self.streak = streak;
        self.futile = futile;
        self.pause = pause;
        self.restarts.push(now);
        if let Some(window) = policy.window {
            self.restarts.retain(|at| now.since(*at) < window);
        }
        let keep = policy.max_attempts.map_or(REMEMBERED, |n| n as usize).clamp(1, 4096);
        let surplus = self.restarts.len().saturating_sub(keep);
        self.restarts.drain(..surplus);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::name::ServiceName;

    fn slot() -> SlotId {
        ServiceName::from("web").slot(1)
    }

    fn end(cause: &ExitCause, ready_for: Option<Span>) -> End {
        End { success: cause.is_success(), what: cause.to_string(), ready_for }
    }

    fn verdict(on: RestartOn, cause: ExitCause) -> Verdict {
        let policy = RestartPolicy { on, ..RestartPolicy::default() };
        after_end(&policy, &slot(), &History::default(), &end(&cause, None), Mono::BOOT)
    }

    /// The table of systemd.service(5), "Restart=", for the causes that exist here.
    #[test]
    fn policy_by_cause() {
        use RestartOn::{Any, Failure, Never};
        let oom = ExitCause::OutOfMemory;
        let failures = [
            ExitCause::Code(1),
            ExitCause::Code(137),
            ExitCause::Signal(9),
            ExitCause::Signal(15),
            oom(OomScope::Limit),
            oom(OomScope::Host),
            ExitCause::LaunchFailed("no such file".into()),
            ExitCause::Unknown,
        ];
        let again = |v: &Verdict| matches!(v, Verdict::Again { pause: Span::ZERO, .. });
        for cause in failures {
            assert!(matches!(verdict(Never, cause.clone()), Verdict::Failed(_)), "{cause}");
            assert!(again(&verdict(Failure, cause.clone())), "{cause}");
            assert!(again(&verdict(Any, cause.clone())), "{cause}");
        }
        assert_eq!(verdict(Never, ExitCause::Code(0)), Verdict::Completed);
        assert_eq!(verdict(Failure, ExitCause::Code(0)), Verdict::Completed);
        assert!(again(&verdict(Any, ExitCause::Code(0))));
    }

    /// Crashes at once, `times` times; returns the pauses in milliseconds.
    fn crash_loop(policy: &RestartPolicy, times: usize) -> Vec<u64> {
        let (mut history, mut now, mut pauses) = (History::default(), Mono::BOOT, Vec::new());
        for _ in 0..times {
            match after_end(policy, &slot(), &history, &end(&ExitCause::Code(1), None), now) {
                Verdict::Again { streak, futile, pause, at } => {
                    history.record(policy, (streak, futile), pause, now);
                    pauses.push(pause.ms());
                    now = at;
                }
                _ => break,
            }
        }
        pauses
    }

    #[test]
    fn pauses_double_from_100_ms_to_30_s() {
        let pauses = crash_loop(&RestartPolicy::default(), 14);
        assert_eq!(pauses[0], 0);
        for (n, pause) in pauses.iter().enumerate().skip(1) {
            let base = (100 << (n - 1)).min(30_000);
            assert!((base * 3 / 4..=(base * 5 / 4).min(30_000)).contains(pause), "{n}: {pause}");
        }
    }

    #[test]
    fn the_configured_delay_is_a_floor() {
        let policy = RestartPolicy { delay: Span::from_secs(5), ..RestartPolicy::default() };
        assert!(crash_loop(&policy, 10).iter().all(|pause| *pause >= 5000));
    }

    #[test]
    fn a_budget_ends_a_crash_loop() {
        let policy = RestartPolicy { max_attempts: Some(3), ..RestartPolicy::default() };
        assert_eq!(crash_loop(&policy, 10).len(), 3);
        let windowed = RestartPolicy { window: Some(Span::from_ms(250)), ..policy };
        assert_eq!(crash_loop(&windowed, 30).len(), 30, "long pauses spend no budget");
    }

    #[test]
    fn only_being_ready_for_long_wipes_the_slate() {
        let pause = Span::from_secs(8);
        let history = History { streak: 6, futile: 6, pause, restarts: vec![] };
        let counts = |ready_for| {
            let policy = RestartPolicy::default();
            let end = end(&ExitCause::Signal(9), ready_for);
            match after_end(&policy, &slot(), &history, &end, Mono::BOOT) {
                Verdict::Again { streak, futile, .. } => (streak, futile),
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(counts(None), (7, 7));
        assert_eq!(counts(Some(Span::from_ms(999))), (7, 7));
        assert_eq!(counts(Some(Span::from_secs(1))), (7, 6), "it worked: no longer pause");
        assert_eq!(counts(Some(Span::from_secs(15))), (7, 6), "less than twice the last pause");
        assert_eq!(counts(Some(Span::from_secs(16))), (1, 1));
    }

    #[test]
    fn slots_that_die_together_come_back_apart() {
        let pause = |index| pause_before(8, &ServiceName::from("web").slot(index), 0);
        let mut pauses: Vec<Span> = (1..=10).map(pause).collect();
        pauses.sort();
        pauses.dedup();
        assert!(pauses.len() >= 9, "{pauses:?}");
    }
}
