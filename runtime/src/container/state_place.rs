//! Where the state is kept when nobody says: `/run/minirun` for root, and for others the first that
//! there is of `$XDG_RUNTIME_DIR/minirun`, `/run/user/UID/minirun` and `/tmp/minirun-UID`.
//!
//! The state says what is killed and removed, so nobody else may write it. The directories of a login
//! are the user's own; the one in `/tmp` is believed only if it is (`/tmp` is sticky: it stays so).

use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// The usual state root of the user with this number; `runtime_dir` is `$XDG_RUNTIME_DIR`.
pub(crate) fn usual(user: u32, runtime_dir: Option<&Path>) -> Result<PathBuf> {
    if user == 0 {
        return Ok("/run/minirun".into());
    }
    if let Some(dir) = runtime_dir.filter(|dir| !dir.as_os_str().is_empty()) {
        return Ok(dir.join("minirun"));
    }
    let of_login = Path::new("/run/user").join(user.to_string());
    if std::fs::metadata(&of_login).is_ok_and(|metadata| metadata.uid() == user) {
        return Ok(of_login.join("minirun"));
    }
    own(Path::new("/tmp").join(format!("minirun-{user}")), user)
}

/// The directory `path`, made or found to be `user`'s alone.
fn own(path: PathBuf, user: u32) -> Result<PathBuf> {
    match std::fs::DirBuilder::new().mode(0o700).create(&path) {
        Ok(()) => return Ok(path),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
        Err(error) => return Err(Error::file(format!("make {}", path.display()))(error)),
    }
    let metadata = std::fs::symlink_metadata(&path)
        .map_err(Error::file(format!("look at {}", path.display())))?;
    if metadata.is_dir() && metadata.uid() == user && metadata.mode() & 0o077 == 0 {
        return Ok(path);
    }
    Err(Error::Config(format!(
        "there is no place for the state: {} is not a directory of yours alone; set \
         XDG_RUNTIME_DIR, or name a directory with --root",
        path.display()
    )))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    #[test]
    fn root_and_logins_have_their_places() {
        let login = Path::new("/run/user/1234");
        assert_eq!(usual(0, Some(login)).unwrap(), Path::new("/run/minirun"));
        assert_eq!(usual(1234, Some(login)).unwrap(), login.join("minirun"));
    }

    #[test]
    fn a_directory_that_others_could_have_made_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let user = linux::credentials::effective_user();
        let path = directory.path().join("state");
        assert_eq!(own(path.clone(), user).unwrap(), path);
        assert_eq!(own(path.clone(), user).unwrap(), path, "the second time it is there");
        assert!(own(path.clone(), user + 1).is_err(), "another user's");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o777)).unwrap();
        assert!(own(path.clone(), user).is_err(), "open to others");
        let link = directory.path().join("link");
        symlink("/", &link).unwrap();
        assert!(own(link, user).is_err(), "a link");
    }
}
