//! Ends: an exit, a launch that failed, remains that were deleted or not.

use crate::event::{Change, Rule};
use crate::instance::{Phase, StopWhy};
use crate::name::InstanceId;
use crate::restart::{End, ExitCause, Verdict, after_end};
use crate::step::Step;
use crate::time::Span;

/// The longest pause between two tries to delete the same remains.
const LONGEST_RETRY: Span = Span::from_secs(10);

impl Step<'_> {
    /// A process is gone. If nobody asked for it, or it was stopped for a failure of its own, the
    /// restart policy says what follows.
    pub(crate) fn exited(&mut self, id: &InstanceId, cause: &ExitCause) {
        let Some(instance) = self.state.instance(id) else { return };
        if !instance.occupies() {
            return;
        }
        let why = match instance.phase {
            Phase::Stopping { why, .. } => Some(why),
            _ => instance.stop_wanted,
        };
        let ready_for = instance.ready_at.map(|at| self.now.since(at));
        let lost = self.state.lost_owner(instance).filter(|_| !cause.is_success()).cloned();
        let evidence = match (why, &lost) {
            (Some(why), _) => format!("{cause}, after it was stopped: {why}"),
            (None, Some(owner)) => format!("{cause}, after {owner}, which it had joined"),
            (None, None) => cause.to_string(),
        };
        let exited = Change::Exited { instance: id.clone(), cause: cause.clone() };
        self.emit(exited, Rule::Observed, evidence.clone());
        self.delete(id);
        let by_itself = why.is_none() && lost.is_none();
        if by_itself || why.is_some_and(StopWhy::is_failure) {
            let success = why.is_none() && cause.is_success();
            self.judge(id, &End { success, what: evidence, ready_for });
        }
    }

    pub(super) fn launch_failed(&mut self, id: &InstanceId, error: &str) {
        self.exited(id, &ExitCause::LaunchFailed(error.to_string()));
    }

    /// Asks the restart policy, unless a newer instance is in place already.
    fn judge(&mut self, id: &InstanceId, end: &End) {
        let Some(slot) = self.state.slot(&id.slot) else { return };
        let Some(service) = self.state.project().services.get(&id.slot.service) else { return };
        if !slot.wanted || slot.live().any(|other| other.id > *id) {
            return;
        }
        let slot = id.slot.clone();
        let history = self.state.slot(&slot).map(|s| s.history.clone()).unwrap_or_default();
        match after_end(&service.restart, &slot, &history, end, self.now) {
            Verdict::Again { streak, futile, pause, at } => {
                let what = &end.what;
                let evidence = format!("{what}; failure {streak} in a row, restart in {pause}");
                let change = Change::BackedOff { slot, streak, futile, pause, until: at };
                self.emit(change, Rule::Restart, evidence);
            }
            Verdict::Completed => {
                self.emit(Change::Completed(slot), Rule::Restart, end.what.clone());
            }
            Verdict::Failed(evidence) => self.emit(Change::Failed(slot), Rule::Restart, evidence),
        }
    }

    pub(super) fn deleted(&mut self, id: &InstanceId, result: &Result<(), String>) {
        if self.state.strays().contains(id) && result.is_ok() {
            self.emit(Change::StrayGone(id.clone()), Rule::Observed, "nothing is left");
        }
        let Some(instance) = self.state.instance(id) else { return };
        let Phase::Exited { failed_deletes, .. } = instance.phase else { return };
        match result {
            Ok(()) => self.emit(Change::Deleted(id.clone()), Rule::Observed, "nothing is left"),
            Err(error) => {
                let pause = Span::from_ms(100) * 2u32.saturating_pow(failed_deletes.min(16));
                let retry_at = self.now + pause.min(LONGEST_RETRY);
                let change = Change::DeleteFailed { instance: id.clone(), retry_at };
                self.emit(change, Rule::Observed, format!("deleting failed: {error}"));
            }
        }
    }
}
