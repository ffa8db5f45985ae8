//! What is kept of an instance that has died: its cause, its last minutes, what the host was like.
//!
//! Written at the moment of death, before anything of the container is deleted; its log file stays
//! beside it. As many are kept as there are logs of dead instances.

use minisup_core::name::InstanceId;
use minisup_core::restart::ExitCause;
use serde::{Deserialize, Serialize};

use super::engine::Brain;
use super::meter::Sample;
use crate::clock;

/// The findings.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Autopsy {
    /// Who.
    pub(crate) instance: String,
    /// What it was made from.
    pub(crate) revision: String,
    /// How it ended.
    pub(crate) cause: ExitCause,
    /// When, in milliseconds since 1970.
    pub(crate) wall_ms: i64,
    /// How long it had lived, in milliseconds, as far as this supervisor has seen it.
    pub(crate) lived_ms: u64,
    /// What it used in its last minutes, the oldest first; the last is from after its end.
    pub(crate) samples: Vec<Sample>,
    /// The host's free memory then, in bytes (`MemAvailable`).
    pub(crate) host_available_bytes: u64,
    /// The host's pressure then, as `/proc/pressure` has it.
    pub(crate) host_pressure: Vec<String>,
}

impl Brain {
    /// Writes down what is known of an instance that has just died.
    pub(crate) fn dissect(&mut self, instance: &InstanceId, cause: &ExitCause) {
        let Some(known) = self.state.instance(instance) else { return };
        let revision = known.revision.as_str().to_string();
        let now_ms = clock::now().ms();
        let measured = self.meters.get_mut(instance).map(|meter| {
            meter.sample();
            (meter.since_ms, meter.samples.iter().cloned().collect())
        });
        let (since_ms, samples) = measured.unwrap_or((now_ms, Vec::new()));
        let findings = Autopsy {
            instance: instance.to_string(),
            revision,
            cause: cause.clone(),
            wall_ms: clock::wall_ms(),
            lived_ms: now_ms.saturating_sub(since_ms),
            samples,
            host_available_bytes: available(),
            host_pressure: pressure(),
        };
        let file = self.layout.autopsy(&findings.instance);
        let written = serde_json::to_vec(&findings)
            .map_err(std::io::Error::from)
            .and_then(|json| std::fs::write(&file, json));
        if let Err(error) = written {
            // A full disk must not keep anything from being started again.
            eprintln!("minisup brain: {}: {error}", file.display());
        }
    }
}

fn available() -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    let kib = line.and_then(|rest| rest.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}

/// The lines of the host's pressure, each behind its resource; none where the kernel has none.
fn pressure() -> Vec<String> {
    let lines = |resource: &&str| {
        let text = std::fs::read_to_string(format!("/proc/pressure/{resource}")).ok()?;
        Some(text.lines().map(|line| format!("{resource} {line}")).collect::<Vec<_>>())
    };
    ["cpu", "memory", "io"].iter().filter_map(lines).flatten().collect()
}
