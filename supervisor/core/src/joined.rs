//! Namespaces shared between services: who is in whose.
//!
//! ```text
//!   app.1 joins vpn       vpn.1.1 ██████████████▒▒▒       ▒ draining, stopping
//!                         vpn.1.2       ░░░░░░█████████   ░ starting
//!   app.1 starts first    app.1.1 ██████████████▒         until vpn.1.1 has answered its requests
//!                         app.1.2         ░░░██████████   it may be what makes vpn.1.2 ready
//!   app.1 stops first     app.1.1 ████████▒
//!                         app.1.2          ░░░█████████
//! ```
//!
//! * **Where.** Slot *n* of a service that joins another is in the namespaces of slot *n* of that
//!   one, or of its first slot if it has fewer.
//! * **With whom.** With the newest instance there that runs: not with one that is only being
//!   created, which has no namespaces yet, but also with one that is not ready, because who joins
//!   it may be what makes it so.
//! * **In which order.** Two instances of a slot that cannot be in one network at a time, because
//!   they listen at the same port, can be in two: [`Service::moves`] says what comes first when only
//!   the owner is another, [`Service::order`] in all other cases.
//! * **How long.** An instance whose owner's stop has come to the signal, or whose owner has ended,
//!   sits where nobody comes any more: it is stopped, without a mark in its restart history. One
//!   that is with another than it should be is outdated, like one of another revision.

use crate::instance::{Instance, Phase, StopStage};
use crate::name::{InstanceId, ServiceName, SlotId};
#[cfg(doc)]
use crate::spec::Service;
use crate::state::State;

impl State {
    /// The slot of `service` whose namespaces the instances of `slot` are put into.
    pub fn owning_slot(&self, slot: &SlotId, service: &ServiceName) -> SlotId {
        let is_there = slot.index <= self.replicas(service);
        service.slot(if is_there { slot.index } else { 1 })
    }

    /// The instance of `service` whose namespaces an instance of `slot` is put into now.
    pub fn owner(&self, slot: &SlotId, service: &ServiceName) -> Option<&Instance> {
        let owning = self.slot(&self.owning_slot(slot, service))?;
        owning.live().rev().find(|instance| instance.is_running())
    }

    /// Whether an instance is in the namespaces of another instance than it would be put into now.
    pub fn is_misplaced(&self, instance: &Instance) -> bool {
        let slot = &instance.id.slot;
        let elsewhere = |owner: &InstanceId| {
            self.owner(slot, &owner.slot.service).is_some_and(|right| right.id != *owner)
        };
        instance.joined.iter().any(elsewhere)
    }

    /// Who of those whose namespaces an instance is in has ended, or has been told to.
    pub fn lost_owner<'a>(&self, instance: &'a Instance) -> Option<&'a InstanceId> {
        instance.joined.iter().find(|owner| self.instance(owner).is_none_or(is_leaving))
    }

    /// Whether requests of whoever has the namespaces that `old` is in may still end at it: its
    /// owner is in place or drains, and `new` is with another of the same slot.
    pub(crate) fn serves_owner(&self, old: &Instance, new: &Instance) -> bool {
        let slots = |one: &Instance| -> Vec<SlotId> {
            one.joined.iter().map(|owner| owner.slot.clone()).collect()
        };
        old.joined != new.joined && slots(old) == slots(new) && self.lost_owner(old).is_none()
    }
}

