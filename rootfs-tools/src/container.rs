//! What a container changed: its upper directory, shown (`diff`) or made a layer (`commit`).

use crate::bundle::runtime_config::{DIGEST, UPPER};
use crate::digest::Digest;
use crate::error::{Context, Error, Result};
use crate::image::config::History;
use crate::image::document;
use crate::image::view::View;
use crate::import::{How, Imported, import};
use crate::layer::attributes::is_opaque;
use crate::layer::compress;
use crate::layer::id_map::IdMap;
use crate::layer::name::Name;
use crate::layer::pack::{self, Owners, Upper};
use crate::layer::scan;
use crate::layer::target::is_whiteout;
use crate::layer::whiteout::Form;
use crate::reference::Reference;
use crate::source::{Configuration, SourceImage, SourceLayer, rootfs};
use crate::store::Store;
use crate::store::index::Image;
use linux::{OFlag, entry, fd};
use nix::sys::stat::SFlag;
use serde_json::{Value, json};
use std::fmt;
use std::fs::{self, File};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// A container that is there, running or not.
#[derive(Debug)]
pub struct Container {
    /// The image that it was made from.
    pub image: Image,
    /// Where its changes are.
    pub upper: PathBuf,
    /// The family of the overlayfs attributes there.
    pub form: Form,
    /// Whose the files there are.
    owners: Owners,
}

/// One change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// What happened.
    pub kind: ChangeKind,
    /// To what.
    pub name: Name,
}

/// What happened to a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChangeKind {
    /// The image has it not.
    Added,
    /// The image has it otherwise.
    Changed,
    /// Only the image has it.
    Deleted,
}

impl Change {
    /// The change for programs.
    pub fn to_json(&self) -> Value {
        let kind = match self.kind {
            ChangeKind::Added => "added",
            ChangeKind::Changed => "changed",
            ChangeKind::Deleted => "deleted",
        };
        json!({"kind": kind, "path": format!("/{}", self.name)})
    }
}

impl fmt::Display for Change {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let letter = match self.kind {
            ChangeKind::Added => 'A',
            ChangeKind::Changed => 'C',
            ChangeKind::Deleted => 'D',
        };
        write!(out, "{letter} /{}", self.name)
    }
}

impl Container {
    /// Finds the container of a bundle; `id` says which, when the bundle has several.
    ///
    /// # Errors
    /// When the bundle is not one of ours, or no container of it is there.
    pub fn find(store: &Store, bundle: &Path, id: Option<&str>) -> Result<Self> {
        let file = bundle.join("config.json");
        let step = || format!("read {}", file.display());
        let config: Value = document::parse(&fs::read(&file).context(step)?).context(step)?;
        let annotation = |name: &str| config["annotations"][name].as_str();
        let digest: Digest = annotation(DIGEST)
            .ok_or_else(|| {
                Error::Unsupported("the bundle names no image: rootfs-tools did not make it".into())
            })
            .context(step)?
            .parse()
            .context(step)?;
        let image = store.image_by_digest(&digest)?;
        let upper = match annotation(UPPER) {
            Some(directory) => PathBuf::from(directory).join("upper"),
            None => only_upper(bundle, id)?,
        };
        let in_user_namespace = config["linux"]["namespaces"]
            .as_array()
            .is_some_and(|list| list.iter().any(|namespace| namespace["type"] == "user"));
        Ok(match IdMap::beside(&upper)? {
            // minirun has mounted the layers from outside, with their owners mapped.
            Some(map) => Self { image, upper, form: Form::Trusted, owners: Owners::Inside(map) },
            None => {
                let form = if in_user_namespace { Form::User } else { Form::Trusted };
                Self { image, upper, form, owners: Owners::of_this_process() }
            }
        })
    }

