//! Whom a command is about: `web`, `web.2` or `web.2.7`.

use anyhow::{Result, bail};
use minisup_core::instance::{Instance, Phase};

use crate::brain::api::StateView;

/// The instances that run and that a name means, in the order of their slots.
///
/// # Errors
/// The name means nothing, or nothing that runs.
pub(super) fn running<'a>(view: &'a StateView, name: &str) -> Result<Vec<&'a Instance>> {
    let is_meant = |instance: &&Instance| {
        let id = &instance.id;
        [id.slot.service.as_str().to_string(), id.slot.to_string(), id.to_string()]
            .iter()
            .any(|known| known == name)
    };
    let runs =
        |instance: &&Instance| !matches!(instance.phase, Phase::Launching | Phase::Exited { .. });
    let found: Vec<&Instance> = view.state.instances().filter(is_meant).filter(runs).collect();
    if found.is_empty() {
        let known: Vec<String> = view
            .state
            .slots()
            .map(|slot| slot.id.to_string())
            .chain(view.stack.services.keys().cloned())
            .collect();
        let is_there = view.state.instances().any(|instance| instance.id.to_string() == name);
        if is_there || known.iter().any(|known| known == name) {
            bail!("nothing of {name} runs now; `minisup ps` says why");
        }
        bail!("there is no {name}; the project has {}", known.join(", "));
    }
    Ok(found)
}
