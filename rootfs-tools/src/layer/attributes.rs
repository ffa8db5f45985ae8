//! Extended attributes: which of an archive's become ones of a file.
//!
//! An attribute can give power (a file capability) or steer the kernel (`trusted.overlay.redirect`
//! leads overlayfs to another directory, `overlay.metacopy` to another file's data). So there is a
//! list of what passes, and all else is left out and counted.

use super::whiteout::Form;
use crate::error::{Error, Result};
use linux::{Errno, xattr};
use std::collections::BTreeMap;
use std::ffi::{CStr, CString};
use std::fmt;
use std::os::fd::BorrowedFd;

/// The attribute that holds the capabilities of a program (capabilities(7)).
pub(super) const CAPABILITY: &[u8] = b"security.capability";

/// What was left out of an unpacked layer, and how often. People are told; nothing is lost in
/// silence.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Notices(BTreeMap<&'static str, u64>);

impl Notices {
    /// Counts something that was left out.
    pub fn add(&mut self, what: &'static str) {
        *self.0.entry(what).or_default() += 1;
    }

    /// Adds another layer's.
    pub fn merge(&mut self, other: &Self) {
        for (what, count) in &other.0 {
            *self.0.entry(what).or_default() += count;
        }
    }

    /// Whether there is anything to say.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Display for Notices {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (what, count)) in self.0.iter().enumerate() {
            let comma = if index == 0 { "" } else { ", " };
            write!(out, "{comma}{count} × {what}")?;
        }
        Ok(())
    }
}

/// Whether an attribute belongs to an image's files.
pub fn passes(name: &[u8]) -> bool {
    name == CAPABILITY || (name.starts_with(b"user.") && !name.starts_with(b"user.overlay."))
}

/// Gives an open file or directory the attributes that pass, and returns these, sorted.
///
/// # Errors
/// When the kernel refuses one for another reason than the lack of privilege.
pub fn set<'list>(
    fd: BorrowedFd<'_>,
    list: &'list [(Vec<u8>, Vec<u8>)],
    notices: &mut Notices,
) -> Result<Vec<&'list (Vec<u8>, Vec<u8>)>> {
    let mut done = Vec::new();
    for attribute in list {
        let (name, value) = attribute;
        if !passes(name) {
            notices.add(match name.starts_with(b"trusted.overlay.") || name.starts_with(b"user.overlay.") {
                true => "an attribute of overlayfs (the image has no say in the mount)",
                false => "an attribute that images do not have (only user.* and file capabilities pass)",
            });
            continue;
        }
        let c_name = CString::new(name.as_slice())
            .map_err(|_| Error::Invalid("the name of an attribute has a NUL byte".into()))?;
        match xattr::set(fd, &c_name, value) {
            Ok(()) => done.push(attribute),
            Err(error) if error.errno == Errno::EPERM && name == CAPABILITY => {
                notices.add("a file capability, which only root can give");
            }
            Err(error) => return Err(error.into()),
        }
    }
    done.sort();
    Ok(done)
}

/// The attributes of an open file or directory that belong to the image, sorted.
///
/// # Errors
/// When the kernel refuses.
pub fn get(fd: BorrowedFd<'_>) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
    let mut list = Vec::new();
    for name in xattr::list(fd)? {
        if passes(name.to_bytes())
            && let Some(value) = xattr::get(fd, &name)?
        {
            list.push((name.into_bytes(), value));
        }
    }
    Ok(list)
}

/// Whether an open directory hides the layers below.
///
/// # Errors
/// When the kernel refuses.
pub fn is_opaque(fd: BorrowedFd<'_>, form: Form) -> Result<bool> {
    let name: &CStr = form.opaque_attribute();
    Ok(xattr::get(fd, name)?.as_deref() == Some(b"y"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_belongs_to_files_passes() {
        assert!(passes(b"user.mime_type") && passes(b"security.capability"));
        for name in [
            "trusted.overlay.redirect",
            "user.overlay.metacopy",
            "security.selinux",
            "system.posix_acl_access",
        ] {
            assert!(!passes(name.as_bytes()), "{name}");
        }
    }

    #[test]
    fn notices_count() {
        let mut notices = Notices::default();
        notices.add("a device");
        notices.add("a device");
        let mut sum = Notices::default();
        sum.merge(&notices);
        assert_eq!(sum.to_string(), "2 × a device");
    }
}
