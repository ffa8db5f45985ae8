//! RUN: a command in a container of minirun, on top of the layers so far.

use super::Plan;
use crate::bundle::runtime_config;
use crate::error::{Context, Error, Result};
use crate::image::view::View;
use crate::layer::compress;
use crate::layer::name::Name;
use crate::layer::pack::{self, Owners, Upper};
use crate::store::Store;
use crate::store::index::Image;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Where name servers are written down, which a container with this machine's network needs.
const RESOLVER: [&str; 2] = ["/etc/resolv.conf", "/etc/hosts"];

/// Runs a command and packs what it changed into `packed`. `image` is the image so far, with the
/// command as its program.
///
/// # Errors
/// When the command fails, or minirun does.
pub fn run(
    store: &Store,
    plan: &Plan,
    image: &Image,
    trees: &[PathBuf],
    packed: &Path,
) -> Result<()> {
    let scratch = store.scratch()?;
    let bundle = scratch.path().join("bundle");
    let upper = scratch.path().join("changes");
    fs::create_dir_all(bundle.join("rootfs"))?;
    fs::create_dir_all(&upper)?;
    let view = View::open(trees, store.form())?;
    let bytes = runtime_config::of_image(image, trees, store.form(), &view, Some(&upper))?;
    let mut config: Value = serde_json::from_slice(&bytes)?;
    if plan.network {
        share_network(&mut config);
    }
    fs::write(bundle.join("config.json"), serde_json::to_vec_pretty(&config)?)?;
    let id = format!("build-{}-{}", std::process::id(), image.descriptor.digest.short());
    let state = scratch.path().join("state");
    let result = in_container(&state, &id, &bundle)
        .and_then(|()| pack_changes(store, plan, &config, &upper.join("upper"), packed));
    // Also after a failure: nothing of the container stays.
    let mut delete = minirun(&state);
    delete.args(["delete", "--force", &id]).stdout(Stdio::null()).stderr(Stdio::null());
    drop(delete.status());
    result
}

fn in_container(state: &Path, id: &str, bundle: &Path) -> Result<()> {
    let mut command = minirun(state);
    command.args(["run", "--keep", "--name", id]).arg(bundle).stdin(Stdio::null());
    // What the configuration says about the network is all that there shall be.
    command.env("MINIRUN_NET", "none");
    let status = command.status().context(|| {
        format!("start {} (MINIRUN names another program)", command.get_program().to_string_lossy())
    })?;
    if status.success() {
        return Ok(());
    }
    Err(Error::Invalid(format!("the command failed: {status}")))
}

fn pack_changes(
    store: &Store,
    plan: &Plan,
    config: &Value,
    upper: &Path,
    packed: &Path,
) -> Result<()> {
    let mounts = config["mounts"].as_array().into_iter().flatten();
    let points = mounts.filter_map(|mount| mount["destination"].as_str());
    let mut mount_points = BTreeSet::new();
    for point in points.chain(["/dev", "/proc", "/sys"]) {
        mount_points.insert(Name::new(point.trim_start_matches('/').as_bytes())?);
    }
    let about = Upper { mount_points, newest: plan.epoch };
    compress::to_file(packed, |output| {
        pack::changes(upper, output, Owners::of_this_process(), store.form(), &about)
    })
    .context(|| "pack what it changed".into())?;
    File::open(packed)?.sync_all()?;
    Ok(())
}

/// The container uses the network of this machine, and its name servers.
fn share_network(config: &mut Value) {
    if let Some(namespaces) = config["linux"]["namespaces"].as_array_mut() {
        namespaces.retain(|namespace| namespace["type"] != "network");
    }
    if let Some(mounts) = config["mounts"].as_array_mut() {
        for file in RESOLVER.iter().filter(|file| Path::new(file).is_file()) {
            mounts.push(json!({
                "destination": file, "source": file, "type": "bind",
                "options": ["bind", "ro", "nosuid", "nodev", "noexec"],
            }));
        }
    }
}

/// The program minirun: what MINIRUN names, else the one beside this program, else the one in PATH.
fn minirun(state: &Path) -> Command {
    let named = std::env::var_os("MINIRUN").map(PathBuf::from);
    let beside = || {
        let path = std::env::current_exe().ok()?.with_file_name("minirun");
        path.is_file().then_some(path)
    };
    let mut command = Command::new(named.or_else(beside).unwrap_or_else(|| "minirun".into()));
    command.arg("--root").arg(state);
    command
}
