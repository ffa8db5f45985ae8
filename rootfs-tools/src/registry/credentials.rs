//! Passwords for registries, from the files where `docker login`, `podman login` and `skopeo
//! login` leave them (containers-auth.json(5)), and from the programs that such a file names.
//!
//! A helper is a program `docker-credential-NAME` that gets the registry on its standard input and
//! answers in JSON (docker/docker-credential-helpers, "Development").

use crate::error::{Context, Error, Result};
use crate::reference::DOCKER;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::fs;
use std::io::{ErrorKind, Write};
use std::path::PathBuf;
use std::process::{Command, Stdio};

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
    #[serde(default)]
    creds_store: String,
}

/// What `docker login` calls Docker's own registry.
const DOCKER_LOGIN: &str = "https://index.docker.io/v1/";

#[derive(Debug, Default, Deserialize)]
struct Entry {
    #[serde(default)]
    auth: String,
}

/// The credentials for an image of a registry, if any file has some. The entry that names more of
/// `host/path` wins; the first file that has one wins.
///
/// # Errors
/// When a file cannot be read, or a helper program that it names does not answer.
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
            return ask(helper, &key);
        }
        let entry = file.auths.get(&key).or_else(|| file.auths.get(&format!("https://{key}")));
        if let Some(entry) = entry.filter(|entry| !entry.auth.is_empty()) {
            return decode(&entry.auth).map(Some).ok_or_else(|| {
                Error::Invalid(format!("the entry for {key} is not `user:password` in base64"))
            });
        }
        match key.rfind('/') {
            Some(slash) => key.truncate(slash),
            // Where `docker login` puts the password of its own registry.
            None if key == DOCKER => key = DOCKER_LOGIN.into(),
            None if file.creds_store.is_empty() => return Ok(None),
            None if host == DOCKER => return ask(&file.creds_store, DOCKER_LOGIN),
            None => return ask(&file.creds_store, host),
        }
    }
}

/// Asks the program `docker-credential-HELPER` for the password of a registry.
fn ask(helper: &str, registry: &str) -> Result<Option<Credentials>> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Answer {
        username: String,
        secret: String,
    }
    // The name is part of a file's name in PATH and nothing else.
    if helper.is_empty() || helper.contains('/') {
        return Err(Error::Invalid(format!("`{helper}` is not the name of a credential helper")));
    }
    let program = format!("docker-credential-{helper}");
    let step = || format!("ask {program} for the password of {registry}");
    let mut child = Command::new(&program)
        .arg("get")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context(step)?;
    if let Some(mut input) = child.stdin.take() {
        // One that does not read answers nevertheless, or its status says why not.
        drop(input.write_all(registry.as_bytes()));
    }
    let output = child.wait_with_output().context(step)?;
    if !output.status.success() {
        // The protocol has no code for it, only this sentence on standard output.
        if String::from_utf8_lossy(&output.stdout).contains("credentials not found") {
            return Ok(None);
        }
        return Err(Error::Invalid(format!("it failed: {}", output.status))).context(step);
    }
    let answer: Answer = serde_json::from_slice(&output.stdout)
        .map_err(|_| Error::Invalid("its answer has no Username and Secret in JSON".into()))
        .context(step)?;
    if answer.username == "<token>" {
        return Err(Error::Unsupported(
            "it has an identity token, and this program speaks with user and password only; log in with `skopeo login`".into(),
        ))
        .context(step);
    }
    Ok(Some(Credentials { user: answer.username, password: answer.secret }))
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
            "empty.example": {},
            "https://index.docker.io/v1/": {"auth": "ZzpoCg=="}
        },
        "credHelpers": {"helped.example": "of-nobody", "odd.example": "../x"}
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
        assert_eq!(user("docker.io", "library/web").unwrap().as_deref(), Some("g:h\n"));
        assert!(user("bad.example", "web").is_err());
        assert!(user("odd.example", "web").unwrap_err().to_string().contains("not the name"));
        // The program is not there; that it was asked is what the error says.
        let error = user("helped.example", "web").unwrap_err().chain();
        assert!(error.contains("docker-credential-of-nobody"), "{error}");
    }

    #[test]
    fn a_password_is_not_printed() {
        let secret = Credentials { user: "a".into(), password: "secret".into() };
        assert!(!format!("{secret:?}").contains("secret"));
    }
}
