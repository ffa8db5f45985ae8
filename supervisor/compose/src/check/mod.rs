//! What only the whole project shows: references, contradictions, collisions.

mod dependencies;
mod joins;
mod ports;
mod references;
mod resources;
mod scale;

use crate::findings::Findings;
use crate::model::Project;

/// Checks a project, and takes away optional dependencies on services that are left out.
pub(crate) fn check(project: &mut Project, platform: &str, cx: &mut Findings) {
    joins::check(project, cx);
    dependencies::check(project, cx);
    references::check(project, cx);
    ports::check(project, cx);
    resources::check(project, cx);
    scale::check(project, platform, cx);
}
