//! The Compose file: spanned YAML to a resolved, typed model.
//!
//! ```text
//! bytes ─▶ tree with places ─▶ variables ─▶ long syntax ─▶ extends, include ─▶ merged tree
//!   yaml        yaml             fill          short       extends, include       merge
//!                                                                                   │
//!            Project ◀─ checks ◀─ typed values ◀─ env files ◀─ profiles ◀───────────┘
//!                       check    field, model     env_file      load
//! ```
//!
//! [`Project::load`] reads files of the host, [`Loader`] everything else. All mistakes of a stage are
//! found in one run and printed with file, line, column, a caret, and what would be right. Every key of the
//! Compose Specification is read, warned about or refused: none is ignored in silence.
//!
//! What Compose lacks is in `x-minisup` ([`minisup`]), which other tools pass over.
//!
//! The crate reads the files it is told to read, through [`Files`], and touches nothing else: no
//! clock, no threads, no network.

mod assembly;
mod canonical;
mod check;
mod classes;
mod diagnostic;
mod dotenv;
mod env_file;
mod extends;
mod field;
mod files;
mod fill;
mod findings;
mod include;
mod interpolate;
mod limits;
mod load;
mod merge;
pub mod minisup;
pub mod model;
mod quantity;
#[cfg(test)]
mod reference;
mod short;
mod source;
mod suggest;
mod yaml;

pub use diagnostic::{Diagnostic, Errors, Severity, Warning};
pub use files::{Disk, Files, Tree};
pub use load::{Loader, find};
pub use model::Project;
pub use quantity::{Bytes, Cpus, FileMode, Millis, Percent, Ratio};
pub use source::{Location, Variables};
