//! Registries: images over HTTP (OCI distribution specification 1.1).
//!
//! A pull is a source like any other: its layers are opened, read, verified and unpacked by the
//! same code as those of an archive, while they arrive. What a broken connection leaves is kept in
//! `partial/` and continued, in the same run or in a later one.
//!
//! Host names are looked up by the C library. In a static program that is its own code for
//! `/etc/hosts` and DNS (inside libc since glibc 2.34); other services of nsswitch.conf are not
//! asked.

pub mod auth;
pub mod client;
pub mod credentials;
pub mod download;
pub mod pull;
pub mod push;
pub mod upload;

pub use client::{Client, Options};
