//! The name of an image: `web`, `web:v2`, `registry.example:5000/team/web@sha256:…`.
//!
//! A name without a tag means `latest`, as everywhere, and the store always has the full form. No
//! registry is ever made up: `debian` is an image of that name here, and only a name that begins
//! with a host (it contains a `.` or a `:`, or is `localhost`) can be pulled or pushed, unless
//! somebody says which registry is meant.

use crate::digest::Digest;
use crate::error::{Error, Result};
use std::fmt;
use std::str::FromStr;

/// The longest name, as in the distribution specification.
const LONGEST: usize = 255;
const LONGEST_TAG: usize = 128;

/// Docker's own registry. Its images of one word are in the repository `library`.
pub const DOCKER: &str = "docker.io";

/// The name of an image, checked and in full.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Reference {
    /// The registry, when the name has one: `registry.example:5000`.
    pub host: Option<String>,
    /// The path in the registry, or the whole plain name: `team/web`.
    pub path: String,
    /// The tag. `latest` when neither a tag nor a digest was given.
    pub tag: Option<String>,
    /// The digest of the manifest, when the name pins it.
    pub digest: Option<Digest>,
}

impl Reference {
    /// What a name without a registry means where that one is meant; in Docker's, `debian` is
    /// `library/debian`.
    #[must_use]
    pub fn at(&self, host: &str) -> Self {
        let named = Self { host: Some(host.to_owned()), ..self.clone() };
        Self { path: named.repository(), ..named }
    }

    /// Its path at its registry, and at mirrors of that.
    pub fn repository(&self) -> String {
        let is_official = self.host.as_deref() == Some(DOCKER) && !self.path.contains('/');
        if is_official { format!("library/{}", self.path) } else { self.path.clone() }
    }
}

impl FromStr for Reference {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let invalid = |why: &str| Error::Invalid(format!("`{text}` is not an image name: {why}"));
        if text.len() > LONGEST + LONGEST_TAG + 72 {
            return Err(Error::Invalid("the image name is too long".into()));
        }
        let (name, digest) = match text.split_once('@') {
            Some((name, digest)) => (name, Some(digest.parse()?)),
            None => (text, None),
        };
        let (host, rest) = match name.split_once('/') {
            Some((first, rest)) if is_host(first) => (Some(first.to_owned()), rest),
            _ => (None, name),
        };
        let (path, tag) = match rest.rsplit_once(':') {
            Some((path, tag)) => (path, Some(tag)),
            None => (rest, None),
        };
        if path.is_empty() {
            return Err(invalid("the name itself is empty"));
        }
        if path.len() > LONGEST || !path.split('/').all(is_path_component) {
            return Err(invalid(
                "each part is lower-case letters and digits, with single `.`, `_`, `__` or dashes between them",
            ));
        }
        if tag.is_some_and(|tag| !is_tag(tag)) {
            return Err(invalid("a tag is at most 128 letters, digits, `_`, `.` and `-`"));
        }
        let tag = match (tag, digest) {
            (None, None) => Some("latest".to_owned()),
            (tag, _) => tag.map(str::to_owned),
        };
        Ok(Self { host, path: path.to_owned(), tag, digest })
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(host) = &self.host {
            write!(out, "{host}/")?;
        }
        out.write_str(&self.path)?;
        if let Some(tag) = &self.tag {
            write!(out, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(out, "@{digest}")?;
        }
        Ok(())
    }
}

fn is_host(first: &str) -> bool {
    let (name, port) = match first.rsplit_once(':') {
        Some((name, port)) if !port.ends_with(']') => (name, Some(port)),
        _ => (first, None),
    };
    let bracketed = name.strip_prefix('[').and_then(|name| name.strip_suffix(']'));
    let named = match bracketed {
        Some(address) => address.bytes().all(|b| b.is_ascii_hexdigit() || b == b':'),
        None => {
            name.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric())
                && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-.".contains(&b))
        }
    };
    let recognised = name == "localhost" || port.is_some() || first.contains(['.', ':']);
    recognised && named && port.is_none_or(|port| port.parse::<u16>().is_ok())
}

/// `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*`, as in the distribution specification.
fn is_path_component(part: &str) -> bool {
    let edge =
        |byte: Option<u8>| byte.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    let inner =
        part.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-".contains(&b));
    edge(part.bytes().next())
        && edge(part.bytes().last())
        && inner
        && part.split(|c: char| c.is_ascii_alphanumeric()).all(|separator| {
            matches!(separator, "" | "." | "_" | "__") || separator.bytes().all(|b| b == b'-')
        })
}

/// `[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}`.
fn is_tag(tag: &str) -> bool {
    let first = tag.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric() || b == b'_');
    first
        && tag.len() <= LONGEST_TAG
        && tag.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn full(text: &str) -> String {
        text.parse::<Reference>().unwrap().to_string()
    }

    #[test]
    fn a_name_gets_the_tag_that_it_lacks() {
        assert_eq!(full("web"), "web:latest");
        assert_eq!(full("team/web:v2"), "team/web:v2");
        assert_eq!(full("localhost:5000/web"), "localhost:5000/web:latest");
        let pinned = format!("r.example/web@{}", Digest::of(b""));
        assert_eq!(full(&pinned), pinned);
    }

    #[test]
    fn only_a_host_is_a_host() {
        let host = |text: &str| text.parse::<Reference>().unwrap().host;
        assert_eq!(host("library/debian"), None);
        assert_eq!(host("localhost/web").as_deref(), Some("localhost"));
        assert_eq!(host("10.0.0.1:5000/a/b").as_deref(), Some("10.0.0.1:5000"));
        assert_eq!(host("[::1]:5000/web").as_deref(), Some("[::1]:5000"));
    }

    #[test]
    fn dockers_own_images_are_in_its_library() {
        let at = |text: &str, host| text.parse::<Reference>().unwrap().at(host).to_string();
        assert_eq!(at("redis:7", DOCKER), "docker.io/library/redis:7");
        assert_eq!(at("team/web", DOCKER), "docker.io/team/web:latest");
        assert_eq!(at("redis", "r.example:5000"), "r.example:5000/redis:latest");
        let repository = |text: &str| text.parse::<Reference>().unwrap().repository();
        assert_eq!(repository("docker.io/redis"), "library/redis");
        assert_eq!(repository("docker.io/library/redis"), "library/redis");
        assert_eq!(repository("r.example/redis"), "redis");
    }

    #[test]
    fn what_is_no_name_is_refused() {
        for text in
            ["", ":v1", "Web", "a//b", "../web", "web:", "web:-x", "a..b", "web@x", "-a", "a/"]
        {
            assert!(text.parse::<Reference>().is_err(), "{text}");
        }
    }
}
