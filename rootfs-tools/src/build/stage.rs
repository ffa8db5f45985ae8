//! A stage: an image in the making, step by step.

use super::cache::{self, Known};
use super::context::Context as BuildContext;
use super::copy::{self, Changes, Item, Source, Target};
use super::ignore::Ignore;
use super::parse::{Command, Copy, Instruction};
use super::words::expand;
use super::{Course, Plan, add, health, run};
use crate::bundle::user;
use crate::container::on_top_of;
use crate::digest::Digest;
use crate::error::{Context, Error, Result};
use crate::image::config::{History, ImageConfig, RunConfig};
use crate::image::document::{self, Descriptor, MANIFEST, Manifest};
use crate::image::platform::Platform;
use crate::image::view::View;
use crate::import::{How, Imported, nameless};
use crate::layer::compress;
use crate::layer::name::Name;
use crate::layer::writer::LayerWriter;
use crate::source::{Configuration, SourceImage, SourceLayer, rootfs};
use crate::store::Store;
use crate::store::index::Image;
use nix::sys::stat::SFlag;
use serde_json::json;
use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use tar::EntryType;

/// One FROM and what follows it.
#[derive(Debug, Clone)]
pub struct Stage {
    /// Its name, and its number.
    names: Vec<String>,
    /// The layers so far.
    layers: Vec<(Descriptor, Digest)>,
    config: ImageConfig,
    arguments: BTreeMap<String, String>,
    global: BTreeMap<String, String>,
    shell: Vec<String>,
}

impl Stage {
    /// FROM: an image of the store or of a registry, another stage, or nothing.
    ///
    /// # Errors
    /// When there is no such image.
    pub fn begin(
        store: &Store,
        image: &str,
        name: Option<String>,
        stages: &[Stage],
        global: BTreeMap<String, String>,
        course: &mut dyn Course,
    ) -> Result<Self> {
        let (layers, config) = match stages.iter().find(|stage| stage.is_called(image)) {
            Some(stage) => (stage.layers.clone(), stage.config.clone()),
            None if image == "scratch" => (Vec::new(), empty_config()),
            None => {
                let name = image.parse()?;
                let image = match store.image(&name) {
                    Err(Error::NoSuchImage { .. }) => {
                        course.fetch(&name)?;
                        store.image(&name)
                    }
                    found => found,
                }?;
                let diff_ids = image.config.rootfs.diff_ids.iter().copied();
                (image.manifest.layers.into_iter().zip(diff_ids).collect(), image.config)
            }
        };
        let names = name.into_iter().chain([stages.len().to_string()]).collect();
        let shell = vec!["/bin/sh".to_owned(), "-c".to_owned()];
        Ok(Self { names, layers, config, arguments: BTreeMap::new(), global, shell })
    }

    /// Whether this is the stage of that name or number.
    pub fn is_called(&self, name: &str) -> bool {
        self.names.iter().any(|own| own.eq_ignore_ascii_case(name))
    }

    /// Does a step that needs no other stage.
    ///
    /// # Errors
    /// When it fails.
    pub fn apply(
        &mut self,
        store: &Store,
        plan: &Plan,
        instruction: &Instruction,
        course: &mut dyn Course,
    ) -> Result<()> {
        match instruction {
            Instruction::Run(command) => return self.run(store, plan, command, course),
            Instruction::Workdir(directory) => self.workdir(store, plan, directory)?,
            Instruction::Arg { name, value } => {
                let given = plan.arguments.get(name).or(value.as_ref()).or(self.global.get(name));
                let value = expand(given.map_or("", String::as_str), &self.variables())?;
                self.arguments.insert(name.clone(), value);
            }
            other => self.configure(other)?,
        }
        Ok(())
    }

