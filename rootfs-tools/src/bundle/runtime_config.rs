//! The configuration of an image becomes that of a container (image-spec, conversion.md).
//!
//! | image                        | config.json                                                  |
//! |------------------------------|--------------------------------------------------------------|
//! | Entrypoint + Cmd             | `process.args`                                               |
//! | Env                          | `process.env`; a `PATH` is added when there is none          |
//! | WorkingDir                   | `process.cwd`, `/` when empty                                |
//! | User                         | `process.user`, names looked up in the image                 |
//! | StopSignal                   | annotation `org.opencontainers.image.stopSignal`             |
//! | ExposedPorts                 | annotation `org.opencontainers.image.exposedPorts`, by comma |
//! | os, architecture, variant    | annotations `org.opencontainers.image.{os,architecture,variant}` |
//! | author, created              | annotations `org.opencontainers.image.{author,created}`      |
//! | Labels                       | annotations of the same names, but for `org.minirun.*`       |
//! | Volumes                      | annotation `org.minirun.image.volumes`, a JSON array         |
//! | Healthcheck                  | annotation `org.minirun.image.healthcheck`, JSON as it is    |
//! | name and digest              | annotations `org.minirun.image.{name,digest}`                |
//! | layers                       | annotation `org.minirun.overlay.lowerdirs`, a JSON array     |
//!
//! Volumes become no mounts: the root is writable and ends with the container, which is what an
//! anonymous volume is; whoever wants more mounts something there.

use super::user;
use crate::error::{Context, Error, Result};
use crate::image::view::View;
use crate::layer::whiteout::Form;
use crate::store::index::Image;
use minirun::spec::{default_config, rootless_config};
use oci_spec::runtime::Spec;
use serde_json::{Map, Value, json};
use std::path::{Path, PathBuf};

/// What minirun mounts: a JSON array of directories, the topmost first.
pub(crate) const LOWERDIRS: &str = "org.minirun.overlay.lowerdirs";
/// Present, and `true`, when the layers are for a mount with the option `userxattr`.
const USERXATTR: &str = "org.minirun.overlay.userxattr";
/// The digest of the image that a bundle was made of.
pub(crate) const DIGEST: &str = "org.minirun.image.digest";
/// Where minirun keeps what a container writes, when it is not in the bundle.
pub(crate) const UPPER: &str = "org.minirun.overlay.upper";
/// Annotations that steer minirun. An image cannot set them.
const RESERVED: &str = "org.minirun.";
/// The search path of a program whose image has none (as Docker sets it).
const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The bytes of `config.json` for an image with its layers in `trees`, the topmost first. What the
/// container writes goes to `upper`, or else into its bundle.
///
/// # Errors
/// When the image does not say what to run, or as whom.
pub fn of_image(
    image: &Image,
    trees: &[PathBuf],
    form: Form,
    view: &View,
    upper: Option<&Path>,
) -> Result<Vec<u8>> {
    let mut config = serde_json::to_value(base())?;
    let run = &image.config.config;
    let args: Vec<&String> = run.entrypoint.iter().chain(&run.cmd).collect();
    if args.is_empty() {
        return Err(Error::Unsupported(
            "the image says neither Entrypoint nor Cmd; import it with --entrypoint or --cmd"
                .into(),
        ));
    }
    let mut env = run.env.clone();
    if !env.iter().any(|variable| variable.starts_with("PATH=")) {
        env.insert(0, PATH.into());
    }
    let cwd = if run.working_dir.is_empty() { "/" } else { &run.working_dir };
    if !cwd.starts_with('/') {
        return Err(Error::Invalid(format!(
            "the working directory `{cwd}` of the image is not absolute"
        )));
    }
    let user = user::find(view, &run.user).context(|| "find the image's user".into())?;
    let process = object(&mut config, "process")?;
    process.insert("args".into(), json!(args));
    process.insert("env".into(), json!(env));
    process.insert("cwd".into(), json!(cwd));
    process.insert("terminal".into(), json!(false));
    // Its own group as well: a program that changes its group (a set-group-ID file) would leave it
    // otherwise, and with it what files deny to that group (CVE-2022-36109).
    let groups: Vec<u32> = std::iter::once(user.gid).chain(user.additional).collect();
    let ids = json!({ "uid": user.uid, "gid": user.gid, "additionalGids": groups });
    process.insert("user".into(), ids);
    sort_capabilities(process);
    let root = object(&mut config, "root")?;
    root.insert("path".into(), json!("rootfs"));
    // The layers stay as they are; what the container writes goes to a layer of its own.
    root.insert("readonly".into(), json!(false));
    let mut annotations = annotations(image, trees, form)?;
    if let Some(upper) = upper {
        annotations.insert(UPPER.into(), json!(upper));
    }
    object(&mut config, "annotations")?.extend(annotations);
    let mut text = serde_json::to_vec_pretty(&config)?;
    text.push(b'\n');
    Ok(text)
}

