//! rootfs-tools as people use it: the program, real and hostile images, a store of its own for each
//! test.

#![expect(clippy::unwrap_used, reason = "a step of a test that fails has failed the test")]

mod build;
mod common;
mod death;
mod durable;
mod fuzz;
mod hostile;
mod layers;
mod life;
mod push;
mod registry;
mod tools;
