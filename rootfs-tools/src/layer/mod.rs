//! One layer of an image: from a compressed tar stream to a directory that overlayfs can stack.
//!
//! ```text
//! bytes ─▶ sha256 (blob) ─▶ gunzip, unzstd ─▶ sha256 (diffID) ─▶ walk ─▶ write beneath one dirfd
//!          decode.rs                                             walk.rs  target.rs
//! ```
//!
//! The left half and the right half run on a thread each. A layer is unpacked for itself, without
//! the layers below it, so that layers can be unpacked in parallel; what little depends on them
//! (a directory that the layer only mentions, a hard link to a file below) is settled at the end.

pub mod attributes;
pub mod compress;
pub mod compression;
pub mod decode;
pub mod extension;
pub mod id_map;
pub mod limits;
pub mod listing;
pub mod name;
pub mod pack;
pub mod scan;
pub mod settle;
pub mod sparse;
pub mod target;
pub mod unpack;
pub mod walk;
pub mod whiteout;
pub mod writer;
