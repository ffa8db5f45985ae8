//! cgroups: how much a container may use, and the handle on all of its processes.
//!
//! # What the kernel offers
//! A cgroup is a directory. What is in it shares limits and counters, which are files; what a
//! process forks is born in the same one. There are two generations of the interface: version 2 is
//! one tree, version 1 a tree for each controller ([`Host`]).
//!
//! # What we do
//! ```text
//! Host::detect      which trees there are
//! Place::new        where the container's group is in them
//! Cgroup::make      mkdir in each tree; in version 2 enable the controllers above it
//! Cgroup::apply     write the limits, load the program that decides about devices
//! birth_fd, join    the container's process is born in version 2, and moves itself in version 1
//! freeze, kill_all  all processes at once, through version 2
//! oom, stats        what happened
//! remove            rmdir
//! ```
//!
//! # What goes wrong without it
//! One container takes the memory, the CPUs or the process numbers of all others; and nobody can
//! stop a program that forks faster than it is killed.
//!
//! # By hand
//! The first line finds the tree that limits processes, in either version.
//! ```sh
//! tree=/sys/fs/cgroup; test -d $tree/pids && tree=$tree/pids
//! test -f $tree/cgroup.subtree_control && echo +pids > $tree/cgroup.subtree_control
//! mkdir $tree/lesson
//! echo 1 > $tree/lesson/pids.max
//! ! sh -c "echo 0 > $tree/lesson/cgroup.procs; sleep 0 & wait"
//! grep 'max [1-9]' $tree/lesson/pids.events
//! rmdir $tree/lesson
//! ```
//!
//! See: cgroups(7), Documentation/admin-guide/cgroup-v2.rst, runtime-spec config-linux.md.

mod apply;
mod controller;
mod devices;
mod enable;
mod entry;
mod error;
mod group;
mod host;
mod join;
mod limits;
mod make;
mod mounts;
mod oom;
mod peek;
mod place;
mod processes;
mod remove;
mod stats;
mod systemd;
mod within;

pub use entry::Entry;
pub use error::{Error, Missing};
pub use group::{Cgroup, Record};
pub use host::{Controller, Hierarchy, Host, Layout, Unified, Version};
pub use join::join;
pub use limits::MINIMUM_BYTES;
pub use oom::{OomReport, OomWatch};
pub use place::{Place, check_no_limits};
pub use processes::PATIENCE;
pub use stats::{
    Blkio, BlkioEntry, Cpu, CpuUsage, Cpuset, Hugetlb, Memory, MemoryEntry, Pids, Pressure,
    PressureLine, Stats, Throttling,
};
pub use systemd::Unit;
