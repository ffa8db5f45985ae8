//! Unpacked layers become durable: after they were given to use, not before.
//!
//! # What the kernel offers
//! Whatever a process has written is what every process reads, at once and also when the writer is
//! killed: only the end of the kernel (a power cut, a crash) loses what is not on the disk yet.
//! syncfs(2) waits until it is. `/proc/sys/kernel/random/boot_id` is another one after each start.
//!
//! # What we do
//! A layer gets its name before its many files are flushed, and its record says under which boot
//! they were written. As long as the machine has not been started again, they are what was written.
//! Beside the record lies the file `state` with the word `flushing`, which becomes `durable` after
//! syncfs(2) has returned. A layer of another boot that is not durable counts as not unpacked, and
//! is unpacked again from its blob, which was flushed before it got its name: nobody can make it
//! again.
//!
//! The word is written over the other one. So it needs no room on a full disk, and no new name in a
//! directory that somebody may be removing with the whole store.
//!
//! Who waits for the disk: whoever makes something that outlasts the boot and names a layer (a
//! bundle), whoever is asked to (`--sync`, `sync`), and otherwise a process in the background.
//!
//! # What goes wrong without it
//! Either every import waits until tens of thousands of small files are on the disk, or a power cut
//! leaves layers that have their names, and files without their content.
//!
//! # What this does not see
//! A file system that lost what was written and was mounted again while the kernel lived: its
//! device was pulled out, or it was shut down after an error. Nothing tells that mount from the one
//! before. What such a layer has is found by `verify`, and by whoever makes it durable: what
//! another process has written is compared with its record before it is called so.

use super::lock::Lock;
use super::{Store, verify};
use crate::digest::Digest;
use crate::error::{Context, Error, Result};
use std::collections::BTreeSet;
use std::fs::{self, File, Metadata, OpenOptions};
use std::io::ErrorKind;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::sync::Mutex;

/// Where a layer has the word.
pub(super) const STATE: &str = "state";
/// The files of the layer may not be on the disk.
pub(super) const FLUSHING: &[u8; 8] = b"flushing";
/// They are. As long as the other one.
pub(super) const DURABLE: &[u8; 8] = b"durable\n";

/// Held by whoever makes layers durable.
const LOCK: &str = "flush.lock";

/// One start of the machine, or none that is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Boot(Option<String>);

impl Boot {
    /// The one under which this process runs; unknown without /proc.
    pub fn current() -> Self {
        Self(minirun::ready::boot_id())
    }

    /// The one with this name.
    pub fn named(id: &str) -> Self {
        Self(Some(id.to_owned()))
    }

    /// Nobody knows which: then everything is flushed before it is used.
    pub fn unknown() -> Self {
        Self(None)
    }

    /// Its name.
    pub fn id(&self) -> Option<&str> {
        self.0.as_deref()
    }
}

/// What an open store has met that is not durable.
#[derive(Debug, Clone, Default)]
pub struct Unflushed {
    /// Layers that this process has written.
    pub written: BTreeSet<Digest>,
    /// Layers that this process has used, and another one has written.
    pub met: BTreeSet<Digest>,
    /// Layers that this process has unpacked again, for a start of the machine came between.
    pub again: BTreeSet<Digest>,
}

impl Store {
    /// What this process has met until now.
    pub fn unflushed(&self) -> Unflushed {
        self.unflushed.lock().map(|unflushed| unflushed.clone()).unwrap_or_default()
    }

    /// Notes something about a layer.
    pub(crate) fn note(
        &self,
        list: impl FnOnce(&mut Unflushed) -> &mut BTreeSet<Digest>,
        chain_id: Digest,
    ) {
        if let Ok(mut unflushed) = self.unflushed.lock() {
            list(&mut unflushed).insert(chain_id);
        }
    }

    /// Opens a store to go on for a process that has written layers: `disk` is what it had open
    /// since before, so that no error of the disk is missed, which is told once to each open file;
    /// `lock` is [`Store::flush_lock`], which it may hold already. Makes nothing: the store may be
    /// gone, or going.
    ///
    /// # Errors
    /// When they are other files, or the store is gone.
    pub fn go_on(root: &Path, disk: File, lock: File, written: BTreeSet<Digest>) -> Result<Self> {
        let identity = |found: Metadata| (found.dev(), found.ino());
        if identity(disk.metadata()?) != identity(fs::metadata(root)?)
            || identity(lock.metadata()?) != identity(fs::metadata(root.join(LOCK))?)
        {
            return Err(Error::Invalid("it was started by another program".into()));
        }
        let users = Lock::shared_existing(&root.join("lock"))?;
        lock.lock()?;
        Ok(Self {
            root: root.to_path_buf(),
            lock: users,
            disk,
            boot: Boot::current(),
            unflushed: Mutex::new(Unflushed { written, ..Unflushed::default() }),
            flush_lock: Some(lock),
        })
    }

