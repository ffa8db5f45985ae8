//! `sync`, and who makes layers durable when a command has ended.
//!
//! A command that has written layers, or has met some that are not durable, starts this program
//! once more and ends. The other one has nothing of the caller's: standard input is the directory
//! of the store, open since before the layers were written; standard output is the lock of those
//! who flush, held already, so that whoever needs the layers durable finds somebody at work; no
//! other descriptor, a session of its own, no environment, `/` as its directory.

use super::output::Output;
use clap::Args;
use linux::terminal::start_session;
use rootfs_tools::store::durable::Unflushed;
use rootfs_tools::{Context, Digest, Result, Store};
use serde_json::json;
use std::collections::BTreeSet;
use std::fs::File;
use std::io::{stdin, stdout};
use std::os::fd::AsFd;
use std::path::Path;
use std::process::{Command, Stdio};

/// Waits until every unpacked layer is on the disk
#[derive(Debug, Args)]
pub(crate) struct Sync {
    /// A layer that the process has written for which this one goes on
    #[arg(long, hide = true, value_name = "DIGEST")]
    written: Vec<Digest>,
    /// A layer that it has met
    #[arg(long, hide = true, value_name = "DIGEST")]
    met: Vec<Digest>,
}

/// Whether a command waits for the disk.
#[derive(Debug, Default, Args)]
pub(crate) struct Wait {
    /// Waits until the unpacked layers are on the disk, which is otherwise done in the background
    #[arg(long)]
    sync: bool,
}

impl Sync {
    pub(crate) fn run(self, path: &Path, output: Output) -> Result<()> {
        let step = || "bring layers to the disk".into();
        if self.written.is_empty() && self.met.is_empty() {
            let store = Store::open(path)?;
            // Also when it has marked the layers already: whoever is at work has the store open.
            store.flush_lock()?.lock()?;
            let layers = store.all_unflushed().context(step)?;
            store.make_durable(&layers).context(step)?;
            let count = layers.len();
            return output
                .done(|| format!("{count} layers were not on the disk"), json!({"layers": count}));
        }
        // A terminal that closes, or ^C, is not about this process. One that leads a session
        // already needs none.
        drop(start_session());
        let disk = File::from(stdin().as_fd().try_clone_to_owned()?);
        let lock = File::from(stdout().as_fd().try_clone_to_owned()?);
        let written: BTreeSet<_> = self.written.into_iter().collect();
        let layers = written.iter().copied().chain(self.met).collect();
        let store = Store::go_on(path, disk, lock, written).context(step)?;
        store.make_durable(&layers).context(step)
    }
}

impl Wait {
    /// Waits, if that was asked for.
    pub(crate) fn wait(&self, store: &Store) -> Result<()> {
        match self.sync {
            true => store.make_durable(&all(&store.unflushed())),
            false => Ok(()),
        }
    }
}

fn all(unflushed: &Unflushed) -> BTreeSet<Digest> {
    unflushed.written.union(&unflushed.met).copied().collect()
}

/// Says what was done besides, and sees to it that what is not durable becomes so.
pub(crate) fn afterwards(store: &Store, output: Output) -> Result<()> {
    let unflushed = store.unflushed();
    for chain_id in &unflushed.again {
        if matches!(store.layer(chain_id), Ok(Some(_))) {
            let id = chain_id.short();
            output.tell(&format!(
                "layer {id} was unpacked again: its files had not reached the disk when the machine stopped"
            ));
        }
    }
    let layers: BTreeSet<_> =
        all(&unflushed).into_iter().filter(|chain_id| store.is_flushing(chain_id)).collect();
    let is_ours = layers.iter().any(|chain_id| unflushed.written.contains(chain_id));
    if layers.is_empty() || (!is_ours && store.is_being_flushed()?) {
        return Ok(());
    }
    match in_background(store, &layers, &unflushed.written) {
        Ok(()) => Ok(()),
        // No more processes, no /proc: then the caller waits.
        Err(_) => store.make_durable(&layers),
    }
}

fn in_background(
    store: &Store,
    layers: &BTreeSet<Digest>,
    written: &BTreeSet<Digest>,
) -> Result<()> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("--store").arg(store.root()).arg("sync");
    for chain_id in layers {
        let kind = if written.contains(chain_id) { "--written" } else { "--met" };
        command.arg(kind).arg(chain_id.to_string());
    }
    let lock = store.flush_lock()?;
    // When somebody else has it, the other process waits for it.
    drop(lock.try_lock());
    // Also what the caller left open for us, its own locks and pipes.
    linux::fd::close_on_exec_from(3)?;
    command.env_clear().current_dir("/");
    command.stdin(store.disk()?).stdout(lock).stderr(Stdio::null());
    // Nobody waits for it: this process ends now.
    drop(command.spawn()?);
    Ok(())
}
