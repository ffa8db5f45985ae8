//! What is there against what should be there: adoption after a restart of the supervisor, and
//! the regular look at the kernel in between.
//!
//! | the state says      | found          | so                                              |
//! |---------------------|----------------|-------------------------------------------------|
//! | launching           | running        | launched                                        |
//! | launching           | half or nothing| launch owed again (it begins by cleaning up);   |
//! |                     |                | if a newer one is there: exited, cause unknown  |
//! | running or stopping | running        | as it was; what is owed is owed again           |
//! | running or stopping | stopped        | exited with that cause                          |
//! | running or stopping | nothing        | exited, cause unknown                           |
//! | exited              | nothing        | deleted                                         |
//! | nothing             | running, newer than any known, and its slot is vacant | adopted  |
//! | nothing             | anything else  | a stray: destroyed                              |

use crate::action::Action;
use crate::event::{Change, Rule};
use crate::guard::Guard;
use crate::input::{Container, Observation, Status};
use crate::instance::Phase;
use crate::name::InstanceId;
use crate::restart::ExitCause;
use crate::step::Step;

impl Step<'_> {
    pub(super) fn observed(&mut self, seen: &Observation) {
        if seen.boot != self.state.boot() {
            let evidence = format!("this is boot {}", seen.boot);
            self.emit(Change::Booted { boot: seen.boot.clone() }, Rule::Observed, evidence);
        }
        let known: Vec<InstanceId> = self.state.instances().map(|i| i.id.clone()).collect();
        for id in known.iter().filter(|id| !seen.busy.contains(id)) {
            self.compare(id, seen);
        }
        let strays: Vec<InstanceId> = self.state.strays().iter().cloned().collect();
        for id in strays.into_iter().filter(|id| !seen.busy.contains(id)) {
            if !seen.containers.contains_key(&id) {
                self.emit(Change::StrayGone(id), Rule::Adoption, "nothing was found of it");
            }
        }
        for (id, container) in &seen.containers {
            if self.state.instance(id).is_none() && !seen.busy.contains(id) {
                self.adopt_or_destroy(id, container, known.contains(id));
            }
        }
        if let Some(followed) = &seen.data_plane {
            self.data_plane(followed);
        }
    }

    /// Brings one known instance in line with what was found of it.
    fn compare(&mut self, id: &InstanceId, seen: &Observation) {
        let Some(instance) = self.state.instance(id) else { return };
        let found = seen.containers.get(id);
        let fresh = seen.fresh;
        let overtaken = seen.containers.keys().any(|other| other.slot == id.slot && *other > *id);
        let phase = instance.phase.clone();
        match (&phase, found.map(|container| &container.status)) {
            (Phase::Launching, Some(Status::Running)) => self.launched(id, &Ok(())),
            (Phase::Launching, Some(Status::Created) | None) if !overtaken => self.owe(id),
            (Phase::Exited { .. }, None) => {
                self.emit(Change::Deleted(id.clone()), Rule::Adoption, "nothing was found of it");
            }
            (Phase::Exited { .. }, Some(Status::Running)) => {
                self.act(Action::Destroy { instance: id.clone() });
            }
            (Phase::Exited { .. }, Some(_)) if fresh => self.owe(id),
            (Phase::Exited { .. }, Some(_)) => {}
            (_, Some(Status::Running)) if fresh => {
                if instance.is_running() {
                    self.resume_probing(id);
                } else {
                    self.owe(id);
                }
            }
            (_, Some(Status::Running)) => {}
            (_, Some(Status::Stopped(cause))) => {
                let cause = cause.clone();
                self.exited(id, &cause);
            }
            (_, Some(Status::Created) | None) => self.exited(id, &ExitCause::Unknown),
        }
    }

    /// A container that the state does not have: the end of the history was lost, or it should
    /// have been gone.
    fn adopt_or_destroy(&mut self, id: &InstanceId, container: &Container, was_known: bool) {
        let service = &id.slot.service;
        let vacant = self.state.slot(&id.slot).is_none_or(|slot| {
            slot.wanted && slot.instances.iter().all(|instance| !instance.occupies())
        });
        let vacant = vacant && *id >= self.state.next_instance(&id.slot);
        let wanted = (1..=self.state.replicas(service)).contains(&id.slot.index);
        let fits = vacant && wanted && self.state.knows(service, &container.revision);
        if fits && !was_known && container.status == Status::Running {
            let startup = self.state.project().services.get(service).and_then(|s| s.probes.startup);
            let deadline = startup.map(|startup| self.now + startup.within);
            let revision = container.revision.clone();
            let joined = container.joined.clone();
            let change = Change::Adopted { instance: id.clone(), revision, joined, deadline };
            self.emit(change, Rule::Adoption, "it was found running in a vacant slot");
            self.begin_probing(id);
        } else if self.guards.hold(Guard::Strays) {
            if !self.state.strays().contains(id) {
                let evidence = "it was found, and nothing wants it";
                self.emit(Change::Stray(id.clone()), Rule::Adoption, evidence);
            }
            self.act(Action::Destroy { instance: id.clone() });
        }
    }
}
