//! What `run` is asked to run: a bundle, an image, or (as engines ask) a name and a bundle.

use std::path::{Path, PathBuf};

use clap::ArgMatches;

use super::arguments::{path_of, text_of};
use super::create::bundle_of;
use super::image::{self, Image};
use crate::container::state::{Home, StateRoot};
use crate::error::{Error, Result};

/// What is to be run.
#[derive(Debug)]
pub(super) struct Target {
    /// The container's name.
    pub(super) id: String,
    /// Where its configuration is.
    pub(super) bundle: PathBuf,
    /// The program and its arguments, instead of the configured ones.
    pub(super) command: Vec<String>,
    /// The state directory, when the bundle is in it and nobody else cares for it yet.
    pub(super) home: Option<Home>,
    /// Whether it was asked for by a container's name and a bundle, as engines ask: config.json
    /// alone says what becomes of it then.
    pub(super) is_engines: bool,
}

impl Target {
    /// Understands the arguments of `run`. An image's bundle is made here.
    pub(super) fn of(matches: &ArgMatches, root: &StateRoot) -> Result<Self> {
        let target = text_of(matches, "target").unwrap_or_default();
        let command: Vec<String> =
            matches.get_many("command").map(|words| words.cloned().collect()).unwrap_or_default();
        let name = text_of(matches, "name");
        let asked = path_of(matches, "bundle");
        if asked.is_none() && is_bundle(target) {
            let bundle = bundle_of(Some(Path::new(target)))?;
            let id = name.map_or_else(|| name_of_bundle(&bundle, root), str::to_owned);
            return Ok(Self { id, bundle, command, home: None, is_engines: false });
        }
        if asked.is_none() && is_stored_image(target) {
            let id = name.map_or_else(|| free_name(image::name_of(target), root), str::to_owned);
            let store = path_of(matches, "store");
            let image = Image { name: target, store, command: &command };
            let (home, bundle) = image.make_bundle(root, &id)?;
            let (command, home) = (Vec::new(), Some(home));
            return Ok(Self { id, bundle, command, home, is_engines: false });
        }
        if let Some(name) = name {
            return Err(Error::Config(format!(
                "--name {name}: with --bundle (or a config.json here) the name is the argument, \
                 {target:?}"
            )));
        }
        let (id, bundle) = (target.to_owned(), bundle_of(asked)?);
        Ok(Self { id, bundle, command, home: None, is_engines: true })
    }
}

impl Drop for Target {
    /// Removes what was made for a container that has not come to be.
    fn drop(&mut self) {
        if let Some(home) = &self.home
            && let Ok(_lock) = home.lock()
        {
            drop(home.remove());
        }
    }
}

/// Whether the name is our choice: then another one does as well.
pub(super) fn is_named_by_us(matches: &ArgMatches) -> bool {
    let target = text_of(matches, "target").unwrap_or_default();
    let is_named = text_of(matches, "name").is_some() || path_of(matches, "bundle").is_some();
    !is_named && (is_bundle(target) || is_stored_image(target))
}

fn is_stored_image(target: &str) -> bool {
    !Path::new("config.json").exists() && image::is_image(target)
}

/// See the help of the command.
fn is_bundle(target: &str) -> bool {
    (target.contains('/') && !image::is_image(target))
        || [".", ".."].contains(&target)
        || (!Path::new("config.json").exists() && Path::new(target).join("config.json").exists())
}

fn name_of_bundle(bundle: &Path, root: &StateRoot) -> String {
    let name = bundle.file_name().map(|name| name.to_string_lossy().into_owned());
    free_name(&name.unwrap_or_default(), root)
}

/// A container's name made of another one, with a number when it is taken.
fn free_name(wanted: &str, root: &StateRoot) -> String {
    let mut name: String = wanted
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() || "_+-.".contains(c) { c } else { '-' })
        .collect();
    if name.is_empty() || name.starts_with('.') {
        name.insert_str(0, "container");
    }
    let taken = |name: &str| root.path().join(name).exists();
    if !taken(&name) {
        return name;
    }
    let numbered = (2_u32..).map(|number| format!("{name}-{number}"));
    numbered.take(100_000).find(|name| !taken(name)).unwrap_or(name)
}
