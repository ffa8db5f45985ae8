//! An OCI container runtime that you can read.

pub mod cgroup;
