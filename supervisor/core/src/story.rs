//! The rules as stories: what a person would try first.

use crate::action::{Action, Role};
use crate::event::{Change, Obstacle};
use crate::input::{Command, Evidence, Input};
use crate::instance::Route;
use crate::restart::{ExitCause, RestartOn};
use crate::scenario::{Play, id, needs, service};
use crate::slot::Standing;
use crate::spec::{Condition, Order};
use crate::time::Span;

#[test]
fn a_killed_replica_is_started_again_in_the_same_turn() {
    let mut play = Play::of(&[("web", service(1))]);
    play.up("web.1.1");
    play.look_away();
    play.tell(Input::Exited { instance: id("web.1.1"), cause: ExitCause::Signal(9) });
    assert!(play.launches("web.1.2"), "before the old one is deleted: {:?}", play.actions);
}

#[test]
fn a_frozen_replica_is_replaced_before_it_is_stopped() {
    let mut play = Play::of(&[("web", service(3))]);
    play.all_up(&["web.1.1", "web.2.1", "web.3.1"]);
    play.look_away();
    play.tell(Input::Doubted { instance: id("web.1.1"), evidence: Evidence::Silent });
    let route = |play: &Play| play.state.instance(&id("web.1.1")).unwrap().route;
    assert_eq!(route(&play), Route::Suspect, "traffic turns away at the first doubt");
    let half_a_second = Span::from_ms(500);
    let probed_at_once = |action: &Action| {
        let Action::Probe { after, timeout, .. } = action else { return false };
        (*after, *timeout) == (Span::ZERO, half_a_second)
    };
    assert!(play.asked(probed_at_once), "{:?}", play.actions);
    play.probed("web.1.1", Role::Live, false);
    assert_eq!(route(&play), Route::Failing, "what it has may leave it when a probe agrees");
    for _ in 0..2 {
        play.probed("web.1.1", Role::Live, false);
    }
    assert!(play.launches("web.1.2") && !play.signals("web.1.1"));
    play.up("web.1.2");
    play.acknowledge();
    play.pass(Span::from_secs(1));
    assert!(play.signals("web.1.1"), "{:?}", play.changes);
    play.pass(Span::from_secs(2));
    let kill = Action::Kill { instance: id("web.1.1") };
    assert!(play.asked(|action| *action == kill), "a hung one gets two seconds, not ten");
}

#[test]
fn one_that_recovers_in_time_keeps_its_place() {
    let mut play = Play::of(&[("web", service(1))]);
    play.up("web.1.1");
    (0..3).for_each(|_| play.probed("web.1.1", Role::Live, false));
    play.launched("web.1.2");
    play.look_away();
    play.probed("web.1.1", Role::Live, true);
    assert!(play.signals("web.1.2") && !play.signals("web.1.1"), "{:?}", play.changes);
}

#[test]
fn a_failed_probe_that_could_not_be_made_counts_nothing() {
    let mut play = Play::of(&[("web", service(1))]);
    play.up("web.1.1");
    for _ in 0..10 {
        let outcome = crate::input::Outcome::Impossible("no namespace".into());
        let instance = id("web.1.1");
        play.tell(Input::Probed { instance, role: Role::Live, attempt: 0, outcome });
    }
    assert!(!play.state.instance(&id("web.1.1")).unwrap().health.is_doubtful());
    let noted = |change: &&Change| matches!(change, Change::ProbeImpossible(_));
    assert_eq!(play.changes.iter().filter(noted).count(), 1, "said once, not ten times");
}

#[test]
fn the_stop_signal_waits_for_the_data_plane_and_for_requests() {
    let mut play = Play::of(&[("web", service(2))]);
    play.all_up(&["web.1.1", "web.2.1"]);
    play.look_away();
    play.tell(Input::Command(Command::Scale { service: "web".into(), replicas: 1 }));
    play.pass(Span::from_secs(4));
    assert!(!play.signals("web.2.1"), "the data plane has not acknowledged");
    play.acknowledge();
    assert!(!play.signals("web.2.1"), "a request may be in flight");
    play.tell(Input::Idle { instance: id("web.2.1") });
    assert!(play.signals("web.2.1"));
    play.exited("web.2.1", ExitCause::Code(0));
    assert!(play.state.slot(&id("web.2.1").slot).is_none(), "and nothing is left of the slot");
}

