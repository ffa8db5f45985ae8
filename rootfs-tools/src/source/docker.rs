//! What `docker save` writes (moby, image/spec/v1.2.md): `manifest.json`, configurations and
//! uncompressed layers. Newer versions write an OCI layout beside it, and that is read instead.

use super::archive::Archive;
use super::layout::Blobs;
use super::{Configuration, Selection, SourceImage, SourceLayer};
use crate::digest::Digest;
use crate::error::{Context, Error, Result};
use crate::image::config::ImageConfig;
use crate::image::document;
use serde::Deserialize;

/// One image of `manifest.json`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Saved {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

/// Finds the image that is meant.
///
/// # Errors
/// When there is none, or more than one, or a document is damaged.
pub fn load(archive: &Archive, selection: &Selection) -> Result<SourceImage> {
    let list: Vec<Saved> =
        document::parse(&archive.document("manifest.json")?).context(|| "manifest.json".into())?;
    let saved = chosen(&list, selection.name.as_deref())?;
    let bytes = archive.document(&saved.config)?;
    check_name(&saved.config, &bytes)?;
    let config: ImageConfig =
        document::parse(&bytes).context(|| format!("configuration {}", saved.config))?;
    config.check(saved.layers.len())?;
    let mut layers = Vec::new();
    for (name, diff_id) in saved.layers.iter().zip(&config.rootfs.diff_ids) {
        let section = archive.section(name.as_bytes())?;
        layers.push(SourceLayer {
            blob: None,
            diff_id: Some(*diff_id),
            open: Box::new(move || Ok(Box::new(section.again()))),
            kept: None,
        });
    }
    let name = saved.repo_tags.iter().flatten().next().cloned();
    Ok(SourceImage {
        manifest: None,
        config: Configuration::Given(Box::new(config), bytes),
        layers,
        name,
    })
}

fn chosen<'list>(list: &'list [Saved], name: Option<&str>) -> Result<&'list Saved> {
    let tags = |saved: &Saved| saved.repo_tags.clone().unwrap_or_default();
    let all = || list.iter().flat_map(tags).collect::<Vec<_>>().join(", ");
    match (name, list) {
        (None, [only]) => Ok(only),
        (None, []) => Err(Error::Invalid("the archive has no image".into())),
        (None, _) => Err(Error::Unsupported(format!(
            "the archive has {} images ({}); --ref NAME chooses one",
            list.len(),
            all()
        ))),
        (Some(name), _) => {
            list.iter().find(|saved| tags(saved).iter().any(|tag| tag == name)).ok_or_else(|| {
                Error::Invalid(format!("the archive has no image `{name}`, but: {}", all()))
            })
        }
    }
}

/// The configuration is named by its digest, `HEX.json` or `blobs/sha256/HEX`, and nothing else
/// vouches for it.
fn check_name(name: &str, bytes: &[u8]) -> Result<()> {
    let last = name.rsplit('/').next().unwrap_or(name);
    let stem = last.strip_suffix(".json").unwrap_or(last);
    match format!("sha256:{stem}").parse::<Digest>() {
        Ok(digest) => digest.expect(Digest::of(bytes)).context(|| format!("configuration {name}")),
        Err(_) => Ok(()),
    }
}