/// What a container has unless its image says otherwise: minirun's own defaults.
fn base() -> Spec {
    let user = nix::unistd::geteuid();
    if user.is_root() {
        default_config()
    } else {
        rootless_config(user.as_raw(), nix::unistd::getegid().as_raw())
    }
}

fn object<'config>(
    config: &'config mut Value,
    key: &str,
) -> Result<&'config mut Map<String, Value>> {
    let value = &mut config[key];
    if value.is_null() {
        *value = json!({});
    }
    value
        .as_object_mut()
        .ok_or_else(|| Error::Invalid(format!("`{key}` of the default configuration is no object")))
}

/// Capabilities are a set whose order changes from run to run; the same image gives the same file.
fn sort_capabilities(process: &mut Map<String, Value>) {
    let sets = process.get_mut("capabilities").and_then(Value::as_object_mut);
    for set in sets.into_iter().flat_map(Map::values_mut).filter_map(Value::as_array_mut) {
        set.sort_by(|a, b| a.as_str().cmp(&b.as_str()));
    }
}

fn annotations(image: &Image, trees: &[PathBuf], form: Form) -> Result<Map<String, Value>> {
    let config = &image.config;
    let run = &config.config;
    let mut annotations = Map::new();
    for (key, value) in run.labels.iter().filter(|(key, _)| !key.starts_with(RESERVED)) {
        annotations.insert(key.clone(), json!(value));
    }
    let ports: Vec<_> = run.exposed_ports.keys().map(String::as_str).collect();
    let ports = ports.join(",");
    let facts = [
        ("os", Some(&config.os)),
        ("architecture", Some(&config.architecture)),
        ("variant", config.variant.as_ref()),
        ("author", config.author.as_ref()),
        ("created", config.created.as_ref()),
        ("stopSignal", Some(&run.stop_signal)),
        ("exposedPorts", Some(&ports)),
    ];
    for (key, value) in facts {
        if let Some(value) = value.filter(|value| !value.is_empty()) {
            annotations.insert(format!("org.opencontainers.image.{key}"), json!(value));
        }
    }
    let mut ours = |key: &str, value: String| {
        annotations.insert(format!("{RESERVED}{key}"), Value::String(value));
    };
    ours("image.name", image.name.clone());
    ours("image.digest", image.descriptor.digest.to_string());
    if !run.volumes.is_empty() {
        ours("image.volumes", serde_json::to_string(&run.volumes.keys().collect::<Vec<_>>())?);
    }
    if let Some(healthcheck) = &run.healthcheck {
        ours("image.healthcheck", serde_json::to_string(healthcheck)?);
    }
    let text = |tree: &Path| {
        tree.to_str().map(str::to_owned).ok_or_else(|| {
            Error::Unsupported("the path of the store is not UTF-8, and config.json is".into())
        })
    };
    let trees = trees.iter().map(|tree| text(tree)).collect::<Result<Vec<_>>>()?;
    annotations.insert(LOWERDIRS.into(), Value::String(serde_json::to_string(&trees)?));
    if form == Form::User {
        annotations.insert(USERXATTR.into(), json!("true"));
    }
    Ok(annotations)
}