#[test]
fn a_data_plane_that_never_answers_does_not_stop_a_stop() {
    let mut play = Play::of(&[("web", service(1))]);
    play.up("web.1.1");
    play.tell(Input::Command(Command::Down));
    play.pass(Span::from_secs(15));
    assert!(play.signals("web.1.1"), "five seconds for the data plane, ten to drain");
}

#[test]
fn an_update_goes_slot_by_slot_and_stands_still_when_it_fails() {
    let mut play = Play::of(&[("web", service(2))]);
    play.all_up(&["web.1.1", "web.2.1"]);
    let mut new = service(2);
    new.revision = "v2".into();
    play.look_away();
    play.apply(&[("web", new)]);
    assert!(play.launches("web.1.2") && !play.launches("web.2.2"), "one at a time");
    play.launched("web.1.2");
    play.pass(Span::from_secs(31));
    assert!(play.signals("web.1.2"), "it did not come up in time");
    play.exited("web.1.2", ExitCause::Signal(15));
    play.pass(Span::from_secs(1));
    assert!(play.launches("web.1.3") && !play.signals("web.1.1") && !play.signals("web.2.1"));
}

#[test]
fn an_update_waits_a_second_for_what_no_probe_can_ask() {
    let bare = |revision: &str, order| crate::spec::Service {
        probes: crate::spec::Probes::default(),
        revision: revision.into(),
        order,
        ..service(2)
    };
    let old = || Play::of(&[("web", bare("v1", Order::StartFirst))]);
    let start = |play: &mut Play, name: &str| {
        play.launched(name);
        play.acknowledge();
    };
    let mut play = old();
    ["web.1.1", "web.2.1"].iter().for_each(|name| start(&mut play, name));
    play.pass(Span::from_secs(10));
    play.look_away();
    play.apply(&[("web", bare("v2", Order::StartFirst))]);
    start(&mut play, "web.1.2");
    play.exited("web.1.2", ExitCause::Code(1));
    play.pass(Span::from_secs(1));
    let stopped = |play: &Play| {
        let of = |change: &Change| match change {
            Change::Stopping { instance, .. } => Some(instance.clone()),
            _ => None,
        };
        play.changes.iter().filter_map(of).collect::<std::collections::BTreeSet<_>>().len()
    };
    assert_eq!(stopped(&play), 0, "two still serve");
    assert!(play.launches("web.1.3"));
    start(&mut play, "web.1.3");
    play.pass(Span::from_ms(999));
    assert_eq!(stopped(&play), 0);
    play.pass(Span::from_ms(1));
    assert_eq!(stopped(&play), 1, "{:?}", play.changes);

    let mut play = old();
    ["web.1.1", "web.2.1"].iter().for_each(|name| start(&mut play, name));
    play.pass(Span::from_secs(10));
    play.look_away();
    play.apply(&[("web", bare("v2", Order::StopFirst))]);
    play.acknowledge();
    play.pass(Span::from_secs(10));
    play.exited("web.1.1", ExitCause::Code(0));
    start(&mut play, "web.1.2");
    play.pass(Span::from_ms(500));
    assert_eq!(stopped(&play), 1, "the other stays until this one has shown that it runs");
    play.exited("web.1.2", ExitCause::Code(1));
    play.pass(Span::from_secs(5));
    assert_eq!(stopped(&play), 1);
}

#[test]
fn without_room_or_with_a_single_writer_the_old_one_goes_first() {
    let mut tight = service(1);
    tight.reserve.memory_bytes = 600;
    let single = crate::spec::Service { order: Order::StopFirst, ..service(1) };
    for spec in [tight, single] {
        let mut play = Play::of(&[("db", spec.clone())]);
        play.up("db.1.1");
        play.look_away();
        play.apply(&[("db", crate::spec::Service { revision: "v2".into(), ..spec })]);
        assert!(!play.launches("db.1.2"));
        play.acknowledge();
        play.tell(Input::Idle { instance: id("db.1.1") });
        assert!(play.signals("db.1.1"));
        play.exited("db.1.1", ExitCause::Code(0));
        assert!(play.launches("db.1.2"));
    }
}

