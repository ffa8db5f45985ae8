//! Images: everything between "there is an image somewhere" and "minirun has a root file system".
//!
//! ```text
//! layout, archive, tree ──▶ source ──▶ import ──▶ store ──▶ bundle ──▶ minirun
//!                                        │
//!                                        └─ layer: decode, walk, write beneath one directory
//! ```
//!
//! An image is input from a stranger. Every byte of it is verified against its digest while it is
//! read, everything that it may ask for has a limit, and what it names is written beneath one
//! directory by calls that follow no link.

#![forbid(unsafe_code)]

// The commands name this library as every other user of it does.
extern crate self as rootfs_tools;

pub mod build;
pub mod bundle;
pub mod commands;
pub mod container;
pub mod digest;
mod error;
pub mod export;
pub mod image;
pub mod import;
pub mod layer;
pub mod progress;
pub mod reference;
pub mod registry;
pub mod source;
pub mod store;

pub use digest::Digest;
pub use error::{Context, Error, Result};
pub use reference::Reference;
pub use store::Store;
