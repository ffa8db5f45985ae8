//! Limits on what a file may cost, so that a hostile one ends in a clear error.

/// Largest file that is read.
pub(crate) const FILE_BYTES: usize = 1 << 20;

/// Deepest nesting of mappings and sequences.
pub(crate) const DEPTH: usize = 64;

/// Most values of one file once its aliases are expanded.
pub(crate) const NODES: usize = 100_000;

/// Most text of one file once its aliases are expanded and its variables are filled in.
pub(crate) const TEXT_BYTES: usize = 8 << 20;

/// Deepest nesting of `${A:-${B:-…}}`.
pub(crate) const INTERPOLATION_DEPTH: usize = 32;

/// Longest chain of `extends`, and deepest nesting of `include`.
pub(crate) const REFERENCES: usize = 32;

/// Most files of one project.
pub(crate) const FILES: usize = 1000;

/// Most text of all files of one project.
pub(crate) const PROJECT_BYTES: usize = 64 << 20;

/// Most values of one project, all files together, after `extends` and merging.
pub(crate) const PROJECT_NODES: usize = 400_000;

/// Most errors that are reported at once.
pub(crate) const ERRORS: usize = 100;

/// Most ports that one range may name.
pub(crate) const PORT_RANGE: u16 = 1000;

/// Most ports of one project, once ranges are written out.
pub(crate) const PORTS: usize = 20_000;

/// Longest key of a mapping.
pub(crate) const KEY_BYTES: usize = 1024;
