//! What minirun did to the kernel, seen through other people's eyes.
//!
//! A test that reads a file through the code that wrote it proves only that the code agrees with
//! itself. The tests of this crate ask `cgroups-rs`, the crate that other runtimes are built on,
//! which shares nothing with minirun. It brings some fifty crates (D-Bus and an async executor
//! among them), and therefore lives in a crate of its own that nothing depends on.