    /// What the container changed, sorted by name.
    ///
    /// # Errors
    /// When something cannot be read.
    pub fn changes(&self, store: &Store) -> Result<Vec<Change>> {
        let trees: Vec<_> = self.image.chain().iter().rev().map(|id| store.tree_path(id)).collect();
        let below = View::open(&trees, store.form())?;
        let root = linux::path::open(&self.upper, OFlag::O_RDONLY | OFlag::O_DIRECTORY)?;
        let mut changes = Vec::new();
        let mut waiting = vec![Name::new(b".")?];
        while let Some(name) = waiting.pop() {
            let file = scan::open(root.as_fd(), &name, OFlag::O_PATH)?;
            let stat = fd::stat(&file)?;
            if !name.is_root() {
                let kind = match below.find(&name)? {
                    _ if is_whiteout(&stat) => ChangeKind::Deleted,
                    None => ChangeKind::Added,
                    Some(_) => ChangeKind::Changed,
                };
                changes.push(Change { kind, name: name.clone() });
            }
            if scan::kind_of(&stat) == SFlag::S_IFDIR {
                let directory =
                    scan::open(root.as_fd(), &name, OFlag::O_RDONLY | OFlag::O_DIRECTORY)?;
                if is_opaque(directory.as_fd(), self.form)? && !name.is_root() {
                    // Made anew: what was below is gone, what is in it is new.
                    changes.push(Change { kind: ChangeKind::Deleted, name: name.clone() });
                }
                let names = entry::names(file.as_fd())?;
                waiting.extend(
                    names.iter().map(|last| Name::joined(name.as_bytes(), last.as_bytes())),
                );
            }
        }
        changes.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(changes)
    }

    /// Makes an image of the container: its image and one more layer. The same changes give the
    /// same layer; `created` (RFC 3339) is what the image says about its time.
    ///
    /// # Errors
    /// When something cannot be read, or the store cannot be written.
    pub fn commit(
        &self,
        store: &Store,
        name: &Reference,
        created: Option<String>,
        by: &str,
    ) -> Result<Imported> {
        let scratch = store.scratch()?;
        let packed = scratch.path().join("changes.tar.gz");
        compress::to_file(&packed, |output| {
            pack::changes(&self.upper, output, self.owners.clone(), self.form, &Upper::default())
        })
        .context(|| format!("pack {}", self.upper.display()))?;
        let mut config = self.image.config.clone();
        config.created.clone_from(&created);
        config.history.push(History {
            created,
            created_by: Some(by.to_owned()),
            ..History::default()
        });
        let mut source = on_top_of(store, &self.image, config);
        source.layers.push(rootfs::layer_of(File::open(&packed)?)?);
        import(store, &source, name, How::default())
    }
}

/// The layers of an image of the store as a source for one with more layers.
pub(crate) fn on_top_of(
    store: &Store,
    image: &Image,
    config: crate::image::config::ImageConfig,
) -> SourceImage {
    let layers = image.manifest.layers.iter().zip(&image.config.rootfs.diff_ids);
    let layers = layers
        .map(|(blob, diff_id)| {
            let path = store.blob_path(&blob.digest);
            SourceLayer {
                blob: Some(blob.clone()),
                diff_id: Some(*diff_id),
                open: Box::new(move || Ok(Box::new(File::open(&path)?))),
                kept: None,
            }
        })
        .collect();
    let config = Configuration::Made(Box::new(config));
    SourceImage { manifest: None, config, layers, name: None }
}

/// The upper directory of the one container of a bundle: `BUNDLE/.minirun-ID/upper`.
fn only_upper(bundle: &Path, id: Option<&str>) -> Result<PathBuf> {
    let mut ids = Vec::new();
    for entry in fs::read_dir(bundle)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        ids.extend(name.strip_prefix(".minirun-").map(str::to_owned));
    }
    ids.sort();
    let chosen = match (id, ids.as_slice()) {
        (Some(id), _) if ids.iter().any(|other| other == id) => id,
        (None, [only]) => only,
        (None, []) => {
            return Err(Error::Conflict(format!(
                "no container of {} is there: its changes end with it, so commit before `minirun delete`",
                bundle.display()
            )));
        }
        (_, all) => {
            return Err(Error::Conflict(format!(
                "the bundle has the containers {}; --container chooses one",
                all.join(", ")
            )));
        }
    };
    Ok(bundle.join(format!(".minirun-{chosen}")).join("upper"))
}
