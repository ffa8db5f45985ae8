//! Images made by hand, and the program that reads them.

use flate2::Compression;
use flate2::write::GzEncoder;
use rootfs_tools::Digest;
use rootfs_tools::image::config::{ImageConfig, Rootfs, RunConfig};
use rootfs_tools::image::document::{
    CONFIG, Descriptor, Index, LAYER, MANIFEST, Manifest, REF_NAME, to_bytes,
};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use tar::{EntryType, Header};

/// A tar archive in the making, with entries that no honest tool writes.
#[derive(Default)]
pub(crate) struct Tar(Vec<u8>);

impl Tar {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    pub(crate) fn file(self, name: &str, content: &[u8]) -> Self {
        self.raw(name.as_bytes(), EntryType::Regular, b"", 0o644, content)
    }

    pub(crate) fn dir(self, name: &str, mode: u32) -> Self {
        self.raw(name.as_bytes(), EntryType::Directory, b"", mode, b"")
    }

    pub(crate) fn symlink(self, name: &str, to: &str) -> Self {
        self.raw(name.as_bytes(), EntryType::Symlink, to.as_bytes(), 0o777, b"")
    }

    pub(crate) fn link(self, name: &str, to: &str) -> Self {
        self.raw(name.as_bytes(), EntryType::Link, to.as_bytes(), 0o644, b"")
    }

    pub(crate) fn device(mut self, name: &str, kind: EntryType, major: u32, minor: u32) -> Self {
        let mut header = header(name.as_bytes(), kind, b"", 0o600, 0);
        header.set_device_major(major).unwrap();
        header.set_device_minor(minor).unwrap();
        header.set_cksum();
        self.0.extend_from_slice(header.as_bytes());
        self
    }

    /// An entry as given: no check, no cleaning.
    pub(crate) fn raw(
        mut self,
        name: &[u8],
        kind: EntryType,
        link: &[u8],
        mode: u32,
        content: &[u8],
    ) -> Self {
        let header = header(name, kind, link, mode, content.len() as u64);
        self.0.extend_from_slice(header.as_bytes());
        self.0.extend_from_slice(content);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    /// PAX records for the next entry.
    pub(crate) fn pax(mut self, records: &[(&str, &[u8])]) -> Self {
        let mut builder = tar::Builder::new(Vec::new());
        builder.append_pax_extensions(records.iter().copied()).unwrap();
        let mut bytes = builder.into_inner().unwrap();
        bytes.truncate(bytes.len() - 1024);
        self.0.append(&mut bytes);
        self
    }

    pub(crate) fn done(mut self) -> Vec<u8> {
        self.0.resize(self.0.len() + 1024, 0);
        self.0
    }
}

fn header(name: &[u8], kind: EntryType, link: &[u8], mode: u32, size: u64) -> Header {
    let mut header = Header::new_ustar();
    header.as_old_mut().name[..name.len()].copy_from_slice(name);
    header.as_old_mut().linkname[..link.len()].copy_from_slice(link);
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(1_700_000_000);
    header.set_size(size);
    header.set_cksum();
    header
}

pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// Writes a layout with one image of these layers (uncompressed tars), gzipped.
pub(crate) fn layout(directory: &Path, name: &str, layers: &[Vec<u8>]) {
    let blobs = directory.join("blobs/sha256");
    fs::create_dir_all(&blobs).unwrap();
    let put = |media_type: &str, bytes: &[u8]| {
        fs::write(blobs.join(Digest::of(bytes).hex()), bytes).unwrap();
        Descriptor::of(media_type, bytes)
    };
    let config = ImageConfig {
        architecture: "amd64".into(),
        os: "linux".into(),
        config: RunConfig { cmd: vec!["/bin/sh".into()], ..RunConfig::default() },
        rootfs: Rootfs {
            kind: "layers".into(),
            diff_ids: layers.iter().map(|layer| Digest::of(layer)).collect(),
        },
        ..ImageConfig::default()
    };
    let config = put(CONFIG, &to_bytes(&config).unwrap());
    let layers = layers.iter().map(|layer| put(&format!("{LAYER}+gzip"), &gzip(layer))).collect();
    let mut image = put(MANIFEST, &to_bytes(&Manifest::new(config, layers)).unwrap());
    image.annotations.insert(REF_NAME.into(), name.into());
    let index = Index { manifests: vec![image], ..Index::default() };
    fs::write(directory.join("index.json"), to_bytes(&index).unwrap()).unwrap();
    fs::write(directory.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
}

/// A store of its own, in a directory with room for inputs and bundles.
pub(crate) struct Place {
    pub(crate) dir: tempfile::TempDir,
}

impl Place {
    pub(crate) fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, bytes: &[u8]) -> PathBuf {
        fs::write(self.path(name), bytes).unwrap();
        self.path(name)
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_rootfs-tools"));
        command
            .arg("--store")
            .arg(self.path("store"))
            .args(arguments)
            .current_dir(self.dir.path())
            .env("REGISTRY_AUTH_FILE", self.path("auth.json"));
        command
    }

    /// Runs a command that must succeed; its output.
    pub(crate) fn ok(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        let (out, err) = texts(&output);
        assert!(output.status.success(), "{arguments:?}: {out}{err}");
        out
    }

    /// Runs a command that must fail with one line; that line.
    pub(crate) fn fails(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        let (out, err) = texts(&output);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {out}{err}");
        // Before it there may be a line for each layer that was done.
        let is_error = |line: &&str| line.starts_with("rootfs-tools: ");
        assert_eq!(err.lines().filter(is_error).count(), 1, "{err}");
        let last = err.lines().last().unwrap();
        assert!(is_error(&last), "{err}");
        format!("{last}\n")
    }

    /// The directories of a bundle's layers, the topmost first.
    pub(crate) fn lower(&self, bundle: &str) -> Vec<PathBuf> {
        let config = fs::read(self.path(bundle).join("config.json")).unwrap();
        let config: serde_json::Value = serde_json::from_slice(&config).unwrap();
        let list = config["annotations"]["org.minirun.overlay.lowerdirs"].as_str().unwrap();
        serde_json::from_str(list).unwrap()
    }

    /// Whether the store holds nothing but its own empty directories.
    pub(crate) fn nothing_was_kept(&self) -> bool {
        ["blobs/sha256", "layers/sha256", "tmp"].iter().all(|directory| {
            fs::read_dir(self.path("store").join(directory)).unwrap().next().is_none()
        })
    }
}

fn texts(output: &Output) -> (String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (text(&output.stdout), text(&output.stderr))
}

/// Whether a program is installed; tests that need one say when it is not.
pub(crate) fn has(program: &str) -> bool {
    let found = Command::new("sh").args(["-c", &format!("command -v {program}")]).output();
    let found = found.is_ok_and(|output| output.status.success());
    if !found {
        eprintln!("not tested: {program} is not installed");
    }
    found
}

/// Runs another program, which must succeed; its output.
pub(crate) fn sh(script: &str) -> String {
    let output = Command::new("sh").args(["-euc", script]).output().unwrap();
    let (out, err) = texts(&output);
    assert!(output.status.success(), "{script}: {out}{err}");
    out
}
