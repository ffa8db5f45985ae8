//! The same regular expressions as `regex`, by the same authors, in a tenth of the code.
//!
//! oci-spec checks one property of a configuration (`execCPUAffinity`) with a regular expression of
//! digits, and so brings an engine of half a megabyte into a runtime of three. Cargo puts this in its
//! place (`[patch.crates-io]` in the workspace's Cargo.toml).

pub use regex_lite::*;