#[test]
fn more_than_the_host_has_is_refused_and_changes_nothing() {
    let mut spec = service(2);
    spec.reserve.memory_bytes = 400;
    let mut play = Play::of(&[("web", spec)]);
    let before = play.state.clone();
    let turn = play.tell(Input::Command(Command::Scale { service: "web".into(), replicas: 3 }));
    assert!(turn.refused.is_some_and(|error| error.contains("1200 bytes")));
    assert_eq!(play.state, before);
}

#[test]
fn the_first_start_waits_for_what_it_needs_and_a_restart_does_not() {
    let web = needs(service(1), "db", Condition::Healthy);
    let mut play = Play::of(&[("db", service(1)), ("web", web)]);
    assert!(play.launches("db.1.1") && !play.launches("web.1.1"));
    let waits =
        Change::Waiting { slot: id("web.1.1").slot, obstacle: Obstacle::Dependency("db".into()) };
    assert!(play.changes.contains(&waits), "and says so");
    play.up("db.1.1");
    assert!(play.launches("web.1.1"));
    play.up("web.1.1");
    play.exited("db.1.1", ExitCause::Signal(9));
    play.look_away();
    play.exited("web.1.1", ExitCause::Signal(9));
    assert!(play.launches("web.1.2"), "a crash does not wait for somebody else's health");
}

#[test]
fn down_stops_dependents_first() {
    let web = needs(service(1), "db", Condition::Started);
    let mut play = Play::of(&[("db", service(1)), ("web", web)]);
    play.up("db.1.1");
    play.up("web.1.1");
    play.tell(Input::Command(Command::Down));
    play.acknowledge();
    play.tell(Input::Idle { instance: id("web.1.1") });
    assert!(play.signals("web.1.1") && !play.signals("db.1.1"));
    play.exited("web.1.1", ExitCause::Code(0));
    play.acknowledge();
    play.tell(Input::Idle { instance: id("db.1.1") });
    assert!(play.signals("db.1.1"));
    play.exited("db.1.1", ExitCause::Code(0));
    assert!(play.state.is_down());
}

#[test]
fn a_one_shot_service_ends_and_is_not_started_again() {
    let mut job = service(1);
    job.restart.on = RestartOn::Failure;
    job.probes = Default::default();
    let mut play = Play::of(&[("migrate", job.clone())]);
    play.launched("migrate.1.1");
    play.exited("migrate.1.1", ExitCause::Code(1));
    assert!(play.launches("migrate.1.2"), "a failure is tried again");
    play.launched("migrate.1.2");
    play.exited("migrate.1.2", ExitCause::Code(0));
    let standing = |play: &Play| play.state.slot(&id("migrate.1.1").slot).unwrap().standing;
    assert_eq!(standing(&play), Standing::Completed);
    play.look_away();
    play.pass(Span::from_secs(60));
    assert!(!play.launches("migrate.1.3"));
    job.revision = "v2".into();
    play.apply(&[("migrate", job)]);
    assert!(play.launches("migrate.1.3"), "another revision is another job");
}

#[test]
fn doubt_about_most_of_a_service_is_not_applied() {
    let mut play = Play::of(&[("web", service(3))]);
    let names = ["web.1.1", "web.2.1", "web.3.1"];
    play.all_up(&names);
    let routes = |play: &Play| names.map(|name| play.state.instance(&id(name)).unwrap().route);
    for name in &names[..2] {
        play.tell(Input::Doubted { instance: id(name), evidence: Evidence::Slow });
    }
    assert_eq!(routes(&play), [Route::Active; 3], "two of three in doubt: the cause is shared");
}

#[test]
fn a_second_up_changes_nothing() {
    let services = [("web", service(2))];
    let mut play = Play::of(&services);
    play.all_up(&["web.1.1", "web.2.1"]);
    let turn = play.apply(&services);
    assert_eq!((turn.events, turn.actions), (vec![], vec![]));
}
