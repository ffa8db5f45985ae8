//! `import`: an image from a file or a directory.

use super::LimitArgs;
use super::output::Output;
use super::sync::Wait;
use clap::Args;
use rootfs_tools::image::config::{ImageConfig, RunConfig};
use rootfs_tools::image::platform::Platform;
use rootfs_tools::import::How;
use rootfs_tools::source::{self, Configuration, Selection};
use rootfs_tools::{Context, Error, Reference, Result, Store, import};
use serde_json::json;
use std::io::Write;
use std::path::{Path, PathBuf};

/// Imports an image: an OCI layout or oci-archive, a `docker save` archive, a root file system
#[derive(Debug, Args)]
pub(crate) struct Import {
    /// A directory or a tar file (gzip, zstd or plain); `-` is standard input
    source: PathBuf,
    /// The name in the store [default: the name that the source gives]
    name: Option<String>,
    /// Which image of a source that has several: its name there, or its digest
    #[arg(long = "ref", value_name = "NAME")]
    reference: Option<String>,
    /// What the image shall run on [default: this machine]
    #[arg(long, value_name = "OS/ARCH[/VARIANT]")]
    platform: Option<Platform>,
    #[command(flatten)]
    run: RunArgs,
    #[command(flatten)]
    limits: LimitArgs,
    #[command(flatten)]
    wait: Wait,
}

/// How to run a root file system that does not say it itself.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "For a plain root file system")]
pub(crate) struct RunArgs {
    /// The program: a path, or a JSON array with arguments
    #[arg(long, value_name = "PROGRAM", value_parser = words)]
    entrypoint: Option<Words>,
    /// Its arguments, or the program when there is no entry point: a word or a JSON array
    #[arg(long, value_name = "ARGUMENTS", value_parser = words)]
    cmd: Option<Words>,
    /// A variable of its environment; may be repeated
    #[arg(long, value_name = "NAME=VALUE", value_parser = pair)]
    env: Vec<String>,
    /// Where it starts
    #[arg(long, value_name = "DIR")]
    workdir: Option<String>,
    /// The user that it runs as, by name or number
    #[arg(long, value_name = "USER[:GROUP]")]
    user: Option<String>,
    /// A port that it listens on; may be repeated
    #[arg(long, value_name = "PORT[/PROTOCOL]", value_parser = port)]
    port: Vec<String>,
    /// A directory for data that is not the image's; may be repeated
    #[arg(long, value_name = "DIR")]
    volume: Vec<String>,
    /// What to say about the image; may be repeated
    #[arg(long, value_name = "NAME=VALUE", value_parser = pair)]
    label: Vec<String>,
    /// The signal that asks it to end
    #[arg(long, value_name = "SIGNAL")]
    stop_signal: Option<String>,
}

/// The words of a command.
#[derive(Debug, Clone)]
struct Words(Vec<String>);

/// A JSON array, or one word. Nothing is split at blanks: which shell's rules would that be?
fn words(text: &str) -> std::result::Result<Words, String> {
    if text.starts_with('[') {
        return serde_json::from_str(text)
            .map(Words)
            .map_err(|error| format!("not a JSON array of strings: {error}"));
    }
    if text.is_empty() || text.contains(char::is_whitespace) {
        let array = json!(text.split_whitespace().collect::<Vec<_>>());
        return Err(format!("several words are a JSON array: '{array}'"));
    }
    Ok(Words(vec![text.to_owned()]))
}

fn pair(text: &str) -> std::result::Result<String, String> {
    match text.split_once('=') {
        Some((name, _)) if !name.is_empty() => Ok(text.to_owned()),
        _ => Err("it has the form NAME=VALUE".into()),
    }
}