    /// Changes the configuration only.
    fn configure(&mut self, instruction: &Instruction) -> Result<()> {
        let variables = self.variables();
        let each = |words: &[String]| {
            words.iter().map(|word| expand(word, &variables)).collect::<Result<Vec<_>>>()
        };
        let shell = self.shell.clone();
        let words = |command: &Command| match command {
            Command::Exec(words) => words.clone(),
            Command::Shell(line) => shell.iter().cloned().chain([line.clone()]).collect(),
        };
        let config = &mut self.config.config;
        match instruction {
            Instruction::Env(pairs) => {
                for (name, value) in pairs {
                    let entry = format!("{name}={}", expand(value, &variables)?);
                    let prefix = format!("{name}=");
                    match config.env.iter_mut().find(|entry| entry.starts_with(&prefix)) {
                        Some(old) => *old = entry,
                        None => config.env.push(entry),
                    }
                }
            }
            Instruction::Label(pairs) => {
                for (name, value) in pairs {
                    config.labels.insert(expand(name, &variables)?, expand(value, &variables)?);
                }
            }
            Instruction::User(user) => config.user = expand(user, &variables)?,
            Instruction::StopSignal(signal) => config.stop_signal = expand(signal, &variables)?,
            Instruction::Entrypoint(command) => {
                config.entrypoint = words(command);
                // A CMD of the image below was meant for its entry point.
                config.cmd.clear();
            }
            Instruction::Cmd(command) => config.cmd = words(command),
            Instruction::Shell(words) => {
                self.shell.clone_from(words);
                config.extra.insert("Shell".into(), json!(words));
            }
            Instruction::Expose(ports) => {
                for port in each(ports)? {
                    let port = if port.contains('/') { port } else { format!("{port}/tcp") };
                    config.exposed_ports.insert(port, json!({}));
                }
            }
            Instruction::Volume(volumes) => {
                config.volumes.extend(each(volumes)?.into_iter().map(|path| (path, json!({}))));
            }
            Instruction::Healthcheck { test, options } => {
                let test = match test {
                    None => json!(["NONE"]),
                    Some(Command::Shell(line)) => json!(["CMD-SHELL", line]),
                    Some(Command::Exec(words)) => {
                        let test = std::iter::once("CMD".to_owned()).chain(words.clone());
                        json!(test.collect::<Vec<_>>())
                    }
                };
                config.healthcheck = Some(health::healthcheck(test, options)?);
            }
            other => {
                return Err(Error::Invalid(format!(
                    "{other:?} changes more than the configuration"
                )));
            }
        }
        Ok(())
    }

    /// COPY: from the context, a stage before this one, or an image.
    ///
    /// # Errors
    /// When there is nothing to copy.
    pub fn copy(
        &mut self,
        store: &Store,
        plan: &Plan,
        context: &BuildContext,
        stages: &[Stage],
        copy: &Copy,
    ) -> Result<()> {
        let variables = self.variables();
        let sources =
            copy.sources.iter().map(|word| expand(word, &variables)).collect::<Result<Vec<_>>>()?;
        let target = self.absolute(&expand(&copy.target, &variables)?);
        let below = self.view(store)?;
        let owner = copy.owner.as_ref().map(|owner| owner_of(&below, owner, &variables));
        let owner = owner.transpose()?;
        let is_directory =
            below.resolve(target.as_bytes())?.is_some_and(|file| file.kind() == SFlag::S_IFDIR);
        let target = Target { path: &target, is_directory, sources: sources.len() };
        let nothing = Ignore::default();
        let other;
        let source = match &copy.from {
            None => Source { view: &context.view, ignore: &context.ignore },
            Some(from) => {
                other = match stages.iter().find(|stage| stage.is_called(from)) {
                    Some(stage) => stage.view(store)?,
                    None => View::open(
                        &crate::bundle::unpacked_trees(store, &from.parse()?)?,
                        store.form(),
                    )?,
                };
                Source { view: &other, ignore: &nothing }
            }
        };
        let scratch = store.scratch()?;
        let changes =
            Changes { owner: owner.or(Some((0, 0))), mode: copy.mode, newest: plan.epoch };
        let copied = |name| Item { source, name, changes };
        let packed = scratch.path().join("copy.tar.gz");
        let pack = |items: &[Item<'_>]| {
            compress::to_file(&packed, |output| copy::copy(items, target, output))
        };
        if copy.add {
            let added = added(&source, &sources, copy, scratch.path())?;
            let mut items = Vec::new();
            for (tree, name) in &added {
                let Some((view, is_archive)) = tree else {
                    items.push(copied(name.clone()));
                    continue;
                };
                // An archive says whose its files are; a server does not, and not when.
                let (owner, newest) = match is_archive {
                    true => (owner, plan.epoch),
                    false => (changes.owner, plan.epoch.or(Some(0))),
                };
                let source = Source { view, ignore: &nothing };
                let changes = Changes { owner, newest, ..changes };
                items.push(Item { source, name: name.clone(), changes });
            }
            pack(&items)?;
        } else {
            let mut names = Vec::new();
            for pattern in &sources {
                names.extend(source.find(pattern)?);
            }
            pack(&names.into_iter().map(copied).collect::<Vec<_>>())?;
        }
        self.push(store, rootfs::layer_of(File::open(&packed)?)?)
    }

