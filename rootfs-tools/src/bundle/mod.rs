//! A bundle for minirun: `config.json`, an empty `rootfs/`, and the layers by reference.
//!
//! Nothing is copied and nothing is mounted. The annotation `org.minirun.overlay.lowerdirs` lists
//! the directories of the unpacked layers, the topmost first; minirun stacks them in the mount
//! namespace of the container, so no mount is left on the host, whatever dies.

pub mod runtime_config;
pub mod user;

use crate::digest::Digest;
use crate::error::{Context, Error, Result};
use crate::image::platform::Platform;
use crate::image::view::View;
use crate::import::{How, import};
use crate::reference::Reference;
use crate::source::{Selection, layout};
use crate::store::index::Image;
use crate::store::{Lifetime, Store};
use minirun::ready::{self, Ready, Stamp};
use nix::unistd::{getegid, geteuid};
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What kind of bundle is made.
#[derive(Debug, Clone, Default)]
pub struct Wish {
    /// The configuration of a bundle that is there is replaced.
    pub force: bool,
    /// It is for one container and ends with it: nothing of it is flushed to the disk, and what the
    /// container writes goes to the store, for the bundle may be in memory (`minirun run IMAGE`).
    pub ephemeral: bool,
    /// Arguments for the entry point of the image, instead of the image's.
    pub command: Vec<String>,
    /// As what the findings about the image are kept for the next container: what the image was
    /// called, and what the names of the store were before that was looked up.
    pub ready: Option<(String, Stamp)>,
}

/// Makes a bundle of an image, and returns its directory in full.
///
/// # Errors
/// When the directory is not empty, or a layer is missing and cannot be unpacked again.
pub fn create(store: &Store, name: &Reference, directory: &Path, wish: &Wish) -> Result<PathBuf> {
    let mut image = store.image(name)?;
    let cmd = image.config.config.cmd.clone();
    if !wish.command.is_empty() {
        image.config.config.cmd.clone_from(&wish.command);
    }
    let make = || -> Result<PathBuf> {
        let chain = ensure_unpacked(store, name, &image)?;
        let trees = trees_of(store, &chain);
        let view = View::open(&trees, store.form())?;
        let directory = std::path::absolute(directory)?;
        let upper = wish.ephemeral.then(|| store.writable_path(&directory));
        let config =
            runtime_config::of_image(&image, &trees, store.form(), &view, upper.as_deref())?;
        let layers = chain.iter().map(Digest::to_string).collect();
        let life = if wish.ephemeral { Lifetime::ThisBoot } else { Lifetime::Lasting };
        if life == Lifetime::Lasting {
            // What a bundle names must be there as long as it is.
            store.make_durable(&chain.iter().copied().collect())?;
        }
        let is_flushing = chain.iter().any(|chain_id| store.is_flushing(chain_id));
        prepare(&directory, wish.force)?;
        // First the store learns who needs the layers, then somebody does.
        store.add_bundle(&directory, chain, life)?;
        write(&directory, &config, life)?;
        if let Some((asked, index)) = &wish.ready {
            let ready = Ready {
                version: env!("CARGO_PKG_VERSION").into(),
                user: (geteuid().as_raw(), getegid().as_raw()),
                store: store.root().to_owned(),
                index: *index,
                layers,
                boot: store.boot().id().filter(|_| is_flushing).map(str::to_owned),
                entrypoint: image.config.config.entrypoint.clone(),
                cmd,
                config: serde_json::from_slice(&config)?,
            };
            keep(store, asked, &ready)?;
        }
        Ok(directory)
    };
    make().context(|| format!("bundle of image `{}`", image.name))
}

/// Keeps what was found out about an image, for the next container of it.
fn keep(store: &Store, asked: &str, ready: &Ready) -> Result<()> {
    match ready::file_of(asked) {
        Some(file) => store.replace_for(&file, &serde_json::to_vec(ready)?, Lifetime::ThisBoot),
        None => Ok(()),
    }
}

/// The directories of an image's layers, the topmost first, all of them unpacked.
///
/// # Errors
/// When a layer is missing and cannot be unpacked again.
pub fn unpacked_trees(store: &Store, name: &Reference) -> Result<Vec<PathBuf>> {
    let image = store.image(name)?;
    Ok(trees_of(store, &ensure_unpacked(store, name, &image)?))
}

fn trees_of(store: &Store, chain: &[Digest]) -> Vec<PathBuf> {
    chain.iter().map(|chain_id| store.tree_path(chain_id)).collect()
}

/// The chain ids of the image's layers, the topmost first, all of them unpacked: a layer that
/// somebody removed, or that was unpacked for another kind of mount, is unpacked again.
fn ensure_unpacked(store: &Store, name: &Reference, image: &Image) -> Result<Vec<Digest>> {
    let mut chain = image.chain();
    if chain.is_empty() {
        return Err(Error::Unsupported(
            "the image has no layers, so there is nothing to run".into(),
        ));
    }
    let mut complete = true;
    for chain_id in &chain {
        match store.layer(chain_id)? {
            None => complete = false,
            Some(record) if record.form != store.form() => {
                return Err(Error::Unsupported(format!(
                    "layer {chain_id} was unpacked by a user with other privileges; use a store of your own (--store)"
                )));
            }
            Some(record) if record.boot.is_some() => {
                store.note(|unflushed| &mut unflushed.met, *chain_id);
            }
            Some(_) => {}
        }
    }
    if !complete {
        let selection = Selection {
            name: Some(image.descriptor.digest.to_string()),
            platform: Platform::host(),
        };
        let source = layout::load(Arc::new(layout::Directory::new(store.root())), &selection)?;
        import(store, &source, name, How::default())?;
    }
    chain.reverse();
    Ok(chain)
}

/// Makes the directory, or checks that it is ours to use.
fn prepare(directory: &Path, force: bool) -> Result<()> {
    let shown = directory.display();
    fs::create_dir_all(directory).context(|| format!("make {shown}"))?;
    let is_bundle = directory.join("config.json").exists();
    let is_empty = fs::read_dir(directory)?.next().is_none();
    match (is_bundle, is_empty) {
        (true, _) if !force => Err(Error::Conflict(format!(
            "{shown} is a bundle already; --force replaces its config.json"
        ))),
        (false, false) => Err(Error::Conflict(format!(
            "{shown} is not empty and not a bundle; choose a new directory"
        ))),
        _ => {
            let rootfs = directory.join("rootfs");
            fs::create_dir_all(&rootfs)?;
            match fs::read_dir(&rootfs)?.next() {
                None => Ok(()),
                Some(_) => Err(Error::Conflict(format!(
                    "{} is not empty, and the layers are mounted there; empty it first",
                    rootfs.display()
                ))),
            }
        }
    }
}

fn write(directory: &Path, config: &[u8], life: Lifetime) -> Result<()> {
    let write = || -> Result<()> {
        let temporary = directory.join(format!(".config.json.{}", std::process::id()));
        let mut file = File::create(&temporary)?;
        file.write_all(config)?;
        if life == Lifetime::Lasting {
            file.sync_all()?;
        }
        Ok(fs::rename(&temporary, directory.join("config.json"))?)
    };
    write().context(|| format!("write config.json in {}", directory.display()))
}
