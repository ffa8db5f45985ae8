//! The Linux kernel as containers see it.