    fn run(
        &mut self,
        store: &Store,
        plan: &Plan,
        command: &Command,
        course: &mut dyn Course,
    ) -> Result<()> {
        let mut config = self.config.clone();
        config.config.entrypoint.clear();
        config.config.cmd = match command {
            Command::Exec(words) => words.clone(),
            Command::Shell(line) => self.shell.iter().cloned().chain([line.clone()]).collect(),
        };
        let arguments = self.arguments.iter().map(|(name, value)| format!("{name}={value}"));
        config.config.env.splice(0..0, arguments);
        config.rootfs.diff_ids = self.layers.iter().map(|(_, diff_id)| *diff_id).collect();
        config.history.clear();
        config.created = None;
        let key = document::to_bytes(
            &json!({"config": config, "network": plan.network, "epoch": plan.epoch}),
        )?;
        let key = Digest::of(&key);
        if let Some(known) = cache::find(store, &key).filter(|_| !plan.no_cache) {
            course.tell("  as before");
            let path = store.blob_path(&known.blob.digest);
            let (blob, diff_id) = (Some(known.blob), Some(known.diff_id));
            let open: crate::source::Opener = Box::new(move || Ok(Box::new(File::open(&path)?)));
            self.push(store, SourceLayer { blob, diff_id, open, kept: None })?;
        } else {
            let image = self.image(config)?;
            let scratch = store.scratch()?;
            let packed = scratch.path().join("run.tar.gz");
            run::run(store, plan, &image, &self.trees(store), &packed)?;
            self.push(store, rootfs::layer_of(File::open(&packed)?)?)?;
            if let Some((blob, diff_id)) = self.layers.last().cloned() {
                cache::remember(store, &key, &Known { blob, diff_id })?;
            }
        }
        Ok(())
    }

    /// WORKDIR, and the directory itself when the image has it not.
    fn workdir(&mut self, store: &Store, plan: &Plan, directory: &str) -> Result<()> {
        let directory = self.absolute(&expand(directory, &self.variables())?);
        self.config.config.working_dir.clone_from(&directory);
        let name = Name::new(directory.trim_matches('/').as_bytes())?;
        if name.is_root() || self.view(store)?.resolve(directory.as_bytes())?.is_some() {
            return Ok(());
        }
        let scratch = store.scratch()?;
        let packed = scratch.path().join("workdir.tar.gz");
        compress::to_file(&packed, |output| {
            let mut writer = LayerWriter::new(output);
            let time = plan.epoch.unwrap_or(0);
            let mut header = LayerWriter::<&mut dyn std::io::Write>::header(
                EntryType::Directory,
                0o755,
                (0, 0),
                time,
            );
            writer.write(&name, &mut header, None, &[], std::io::empty())?;
            writer.finish()
        })?;
        self.push(store, rootfs::layer_of(File::open(&packed)?)?)
    }

    /// Puts a layer on top.
    fn push(&mut self, store: &Store, layer: SourceLayer) -> Result<()> {
        let mut source = self.source(store);
        source.layers.push(layer);
        let imported = nameless(store, &source, How::default())?;
        let image = store.read_image(imported.image)?;
        self.layers = image.manifest.layers.into_iter().zip(image.config.rootfs.diff_ids).collect();
        Ok(())
    }

    /// The image as it is in the end.
    ///
    /// # Errors
    /// When it has no files, or the store cannot be written.
    pub fn finish(&self, store: &Store, plan: &Plan) -> Result<Imported> {
        if self.layers.is_empty() {
            return Err(Error::Invalid("the image has no files".into()));
        }
        let mut source = self.source(store);
        if let Configuration::Made(config) = &mut source.config {
            config.created = Some(timestamp(plan));
        }
        nameless(store, &source, How::default())
    }

    fn source(&self, store: &Store) -> SourceImage {
        match self.image(self.config.clone()) {
            Ok(image) => on_top_of(store, &image, self.config.clone()),
            Err(_) => SourceImage {
                manifest: None,
                config: Configuration::Made(Box::new(self.config.clone())),
                layers: Vec::new(),
                name: None,
            },
        }
    }

