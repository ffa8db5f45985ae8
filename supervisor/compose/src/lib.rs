//! The Compose file: spanned YAML to a resolved, typed model.

mod diagnostic;
mod dotenv;
mod files;
mod interpolate;
mod limits;
mod source;
mod yaml;

pub use diagnostic::{Diagnostic, Errors, Severity, Warning};
pub use files::{Disk, Files, Tree};
pub use source::{Location, Variables};