fn port(text: &str) -> std::result::Result<String, String> {
    let (number, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    match (number.parse::<u16>(), protocol) {
        (Ok(1..), "tcp" | "udp" | "sctp") => Ok(format!("{number}/{protocol}")),
        _ => Err("it has the form 3000 or 53/udp".into()),
    }
}

impl RunArgs {
    fn is_empty(&self) -> bool {
        let Self { entrypoint, cmd, env, workdir, user, port, volume, label, stop_signal } = self;
        entrypoint.is_none()
            && cmd.is_none()
            && workdir.is_none()
            && user.is_none()
            && stop_signal.is_none()
            && [env, port, volume, label].iter().all(|list| list.is_empty())
    }

    fn config(&self, platform: &Platform) -> ImageConfig {
        let keys = |list: &[String]| list.iter().map(|key| (key.clone(), json!({}))).collect();
        let words =
            |words: &Option<Words>| words.as_ref().map(|words| words.0.clone()).unwrap_or_default();
        let labels = self.label.iter().filter_map(|label| label.split_once('='));
        let run = RunConfig {
            user: self.user.clone().unwrap_or_default(),
            exposed_ports: keys(&self.port),
            env: self.env.clone(),
            entrypoint: words(&self.entrypoint),
            cmd: words(&self.cmd),
            volumes: keys(&self.volume),
            working_dir: self.workdir.clone().unwrap_or_default(),
            labels: labels.map(|(key, value)| (key.into(), value.into())).collect(),
            stop_signal: self.stop_signal.clone().unwrap_or_default(),
            ..RunConfig::default()
        };
        ImageConfig {
            architecture: platform.architecture.clone(),
            os: platform.os.clone(),
            variant: platform.variant.clone(),
            config: run,
            ..ImageConfig::default()
        }
    }
}

impl Import {
    pub(crate) fn run(&self, store: &Store, output: Output) -> Result<()> {
        bring(store, &self.source, self.name.as_deref(), self, output).map(drop)
    }
}

/// Imports, says what was done, and returns the name that the image has now.
fn bring(
    store: &Store,
    path: &Path,
    name: Option<&str>,
    options: &Import,
    output: Output,
) -> Result<Reference> {
    let step = || format!("import {}", path.display());
    let platform = options.platform.clone().unwrap_or_else(Platform::host);
    let scratch = store.scratch()?;
    let selection = Selection { name: options.reference.clone(), platform: platform.clone() };
    let plain = options.run.config(&platform);
    let source = source::open(path, &selection, plain, scratch.path()).context(step)?;
    if matches!(source.config, Configuration::Given(..)) && !options.run.is_empty() {
        return Err(Error::Conflict(
            "the image says itself how it is run; --entrypoint, --env and the like are for a plain root file system".into(),
        ))
        .context(step);
    }
    let name = name_of(path, name, source.name.as_deref())?;
    let progress = output.progress();
    let how = How { limits: options.limits.limits(), progress: &*progress };
    let imported = import::import(store, &source, &name, how).context(step)?;
    options.wait.wait(store).context(step)?;
    report(&name, &imported, output)?;
    Ok(name)
}

pub(crate) fn report(name: &Reference, imported: &import::Imported, output: Output) -> Result<()> {
    let words = || {
        let layers = match imported.layers {
            1 => "1 layer".to_owned(),
            count => format!("{count} layers"),
        };
        let shared = match imported.shared {
            0 => String::new(),
            count => format!(", {count} of them shared"),
        };
        format!("{name}: {layers}{shared}, image {}", imported.image.digest.short())
    };
    let notices = &imported.notices;
    let json = json!({
        "name": name.to_string(),
        "digest": imported.image.digest,
        "layers": imported.layers,
        "shared": imported.shared,
        "leftOut": (!notices.is_empty()).then(|| notices.to_string()),
    });
    output.done(words, json)?;
    if !notices.is_empty() {
        writeln!(std::io::stderr(), "rootfs-tools: {name}: left out: {notices}")?;
    }
    Ok(())
}

/// The name that was asked for, else the one that the source gives, else that of the file.
fn name_of(path: &Path, asked: Option<&str>, given: Option<&str>) -> Result<Reference> {
    if let Some(asked) = asked {
        return asked.parse();
    }
    // A layout's name is often a bare tag (`latest`), which says nothing here.
    let given =
        given.filter(|given| given.contains([':', '/'])).and_then(|given| given.parse().ok());
    if let Some(given) = given {
        return Ok(given);
    }
    let file = path.file_name().and_then(|file| file.to_str()).unwrap_or_default();
    let stem = [".gz", ".zst", ".tgz", ".tar", ".oci"]
        .iter()
        .fold(file, |stem, end| stem.strip_suffix(end).unwrap_or(stem));
    stem.parse().map_err(|_| {
        Error::Invalid(format!(
            "{} gives the image no name: add one to the command",
            path.display()
        ))
    })
}

/// Imports an archive that was named where an image is expected.
pub(crate) fn archive(store: &Store, path: &Path, output: Output) -> Result<Reference> {
    let options = Import {
        source: path.to_path_buf(),
        name: None,
        reference: None,
        platform: None,
        run: RunArgs::default(),
        limits: LimitArgs::default(),
        wait: Wait::default(),
    };
    bring(store, path, None, &options, output)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_one_word_or_an_array() {
        assert_eq!(words("/bin/web").unwrap().0, ["/bin/web"]);
        assert_eq!(words(r#"["sh", "-c", "a b"]"#).unwrap().0, ["sh", "-c", "a b"]);
        assert!(words("sh -c x").unwrap_err().contains(r#"["sh","-c","x"]"#));
        assert!(words("").is_err() && words("[1]").is_err());
    }

    #[test]
    fn ports_name_their_protocol() {
        assert_eq!(port("3000").unwrap(), "3000/tcp");
        assert_eq!(port("53/udp").unwrap(), "53/udp");
        for text in ["0", "70000", "x", "1/icmp"] {
            assert!(port(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_file_gives_its_name_to_the_image() {
        let name = |path: &str, given| name_of(Path::new(path), None, given).unwrap().to_string();
        assert_eq!(name("/tmp/web.tar.gz", None), "web:latest");
        assert_eq!(name("/tmp/x.tar", Some("team/web:v2")), "team/web:v2");
        assert_eq!(name("/tmp/x.tar", Some("latest")), "x:latest");
        assert!(name_of(Path::new("-"), None, None).is_err());
    }
}
