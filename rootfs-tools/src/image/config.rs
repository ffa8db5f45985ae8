//! The configuration of an image (image-spec, config.md): how its program is meant to be run, and
//! which layers, uncompressed, it consists of.

use super::document::or_default;
use crate::digest::Digest;
use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;

/// The configuration document. What it does not know it keeps.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageConfig {
    /// When the image was made (RFC 3339).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// Who made it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub author: Option<String>,
    /// The processor, in Go's words.
    pub architecture: String,
    /// The operating system.
    pub os: String,
    /// Which kind of the processor.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
    /// How to run it.
    #[serde(default, deserialize_with = "or_default")]
    pub config: RunConfig,
    /// What it consists of.
    pub rootfs: Rootfs,
    /// How it came to be: an entry for each step, also for those that made no layer.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub history: Vec<History>,
    /// What else there is.
    #[serde(flatten)]
    pub extra: BTreeMap<String, Value>,
}

/// How the program of an image is meant to be run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct RunConfig {
    /// `user`, `uid`, `user:group`, …
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "String::is_empty")]
    pub user: String,
    /// `3000/tcp`, …
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "BTreeMap::is_empty")]
    pub exposed_ports: BTreeMap<String, Value>,
    /// `NAME=value`, in order.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub env: Vec<String>,
    /// The program, with the arguments that always come.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub entrypoint: Vec<String>,
    /// The arguments that a user replaces, or the program when there is no entry point.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub cmd: Vec<String>,
    /// Directories whose content is not the image's.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "BTreeMap::is_empty")]
    pub volumes: BTreeMap<String, Value>,
    /// Where the program starts.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "String::is_empty")]
    pub working_dir: String,
    /// What people say about the image.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// The signal that asks the program to end.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "String::is_empty")]
    pub stop_signal: String,
    /// How to find out whether it works (Docker's, not in the specification).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub healthcheck: Option<Value>,
    /// What else there is.
    #[serde(flatten)]
    pub extra: BTreeMap<String, Value>,
}

/// The layers, uncompressed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rootfs {
    /// Always `layers`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The digests of the uncompressed layers, the lowest first.
    #[serde(deserialize_with = "or_default")]
    pub diff_ids: Vec<Digest>,
}

impl Default for Rootfs {
    fn default() -> Self {
        Self { kind: "layers".into(), diff_ids: Vec::new() }
    }
}

/// One step of the making of an image.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct History {
    /// When (RFC 3339).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// By which command.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_by: Option<String>,
    /// Whether it made no layer.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub empty_layer: bool,
    /// What else there is.
    #[serde(flatten)]
    pub extra: BTreeMap<String, Value>,
}

impl ImageConfig {
    /// Checks that the configuration belongs to a manifest with so many layers.
    ///
    /// # Errors
    /// [`Error::Invalid`].
    pub fn check(&self, layers: usize) -> Result<()> {
        if self.rootfs.kind != "layers" {
            return Err(Error::Unsupported(format!(
                "the root file system of the image is of the type `{}`, not `layers`",
                self.rootfs.kind
            )));
        }
        let diff_ids = self.rootfs.diff_ids.len();
        if diff_ids != layers {
            return Err(Error::Invalid(format!(
                "the manifest has {layers} layers and the configuration {diff_ids}"
            )));
        }
        Ok(())
    }
}

/// The chain id of each layer: the digest of it and all below it (image-spec, config.md, "Layer
/// ChainID"). An unpacked layer is kept under it.
pub fn chain_ids(diff_ids: &[Digest]) -> Vec<Digest> {
    let mut chain: Vec<Digest> = Vec::with_capacity(diff_ids.len());
    for diff_id in diff_ids {
        chain.push(match chain.last() {
            None => *diff_id,
            Some(below) => Digest::of(format!("{below} {diff_id}").as_bytes()),
        });
    }
    chain
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::document::{parse, to_bytes};

    #[test]
    fn what_docker_writes_is_read_and_kept() {
        let text = r#"{"architecture":"amd64","os":"linux","config":{"Env":["A=b"],"Cmd":null,"Labels":null,"Healthcheck":{"Test":["CMD","x"]},"OnBuild":null,"Shell":["/bin/sh"]},"rootfs":{"type":"layers","diff_ids":null},"docker_version":"20"}"#;
        let config: ImageConfig = parse(text.as_bytes()).unwrap();
        assert_eq!(config.config.env, ["A=b"]);
        assert!(config.config.cmd.is_empty());
        let written = String::from_utf8(to_bytes(&config).unwrap()).unwrap();
        for kept in ["docker_version", "Healthcheck", "Shell"] {
            assert!(written.contains(kept), "{written}");
        }
        assert!(config.check(0).is_ok());
        assert!(config.check(1).is_err());
    }

    #[test]
    fn a_chain_id_covers_all_below() {
        let [a, b] = [Digest::of(b"a"), Digest::of(b"b")];
        let chain = chain_ids(&[a, b]);
        assert_eq!(chain, [a, Digest::of(format!("{a} {b}").as_bytes())]);
    }
}
