//! The crate against the kernel: every test runs on a host of its own, a fresh network namespace.

#[cfg(test)]
mod attach;
#[cfg(test)]
mod death;
#[cfg(test)]
mod netlink;
#[cfg(test)]
mod publish;
#[cfg(test)]
mod rootless;
#[cfg(test)]
mod testbed;
#[cfg(test)]
mod traffic;
