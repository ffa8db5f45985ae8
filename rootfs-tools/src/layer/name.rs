//! The names in an archive, checked: relative, without `..`, short enough for the kernel.
//!
//! This is the first of two walls. The second is the kernel: [`super::target`] resolves what
//! passes here with openat2(2) beneath one directory, and follows no link.

use super::limits::Limits;
use crate::error::{Error, Result};
use std::fmt;

/// A path inside a layer: its components, never empty ones, never `.` or `..`. The root of the
/// layer has none.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(Vec<u8>);

impl Name {
    /// Checks a name from an archive. `./etc//passwd/` is `etc/passwd`.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a name that is absolute, has a `..` or a NUL, or is too long.
    pub fn new(raw: &[u8]) -> Result<Self> {
        let refuse = |why: &str| Err(Error::Invalid(format!("the name `{}` {why}", show(raw))));
        if raw.len() > Limits::PATH_BYTES {
            return refuse("is longer than 4095 bytes");
        }
        if raw.first() == Some(&b'/') {
            return refuse("is absolute, and a layer names only what is inside it");
        }
        if raw.contains(&0) {
            return refuse("has a NUL byte");
        }
        let mut path = Vec::with_capacity(raw.len());
        for part in raw.split(|&byte| byte == b'/') {
            match part {
                b"" | b"." => {}
                b".." => return refuse("has a `..`, which would lead out of the layer"),
                _ => {
                    if !path.is_empty() {
                        path.push(b'/');
                    }
                    path.extend_from_slice(part);
                }
            }
        }
        Ok(Self(path))
    }

    /// The whole path: `usr/bin/env`. Empty for the root.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Whether this is the layer's own root directory.
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// The directory that it is in, and its last component. The root has no last component.
    pub fn split(&self) -> (&[u8], &[u8]) {
        match self.0.iter().rposition(|&byte| byte == b'/') {
            Some(slash) => (&self.0[..slash], &self.0[slash + 1..]),
            None => (b"", &self.0),
        }
    }

    /// The same directory, another last component.
    pub fn sibling(&self, last: &[u8]) -> Self {
        let (parent, _) = self.split();
        Self::joined(parent, last)
    }

    /// A name from two parts that have been checked before.
    pub fn joined(parent: &[u8], last: &[u8]) -> Self {
        let mut path = parent.to_vec();
        if !path.is_empty() && !last.is_empty() {
            path.push(b'/');
        }
        path.extend_from_slice(last);
        Self(path)
    }
}

impl fmt::Display for Name {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(if self.is_root() { "." } else { "" })?;
        out.write_str(&show(&self.0))
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "`{self}`")
    }
}

/// A name for a message: no control bytes, and not longer than a line or two.
pub fn show(raw: &[u8]) -> String {
    const LONGEST: usize = 160;
    let shown = &raw[..raw.len().min(LONGEST)];
    let dots = if raw.len() > LONGEST { "…" } else { "" };
    format!("{}{dots}", shown.escape_ascii().to_string().replace("\\'", "'"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_made_plain() {
        for raw in ["etc/passwd", "./etc/passwd", "etc//passwd/", "./././etc/./passwd/."] {
            assert_eq!(Name::new(raw.as_bytes()).unwrap().as_bytes(), b"etc/passwd", "{raw}");
        }
        assert!(Name::new(b"./").unwrap().is_root());
        assert_eq!(Name::new(b"a/b").unwrap().split(), (&b"a"[..], &b"b"[..]));
        assert_eq!(Name::new(b"a").unwrap().sibling(b"c").as_bytes(), b"c");
    }

    #[test]
    fn a_name_that_leads_out_is_refused() {
        let long = vec![b'a'; 4096];
        for raw in [&b"/etc"[..], b"..", b"a/../b", b"../x", b"a/..", b"a\0b", &long] {
            assert!(Name::new(raw).is_err(), "{}", show(raw));
        }
    }

    #[test]
    fn names_need_not_be_text() {
        let name = Name::new(b"caf\xe9/...").unwrap();
        assert_eq!(name.as_bytes(), b"caf\xe9/...");
        assert_eq!(name.to_string(), "caf\\xe9/...");
    }
}