    /// The image so far, with another configuration; its documents are not in the store.
    fn image(&self, mut config: ImageConfig) -> Result<Image> {
        config.rootfs.diff_ids = self.layers.iter().map(|(_, diff_id)| *diff_id).collect();
        let bytes = document::to_bytes(&config)?;
        let blobs = self.layers.iter().map(|(blob, _)| blob.clone()).collect();
        let manifest = Manifest::new(Descriptor::of(document::CONFIG, &bytes), blobs);
        let descriptor = Descriptor::of(MANIFEST, &document::to_bytes(&manifest)?);
        Ok(Image { name: String::new(), descriptor, manifest, config })
    }

    /// The layers, the topmost first.
    fn trees(&self, store: &Store) -> Vec<PathBuf> {
        let diff_ids: Vec<_> = self.layers.iter().map(|(_, diff_id)| *diff_id).collect();
        let chain = crate::image::config::chain_ids(&diff_ids);
        chain.iter().rev().map(|chain_id| store.tree_path(chain_id)).collect()
    }

    fn view(&self, store: &Store) -> Result<View> {
        View::open(&self.trees(store), store.form()).context(|| "look into the image so far".into())
    }

    /// What `$NAME` means here: ENV wins over ARG.
    fn variables(&self) -> BTreeMap<String, String> {
        let mut variables = self.arguments.clone();
        let env = self.config.config.env.iter().filter_map(|entry| entry.split_once('='));
        variables.extend(env.map(|(name, value)| (name.to_owned(), value.to_owned())));
        variables
    }

    /// A path of the image, from the working directory on.
    fn absolute(&self, path: &str) -> String {
        let from = &self.config.config.working_dir;
        let joined = Path::new("/").join(from).join(path);
        let mut text = joined.to_string_lossy().into_owned();
        if (path.ends_with('/') || path == ".") && !text.ends_with('/') {
            text.push('/');
        }
        text
    }

    /// How many layers there are.
    pub fn height(&self) -> usize {
        self.layers.len()
    }

    /// Writes a step into the history of the image.
    pub fn note(&mut self, plan: &Plan, by: &str, empty_layer: bool) {
        let (created, created_by) = (Some(timestamp(plan)), Some(by.to_owned()));
        self.config.history.push(History {
            created,
            created_by,
            empty_layer,
            extra: BTreeMap::new(),
        });
    }
}

fn empty_config() -> ImageConfig {
    let host = Platform::host();
    ImageConfig {
        architecture: host.architecture,
        os: host.os,
        variant: host.variant,
        config: RunConfig::default(),
        ..ImageConfig::default()
    }
}

/// The time of the image: SOURCE_DATE_EPOCH, or else now.
fn timestamp(plan: &Plan) -> String {
    let epoch = plan.epoch.and_then(|seconds| u64::try_from(seconds).ok());
    let time = match epoch {
        Some(seconds) => std::time::UNIX_EPOCH + std::time::Duration::from_secs(seconds),
        None => std::time::SystemTime::now(),
    };
    humantime::format_rfc3339_seconds(time).to_string()
}

/// The owner that `--chown` means: by number, or by the names of the image.
fn owner_of(image: &View, owner: &str, variables: &BTreeMap<String, String>) -> Result<(u32, u32)> {
    let owner = expand(owner, variables)?;
    let found = user::find(image, &owner)?;
    Ok((found.uid, if owner.contains(':') { found.gid } else { found.uid }))
}

/// What ADD copies: a name in the context, or a tree of its own, and whether that was an archive.
type Added = (Option<(View, bool)>, Name);

fn added(
    source: &Source<'_>,
    patterns: &[String],
    copy: &Copy,
    scratch: &Path,
) -> Result<Vec<Added>> {
    let mut number = 0;
    let mut directory = || -> Result<PathBuf> {
        number += 1;
        let directory = scratch.join(format!("added-{number}"));
        std::fs::create_dir(&directory)?;
        Ok(directory)
    };
    let mut added = Vec::new();
    for pattern in patterns {
        if add::is_url(pattern) {
            let (view, name) = add::fetch(pattern, copy.checksum.as_ref(), &directory()?)?;
            added.push((Some((view, false)), name));
            continue;
        }
        for name in source.find(pattern)? {
            match add::unpacked(source, &name, &mut directory)? {
                Some(view) => added.push((Some((view, true)), Name::new(b".")?)),
                None => added.push((None, name)),
            }
        }
    }
    Ok(added)
}