    /// The file whose lock is held by whoever makes layers durable; not locked.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub fn flush_lock(&self) -> Result<File> {
        let path = self.root.join(LOCK);
        let open = OpenOptions::new().read(true).append(true).create(true).open(path);
        open.context(|| "open flush.lock of the store".into())
    }

    /// The directory of the store, as it was opened before anything was written.
    ///
    /// # Errors
    /// When there are too many open files.
    pub fn disk(&self) -> Result<File> {
        Ok(self.disk.try_clone()?)
    }

    /// All unpacked layers that can be used now and may not be on the disk.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn all_unflushed(&self) -> Result<BTreeSet<Digest>> {
        let all = super::collect::names(&self.root.join("layers/sha256"))?;
        Ok(all.into_iter().filter(|chain_id| self.is_flushing(chain_id)).collect())
    }

    /// Whether a layer can be used and may not be on the disk.
    pub fn is_flushing(&self, chain_id: &Digest) -> bool {
        matches!(self.layer(chain_id), Ok(Some(record)) if record.boot.is_some())
    }

    /// Whether a process is making layers durable now.
    ///
    /// # Errors
    /// When the lock cannot be opened.
    pub fn is_being_flushed(&self) -> Result<bool> {
        Ok(self.flush_lock()?.try_lock().is_err())
    }

    /// Waits until these layers are on the disk, and marks them. What is marked costs nothing.
    ///
    /// # Errors
    /// When the disk has lost something, now or for another process that waited: then the layers
    /// are not used any more, and are unpacked again when they are needed. Or when a mark cannot be
    /// made.
    pub fn make_durable(&self, layers: &BTreeSet<Digest>) -> Result<()> {
        if layers.iter().any(|chain_id| self.is_flushing(chain_id)) {
            self.flush_and_mark(layers)?;
        }
        let is_lost = |chain_id: &&Digest| matches!(self.layer(chain_id), Ok(None));
        let lost: Vec<_> = layers.iter().filter(is_lost).map(Digest::short).collect();
        if lost.is_empty() {
            return Ok(());
        }
        Err(Error::Conflict(format!(
            "the disk has lost files of layer {}; use the image again, and it is unpacked again",
            lost.join(", ")
        )))
    }

    fn flush_and_mark(&self, layers: &BTreeSet<Digest>) -> Result<()> {
        // One at a time: who comes second finds the work done.
        let _alone = match &self.flush_lock {
            Some(held) => held.try_clone()?,
            None => {
                let lock = self.flush_lock()?;
                lock.lock().context(|| "lock flush.lock of the store".into())?;
                lock
            }
        };
        let flushing = layers.iter().filter(|chain_id| self.is_flushing(chain_id));
        let flushing: Vec<_> = flushing.collect();
        if flushing.is_empty() {
            return Ok(());
        }
        if let Err(error) = self.flush() {
            // Nobody knows which files it was about.
            flushing.iter().try_for_each(|chain_id| self.distrust(chain_id))?;
            return Err(error);
        }
        let written = self.unflushed().written;
        for chain_id in flushing {
            if !written.contains(chain_id) && !verify::layer(self, chain_id)?.is_empty() {
                self.distrust(chain_id)?;
            } else {
                let step = || format!("mark layer {chain_id} as durable");
                self.mark_durable(chain_id).context(step)?;
            }
        }
        Ok(())
    }

    fn mark_durable(&self, chain_id: &Digest) -> Result<()> {
        let state = OpenOptions::new().write(true).open(self.layer_path(chain_id).join(STATE))?;
        state.write_all_at(DURABLE, 0)?;
        Ok(state.sync_all()?)
    }

    /// Takes a layer's record away, so that it counts as not unpacked. Its files stay, for there
    /// may be containers that have them mounted.
    fn distrust(&self, chain_id: &Digest) -> Result<()> {
        match fs::remove_file(self.layer_path(chain_id).join("layer.json")) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            result => result.context(|| format!("take the record of layer {chain_id} away")),
        }
    }
}
