//! The resolved model: every value typed, every reference named, short syntaxes long.
//!
//! A type serialises to the Compose keys it was read from, so that the canonical output is a
//! Compose file again. Where Compose has two keys for one thing (`mem_limit` and
//! `deploy.resources.limits.memory`), the model has one.

mod build;
mod deploy;
mod health;
mod logging;
mod mount;
mod namespaces;
mod network;
mod port;
mod process;
mod project;
mod security;
mod service;
mod service_keys;
mod storage;

pub use build::{Build, BuildNetwork};
pub use deploy::{
    Constraint, Deploy, EndpointMode, FailureAction, Limits, Mode, Order, Placement, Reservations,
    Resources, RestartCondition, RestartPolicy, Rollout,
};
pub use health::{Healthcheck, Test};
pub use logging::{LogDriver, Logging};
pub use mount::{
    BindOptions, Device, Grant, Mount, MountKind, Propagation, Recursive, Tmpfs, TmpfsOptions,
    VolumeOptions,
};
pub use namespaces::{CgroupMode, IpcMode, NetworkMode, PidMode};
pub use network::{Attachment, Driver, Ipam, IpamPool, Network};
pub use port::{ExposedPort, PortMode, PortRange, Protocol, PublishedPort};
pub(crate) use process::read_signal;
pub use process::{
    BlkioConfig, BlkioRate, BlkioWeight, DeviceRule, Hook, HostAddress, Swap, Ulimit,
};
pub use project::Project;
pub(crate) use project::nearest;
pub use security::{Seccomp, SecurityOption};
pub use service::{Condition, Dependency, PullPolicy, Service};
pub use storage::{Config, Secret, SecretSource, SecretText, Volume};

/// Whether a value is that which an absent key has.
fn unset<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}
