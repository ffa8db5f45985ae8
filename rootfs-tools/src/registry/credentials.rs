//! Passwords for registries, from the files where `docker login`, `podman login` and `skopeo
//! login` leave them (containers-auth.json(5)).

use crate::error::{Context, Error, Result};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::path::PathBuf;

/// A user and a password.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// The user.
    pub user: String,
    /// The password, or a token.
    pub password: String,
}

impl std::fmt::Debug for Credentials {
    /// A password does not belong into a log.
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Credentials").field("user", &self.user).finish_non_exhaustive()
    }
}

/// One of the files.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct File {
    #[serde(default)]
    auths: BTreeMap<String, Entry>,
    #[serde(default)]
    cred_helpers: BTreeMap<String, String>,
}

#[derive(Debug, Default, Deserialize)]
struct Entry {
    #[serde(default)]
    auth: String,
}

/// The credentials for an image of a registry, if any file has some. The entry that names more of
/// `host/path` wins; the first file that has one wins.
///
/// # Errors
/// When a file cannot be read, or says that a helper program has the password.
pub fn find(host: &str, path: &str) -> Result<Option<Credentials>> {
    for file in files() {
        let bytes = match fs::read(&file) {
            Err(error)
                if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) =>
            {
                continue;
            }
            result => result.context(|| format!("read {}", file.display()))?,
        };
        let found = find_in(&bytes, host, path).context(|| file.display().to_string())?;
        if found.is_some() {
            return Ok(found);
        }
    }
    Ok(None)
}

/// Where the files are, in the order in which podman and docker look.
fn files() -> Vec<PathBuf> {
    let variable =
        |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    if let Some(file) = variable("REGISTRY_AUTH_FILE") {
        return vec![file];
    }
    let home = variable("HOME");
    let below_home = |path: &str| home.as_ref().map(|home| home.join(path));
    [
        variable("XDG_RUNTIME_DIR").map(|dir| dir.join("containers/auth.json")),
        variable("XDG_CONFIG_HOME")
            .or(below_home(".config"))
            .map(|dir| dir.join("containers/auth.json")),
        variable("DOCKER_CONFIG").or(below_home(".docker")).map(|dir| dir.join("config.json")),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn find_in(file: &[u8], host: &str, path: &str) -> Result<Option<Credentials>> {
    let file: File = serde_json::from_slice(file)?;
    let mut key = format!("{host}/{path}");
    loop {
        if let Some(helper) = file.cred_helpers.get(&key) {
            return Err(Error::Unsupported(format!(
                "the password for {key} is with the program docker-credential-{helper}, which is not asked; log in with `skopeo login` or set REGISTRY_AUTH_FILE"
            )));
        }
        let entry = file.auths.get(&key).or_else(|| file.auths.get(&format!("https://{key}")));
        if let Some(entry) = entry.filter(|entry| !entry.auth.is_empty()) {
            return decode(&entry.auth).map(Some).ok_or_else(|| {
                Error::Invalid(format!("the entry for {key} is not `user:password` in base64"))
            });
        }
        match key.rfind('/') {
            Some(slash) => key.truncate(slash),
            None => return Ok(None),
        }
    }
}

fn decode(auth: &str) -> Option<Credentials> {
    let text = String::from_utf8(super::auth::from_base64(auth)?).ok()?;
    let (user, password) = text.trim_end_matches('\0').split_once(':')?;
    Some(Credentials { user: user.into(), password: password.into() })
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = r#"{
        "auths": {
            "r.example": {"auth": "YTpi"},
            "r.example/team": {"auth": "Yzpk"},
            "https://old.example": {"auth": "ZTpm"},
            "bad.example": {"auth": "!"},
            "empty.example": {}
        },
        "credHelpers": {"helped.example": "pass"}
    }"#;

    fn user(host: &str, path: &str) -> Result<Option<String>> {
        Ok(find_in(FILE.as_bytes(), host, path)?.map(|found| found.user + ":" + &found.password))
    }

    #[test]
    fn the_entry_that_names_most_wins() {
        assert_eq!(user("r.example", "other/web").unwrap().as_deref(), Some("a:b"));
        assert_eq!(user("r.example", "team/web").unwrap().as_deref(), Some("c:d"));
        assert_eq!(user("old.example", "web").unwrap().as_deref(), Some("e:f"));
        assert_eq!(user("empty.example", "web").unwrap(), None);
        assert_eq!(user("none.example", "web").unwrap(), None);
        assert!(user("bad.example", "web").is_err());
        assert!(
            user("helped.example", "web")
                .unwrap_err()
                .to_string()
                .contains("docker-credential-pass")
        );
    }

    #[test]
    fn a_password_is_not_printed() {
        let secret = Credentials { user: "a".into(), password: "secret".into() };
        assert!(!format!("{secret:?}").contains("secret"));
    }
}
