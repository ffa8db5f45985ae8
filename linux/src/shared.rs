//! One number that a process and its copy both see, mmap(2) with `MAP_SHARED`.
//!
//! A child that is killed can say nothing any more. What it was doing it has written here before,
//! so that its parent can still tell.

use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicU32, Ordering};

use nix::sys::mman::{MapFlags, ProtFlags, mmap_anonymous};

use crate::{Error, Result};

/// A shared number, 0 at first. It lives as long as the process: one page, never unmapped.
#[derive(Debug, Clone, Copy)]
pub struct SharedNumber(&'static AtomicU32);

impl SharedNumber {
    /// Maps one.
    pub fn new() -> Result<Self> {
        const LENGTH: NonZeroUsize = NonZeroUsize::MIN;
        let access = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: a new anonymous mapping at an address of the kernel's choice touches nothing
        // else.
        #[expect(unsafe_code, reason = "mmap is unsafe in every crate")]
        let address = unsafe { mmap_anonymous(None, LENGTH, access, MapFlags::MAP_SHARED) }
            .map_err(|errno| Error::new("mmap", "4096, MAP_SHARED|MAP_ANONYMOUS", errno))?;
        // SAFETY: the mapping is page-aligned, zeroed, at least four bytes, and never unmapped.
        #[expect(unsafe_code, reason = "giving the mapping its type")]
        let number = unsafe { address.cast::<AtomicU32>().as_ref() };
        Ok(Self(number))
    }

    /// Stores `value`.
    pub fn set(self, value: u32) {
        self.0.store(value, Ordering::Release);
    }

    /// The last value stored by anyone.
    pub fn get(self) -> u32 {
        self.0.load(Ordering::Acquire)
    }
}
