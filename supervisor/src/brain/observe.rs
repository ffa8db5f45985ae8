//! Looking: what containers there are, whatever anybody believes.

use std::collections::BTreeMap;

use minisup_core::input::{Container, Followed, Input, Observation, Status};
use minisup_core::name::{InstanceId, Revision};
use minisup_core::restart::ExitCause;

use super::News;
use super::container::Running;
use super::engine::Brain;
use super::joined;
use super::runtime::{Listed, Runtime};
use crate::layout::Layout;

impl Brain {
    /// The first look after a start: takes hold of everything that runs.
    pub(crate) async fn observe_at_start(&mut self, followed: Option<Followed>) -> Observation {
        let mut seen = look(&self.runtime, &self.layout).await.unwrap_or_else(|error| {
            eprintln!("minisup brain: the runtime cannot list containers: {error:#}");
            Found::default()
        });
        for (id, pid) in std::mem::take(&mut seen.pids) {
            match Running::hold(pid) {
                Ok(running) => self.hold(id, running),
                Err(_) => {
                    // It ended between the list and now.
                    if let Some(container) = seen.containers.get_mut(&id) {
                        container.status = Status::Stopped(ExitCause::Unknown);
                    }
                }
            }
        }
        for (id, container) in &mut seen.containers {
            // It ended while there was no brain: the keeper knows how.
            if let Status::Stopped(cause) = &mut container.status
                && let Some(pid) = pid_of(&self.layout, id)
                && let Some(known) = self.end_of(pid)
            {
                *cause = known;
            }
        }
        Observation {
            boot: boot_id(),
            containers: seen.containers,
            fresh: true,
            data_plane: followed,
            ..Observation::default()
        }
    }

    /// Looks again, beside the loop. What is touched meanwhile is left out of the result.
    pub(crate) fn look(&mut self) {
        self.reopen_store();
        self.touched = self.busy.clone();
        let (runtime, layout, news) =
            (self.runtime.clone(), self.layout.clone(), self.news.clone());
        tokio::task::spawn_local(async move {
            match look(&runtime, &layout).await {
                Ok(found) => {
                    let seen = Observation {
                        boot: boot_id(),
                        containers: found.containers,
                        ..Observation::default()
                    };
                    let _ = news.send(News::Looked(Box::new(seen)));
                }
                // A look that fails says nothing about containers.
                Err(error) => eprintln!("minisup brain: cannot look: {error:#}"),
            }
        });
    }

    pub(crate) fn looked(&mut self, mut seen: Observation) {
        seen.busy = self.touched.union(&self.busy).cloned().collect();
        // The end of a process that we hold comes by its pidfd, with its cause.
        for id in self.running.keys() {
            if let Some(container) = seen.containers.get_mut(id) {
                container.status = Status::Running;
            }
        }
        self.feed(&Input::Observed(seen));
    }
}

/// What a look finds.
#[derive(Default)]
struct Found {
    containers: BTreeMap<InstanceId, Container>,
    /// The first process of each that runs.
    pids: BTreeMap<InstanceId, i32>,
}

async fn look(runtime: &Runtime, layout: &Layout) -> anyhow::Result<Found> {
    let mut found = Found::default();
    for (id, listed) in runtime.list().await? {
        let Some(name) = id.strip_prefix(&layout.container("")) else { continue };
        let Ok(instance) = name.parse::<InstanceId>() else { continue };
        let status = status(&listed);
        if status == Status::Running {
            found.pids.insert(instance.clone(), listed.pid);
        }
        let bundle = layout.bundle(name);
        let revision = std::fs::read_to_string(bundle.join("revision")).unwrap_or_default();
        let revision = Revision::from(revision.trim());
        let joined = joined::noted(&bundle);
        found.containers.insert(instance, Container { revision, joined, status });
    }
    Ok(found)
}

/// The first process of an instance, as the runtime wrote it down.
fn pid_of(layout: &Layout, id: &InstanceId) -> Option<i32> {
    let file = layout.bundle(&id.to_string()).join("pid");
    std::fs::read_to_string(file).ok()?.trim().parse().ok()
}

fn status(listed: &Listed) -> Status {
    match listed.status.as_str() {
        "running" | "paused" => Status::Running,
        "created" | "creating" => Status::Created,
        _ => Status::Stopped(ExitCause::Unknown),
    }
}

/// Removes the cgroups between the hierarchies' roots and the instances, which the runtime made on
/// the way and leaves. Those that are in use stay.
pub(crate) fn remove_cgroups(project: &str) {
    let roots = std::fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten();
    let roots = roots.map(|entry| entry.path()).chain(["/sys/fs/cgroup".into()]);
    for root in roots {
        let _ = std::fs::remove_dir(root.join("minisup").join(project));
        let _ = std::fs::remove_dir(root.join("minisup"));
    }
}

fn boot_id() -> String {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    text.trim().to_string()
}
