//! Whiteouts: how a layer says that something below it is gone.
//!
//! In an archive (image-spec, layer.md, "Whiteouts") a deletion of `x` is an empty file `.wh.x`
//! beside it, and a directory that hides all that is below it holds a file `.wh..wh..opq`. On
//! disk overlayfs wants a character device 0:0 named `x`, and the attribute
//! `trusted.overlay.opaque`, or `user.overlay.opaque` where no one has privilege
//! (Documentation/filesystems/overlayfs.rst, "whiteouts and opaque directories").

use super::name::Name;
use crate::error::{Error, Result};
use std::ffi::CStr;

/// What begins the name of every whiteout.
const PREFIX: &[u8] = b".wh.";
/// AUFS kept its own records under this prefix. They are not part of the tree.
const META: &[u8] = b".wh..wh.";
/// The mark of an opaque directory.
const OPAQUE: &[u8] = b".wh..wh..opq";

/// In which of overlayfs's two attribute families a layer is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Form {
    /// `trusted.overlay.*`: needs CAP_SYS_ADMIN, and no container can forge it.
    Trusted,
    /// `user.overlay.*`: for a mount with the option `userxattr`, in a user namespace.
    User,
}

impl Form {
    /// The form that this process can write.
    pub fn of_this_process() -> Self {
        if nix::unistd::geteuid().is_root() { Form::Trusted } else { Form::User }
    }

    /// The attribute that makes a directory opaque when its value is `y`.
    pub fn opaque_attribute(self) -> &'static CStr {
        match self {
            Form::Trusted => c"trusted.overlay.opaque",
            Form::User => c"user.overlay.opaque",
        }
    }
}

/// What an entry of an archive means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Meaning {
    /// An entry of the tree.
    Entry,
    /// This name is gone.
    Deleted(Name),
    /// All that is below this directory is gone.
    Opaque(Name),
    /// A record of AUFS, which is not for us.
    Foreign,
}

/// Reads the meaning from the name.
///
/// # Errors
/// [`Error::Invalid`] for a whiteout that names nothing, the directory itself or its parent.
pub fn meaning(name: &Name) -> Result<Meaning> {
    let (parent, last) = name.split();
    if last == OPAQUE {
        return Ok(Meaning::Opaque(Name::joined(parent, b"")));
    }
    if last.starts_with(META) {
        return Ok(Meaning::Foreign);
    }
    match last.strip_prefix(PREFIX) {
        None => Ok(Meaning::Entry),
        Some(b"" | b"." | b"..") => {
            Err(Error::Invalid("a whiteout must name something that can be deleted".into()))
        }
        Some(deleted) => Ok(Meaning::Deleted(name.sibling(deleted))),
    }
}

/// The name in an archive that deletes `name`.
pub fn deletion_of(name: &Name) -> Name {
    let (_, last) = name.split();
    name.sibling(&[PREFIX, last].concat())
}

/// The name in an archive that makes the directory `name` opaque.
pub fn opacity_of(name: &Name) -> Name {
    Name::joined(name.as_bytes(), OPAQUE)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Name {
        Name::new(text.as_bytes()).unwrap()
    }

    #[test]
    fn whiteouts_are_read_from_names() {
        assert_eq!(meaning(&name("a/b")).unwrap(), Meaning::Entry);
        assert_eq!(meaning(&name("a/.wh.b")).unwrap(), Meaning::Deleted(name("a/b")));
        assert_eq!(meaning(&name("a/.wh..wh..opq")).unwrap(), Meaning::Opaque(name("a")));
        assert_eq!(meaning(&name(".wh..wh..opq")).unwrap(), Meaning::Opaque(name(".")));
        assert_eq!(meaning(&name(".wh..wh.plnk")).unwrap(), Meaning::Foreign);
        assert_eq!(meaning(&name("a/.wh...b")).unwrap(), Meaning::Deleted(name("a/..b")));
    }

    #[test]
    fn a_whiteout_of_the_directory_or_its_parent_is_refused() {
        for text in [".wh.", "a/.wh..", "a/.wh..."] {
            assert!(meaning(&name(text)).is_err(), "{text}");
        }
    }

    #[test]
    fn writing_and_reading_agree() {
        for text in ["x", "a/b/c"] {
            assert_eq!(meaning(&deletion_of(&name(text))).unwrap(), Meaning::Deleted(name(text)));
            assert_eq!(meaning(&opacity_of(&name(text))).unwrap(), Meaning::Opaque(name(text)));
        }
    }
}