/// Whether its stop has come to the signal, or it has ended.
fn is_leaving(instance: &Instance) -> bool {
    match instance.phase {
        Phase::Stopping { stage, .. } => stage >= StopStage::Signal,
        Phase::Exited { .. } => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use crate::action::Action;
    use crate::event::{Change, Obstacle};
    use crate::input::{Command, Input};
    use crate::instance::StopWhy;
    use crate::restart::ExitCause;
    use crate::scenario::{Play, id, joins, service};
    use crate::spec::{Order, Project};

    /// Whether a launch into the namespaces of exactly these was asked for.
    fn launches_into(play: &Play, name: &str, owners: &[&str]) -> bool {
        let wanted = owners.iter().map(|owner| id(owner)).collect();
        play.asked(|action| match action {
            Action::Launch { instance, joined, .. } => *instance == id(name) && *joined == wanted,
            _ => false,
        })
    }

    fn stops(play: &Play, name: &str, because: StopWhy) -> bool {
        let stops = |change: &Change| match change {
            Change::Stopping { instance, why, .. } => *instance == id(name) && *why == because,
            _ => false,
        };
        play.changes.iter().any(stops)
    }

    #[test]
    fn slots_join_their_equals_or_the_first_once_that_runs() {
        let app = joins(service(3), "vpn");
        let mut play = Play::of(&[("app", app), ("vpn", service(2))]);
        let waits = |play: &Play, obstacle| {
            let slot = id("app.1.1").slot;
            play.changes.contains(&Change::Waiting { slot, obstacle })
        };
        assert!(waits(&play, Obstacle::Dependency("vpn".into())) && !play.launches("app.1.1"));
        play.all_up(&["vpn.1.1", "vpn.2.1"]);
        assert!(launches_into(&play, "app.1.1", &["vpn.1.1"]));
        assert!(launches_into(&play, "app.2.1", &["vpn.2.1"]));
        assert!(launches_into(&play, "app.3.1", &["vpn.1.1"]));
        play.all_up(&["app.1.1", "app.2.1", "app.3.1"]);
        play.tell(Input::Command(Command::Scale { service: "vpn".into(), replicas: 3 }));
        play.look_away();
        play.launched("vpn.3.1");
        assert!(launches_into(&play, "app.3.2", &["vpn.3.1"]), "{:?}", play.changes);
        assert!(!play.launches("app.1.2") && !play.launches("app.2.2"));
    }

    #[test]
    fn whoever_is_left_behind_goes_without_a_mark() {
        let app = joins(service(1), "vpn");
        let mut play = Play::of(&[("app", app), ("vpn", service(1))]);
        play.all_up(&["vpn.1.1", "app.1.1"]);
        play.look_away();
        play.exited("vpn.1.1", ExitCause::Signal(9));
        assert!(stops(&play, "app.1.1", StopWhy::Orphaned), "{:?}", play.changes);
        play.acknowledge();
        play.tell(Input::Idle { instance: id("app.1.1") });
        assert!(play.signals("app.1.1"));
        play.exited("app.1.1", ExitCause::Signal(9));
        assert!(!play.launches("app.1.2"), "there is nothing to join yet");
        play.launched("vpn.1.2");
        assert!(launches_into(&play, "app.1.2", &["vpn.1.2"]));
        assert_eq!(play.state.slot(&id("app.1.1").slot).unwrap().history.streak, 0);
    }

    #[test]
    fn a_replacement_may_have_to_make_its_owner_ready_and_the_old_one_serves_to_the_end() {
        let app = joins(service(1), "vpn");
        let app = crate::spec::Service { order: Order::StopFirst, ..app };
        let with = |revision: &str| {
            let vpn = crate::spec::Service { revision: revision.into(), ..service(1) };
            [("app", app.clone()), ("vpn", vpn)]
        };
        let mut play = Play::of(&with("v1"));
        play.all_up(&["vpn.1.1", "app.1.1"]);
        play.look_away();
        play.apply(&with("v2"));
        assert!(play.launches("vpn.1.2") && !play.launches("app.1.2"));
        play.launched("vpn.1.2");
        assert!(launches_into(&play, "app.1.2", &["vpn.1.2"]), "it is not ready, and need not be");
        play.up("app.1.2");
        assert!(!stops(&play, "app.1.1", StopWhy::Replaced), "vpn.1.1 may answer by it");
        play.probed("vpn.1.2", crate::action::Role::Startup, true);
        play.acknowledge();
        assert!(!stops(&play, "app.1.1", StopWhy::Orphaned), "requests are in flight");
        play.tell(Input::Idle { instance: id("vpn.1.1") });
        assert!(stops(&play, "app.1.1", StopWhy::Orphaned), "{:?}", play.changes);
    }

    #[test]
    fn nobody_joins_what_is_not_there_or_themselves_by_a_detour() {
        let check = |services: &[(&str, crate::spec::Service)]| {
            let services = services.iter().map(|(name, s)| ((*name).into(), s.clone())).collect();
            Project { services }.check().map_err(|error| error.to_string())
        };
        let app = joins(service(1), "vpn");
        let error = check(&[("app", app.clone())]).unwrap_err();
        assert_eq!(error, "service app needs vpn, which is not in the project");
        let error = check(&[("app", app), ("vpn", joins(service(1), "app"))]).unwrap_err();
        assert_eq!(error, "services need each other in a circle: app → vpn → app");
    }
}
