//! What an image runs on, and which image of several runs here.

use super::document::Descriptor;
use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

/// A platform, in Go's words: `linux/amd64`, `linux/arm64/v8`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Platform {
    /// The operating system.
    pub os: String,
    /// The processor.
    pub architecture: String,
    /// Which of its kinds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
    /// What else there is.
    #[serde(flatten)]
    pub extra: BTreeMap<String, Value>,
}

impl Platform {
    /// This machine's.
    pub fn host() -> Self {
        let (architecture, variant) = match std::env::consts::ARCH {
            "x86_64" => ("amd64", None),
            "x86" => ("386", None),
            "aarch64" => ("arm64", Some("v8")),
            "arm" => ("arm", Some("v7")),
            "powerpc64" => ("ppc64le", None),
            "loongarch64" => ("loong64", None),
            other => (other, None),
        };
        Self::new("linux", architecture, variant)
    }

    fn new(os: &str, architecture: &str, variant: Option<&str>) -> Self {
        Self {
            os: os.into(),
            architecture: architecture.into(),
            variant: variant.map(Into::into),
            extra: BTreeMap::new(),
        }
    }

    /// How well an image for this platform runs on `wanted`: not at all, somehow, exactly. A
    /// variant that either side does not name is any; an older ARM runs on a newer one.
    fn fitness(&self, wanted: &Self) -> Option<u8> {
        if self.os != wanted.os || self.architecture != wanted.architecture {
            return None;
        }
        match (self.variant.as_deref(), wanted.variant.as_deref()) {
            (have, want) if have == want => Some(u8::MAX),
            (None, _) | (_, None) => Some(u8::MAX - 1),
            (Some(have), Some(want)) if have < want => have.bytes().last(),
            _ => None,
        }
    }
}

impl FromStr for Platform {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let parts: Vec<_> = text.split('/').collect();
        match parts[..] {
            [os, architecture] if !os.is_empty() && !architecture.is_empty() => {
                Ok(Self::new(os, architecture, None))
            }
            [os, architecture, variant] if !parts.contains(&"") => {
                Ok(Self::new(os, architecture, Some(variant)))
            }
            _ => Err(Error::Invalid(format!("`{text}` is not a platform like linux/arm64/v8"))),
        }
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}/{}", self.os, self.architecture)?;
        self.variant.as_ref().map_or(Ok(()), |variant| write!(out, "/{variant}"))
    }
}

/// The image of an index that runs best on `wanted`; of equals the first. A list whose images do
/// not say what they run on has one image only.
///
/// # Errors
/// When none does, with the platforms that there are.
pub fn choose<'list>(images: &'list [Descriptor], wanted: &Platform) -> Result<&'list Descriptor> {
    let fitness = |image: &Descriptor| match &image.platform {
        Some(platform) => platform.fitness(wanted),
        None => (images.len() == 1).then_some(1),
    };
    let best = images.iter().filter_map(fitness).max();
    let chosen = images.iter().find(|image| best.is_some() && fitness(image) == best);
    chosen.ok_or_else(|| {
        let mut there: Vec<_> = images
            .iter()
            .filter_map(|image| image.platform.as_ref())
            .map(ToString::to_string)
            .collect();
        there.sort();
        there.dedup();
        Error::Unsupported(format!(
            "the image is not made for {wanted}; it is for: {}; --platform chooses one",
            if there.is_empty() { "nothing that it names".into() } else { there.join(", ") }
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn images(platforms: &[&str]) -> Vec<Descriptor> {
        let image = |(index, platform): (usize, &&str)| {
            let mut image = Descriptor::of("x", &[u8::try_from(index).unwrap()]);
            image.platform = Some(platform.parse().unwrap());
            image
        };
        platforms.iter().enumerate().map(image).collect()
    }

    fn chosen(platforms: &[&str], wanted: &str) -> Option<String> {
        let images = images(platforms);
        let image = choose(&images, &wanted.parse().unwrap()).ok()?;
        Some(image.platform.as_ref().unwrap().to_string())
    }

    #[test]
    fn the_best_image_is_chosen() {
        let list = ["windows/amd64", "linux/arm/v6", "linux/arm/v7", "linux/amd64", "linux/arm64"];
        assert_eq!(chosen(&list, "linux/amd64").as_deref(), Some("linux/amd64"));
        assert_eq!(chosen(&list, "linux/arm/v7").as_deref(), Some("linux/arm/v7"));
        assert_eq!(chosen(&list, "linux/arm64/v8").as_deref(), Some("linux/arm64"));
        assert_eq!(chosen(&list[..2], "linux/arm/v7").as_deref(), Some("linux/arm/v6"));
        assert_eq!(chosen(&["linux/arm/v8"], "linux/arm/v7"), None);
        assert_eq!(chosen(&list, "linux/riscv64"), None);
    }
}
