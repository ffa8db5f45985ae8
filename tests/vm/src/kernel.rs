//! The guest's kernel: Debian's package taken apart into what QEMU and the guest need.
//!
//! - `vmlinux`, uncompressed: booted directly (PVH) a second sooner than the bzImage, whose
//!   decompressor an emulated processor runs slowly.
//! - `early/NN-NAME.ko`: the modules before the root file system, in the order of loading.
//! - `modules.ext4`: all modules that containers can want, mounted on `/lib/modules`, so that
//!   the kernel loads them itself when something asks for them.

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::Stdio,
    str::FromStr,
    thread,
};

use anyhow::{Context, Result, bail};

use crate::{
    cache::{Cache, Key},
    debian::{Apt, Package},
    host,
};

/// A kernel series of Debian's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kernel {
    /// 6.1, of Debian 12 itself: what most servers of these years run.
    V6_1,
    /// 6.12, from Debian 12's backports: statmount, overlay by fsopen.
    V6_12,
}

impl Kernel {
    /// Every series, oldest first.
    pub const ALL: [Self; 2] = [Self::V6_1, Self::V6_12];

    /// The series as people write it.
    #[must_use]
    pub fn series(self) -> &'static str {
        match self {
            Self::V6_1 => "6.1",
            Self::V6_12 => "6.12",
        }
    }

    fn is_backport(self) -> bool {
        self == Self::V6_12
    }
}

impl FromStr for Kernel {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL
            .into_iter()
            .find(|kernel| kernel.series() == text)
            .ok_or_else(|| format!("no kernel {text}: there are 6.1 and 6.12"))
    }
}

impl std::fmt::Display for Kernel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.series())
    }
}

/// Loaded by the initrd, before there is a root file system.
const EARLY: &[&str] =
    &["virtio_pci", "virtio_blk", "virtio_console", "ext4", "crc32c_generic", "9p", "9pnet_virtio"];

/// Directories of modules that a container host can want; the rest is hardware we do not have.
const KEPT: &[&str] = &[
    "fs",
    "net",
    "lib",
    "crypto",
    "arch",
    "security",
    "mm",
    "block",
    "drivers/block",
    "drivers/char",
    "drivers/md",
    "drivers/virtio",
    "drivers/vhost",
];

/// Of drivers/net only the software devices, which lie directly in it or in these.
const KEPT_NET: &[&str] = &["bonding", "ipvlan", "ovpn", "team", "vxlan", "wireguard"];

/// Changes when what is made from the same package changes.
const RECIPE: &str = "1";

/// A kernel that is ready to boot.
#[derive(Debug)]
pub(crate) struct Built {
    pub(crate) directory: PathBuf,
    pub(crate) key: String,
}

impl Built {
    pub(crate) fn vmlinux(&self) -> PathBuf {
        self.directory.join("vmlinux")
    }

    pub(crate) fn modules(&self) -> PathBuf {
        self.directory.join("modules.ext4")
    }

    /// The early modules' files in the order of loading.
    pub(crate) fn early(&self) -> Result<Vec<PathBuf>> {
        let mut files = Vec::new();
        for entry in fs::read_dir(self.directory.join("early"))? {
            files.push(entry?.path());
        }
        files.sort();
        Ok(files)
    }
}

/// Gives the kernel of this series from the cache, or builds it. With `update`, Debian's lists
/// are asked for a newer one.
pub(crate) fn build(cache: &Cache, kernel: Kernel, update: bool) -> Result<Built> {
    if !update
        && let Some(built) = current(cache, kernel)
        && built.directory.exists()
    {
        return Ok(built);
    }
    host::ensure_host_packages()?;
    eprintln!("vm: building kernel {kernel} from Debian's package");
    let apt = Apt::update(cache)?;
    let package = apt.behind("linux-image-amd64", kernel.is_backport())?;
    let key = key(&package);
    let name = format!("kernel-{key}");
    let directory = cache.part(&name, |directory| take_apart(&apt, &package, directory))?;
    cache.write(&pointer(kernel), &format!("{} {}\n", package.name, package.version))?;
    Ok(Built { directory, key })
}

/// The file that says which package stands for the series.
fn pointer(kernel: Kernel) -> String {
    format!("kernel-{kernel}")
}

/// What the cache has, or would have, for the series.
pub(crate) fn current(cache: &Cache, kernel: Kernel) -> Option<Built> {
    let text = fs::read_to_string(cache.path(&pointer(kernel))).ok()?;
    let (name, version) = text.trim().split_once(' ')?;
    let key = key(&Package { name: name.into(), version: version.into() });
    Some(Built { directory: cache.path(&format!("kernel-{key}")), key })
}

fn key(package: &Package) -> String {
    Key::default()
        .list([RECIPE, &package.name, &package.version])
        .list(EARLY.iter().copied())
        .list(KEPT.iter().copied())
        .list(KEPT_NET.iter().copied())
        .finish()
}

fn take_apart(apt: &Apt, package: &Package, directory: &Path) -> Result<()> {
    fs::create_dir(directory)?;
    let unpacked = directory.join("package");
    apt.unpack(package, &unpacked)?;
    let Some(release) = package.name.strip_prefix("linux-image-") else {
        bail!("{} is not a kernel package", package.name);
    };
    let image = host::read(&unpacked.join(format!("boot/vmlinuz-{release}")))?;
    fs::write(directory.join("vmlinux"), decompressed(&image)?)?;

    host::run(host::command("depmod").arg("-b").arg(&unpacked).arg(release))?;
    let early = directory.join("early");
    fs::create_dir(&early)?;
    for (index, module) in loading_order(&unpacked, release)?.iter().enumerate() {
        let name = module.file_name().context("a module without a name")?.to_string_lossy();
        let plain = name.trim_end_matches(".xz");
        let mut content = host::read(module)?;
        if plain != name {
            content = filter("xz", &content)?;
        }
        fs::write(early.join(format!("{index:02}-{plain}")), content)?;
    }

    let modules = unpacked.join("lib/modules").join(release);
    prune(&modules.join("kernel"))?;
    host::run(host::command("depmod").arg("-b").arg(&unpacked).arg(release))?;
    file_system(&unpacked.join("lib/modules"), &directory.join("modules.ext4"), "256M")?;
    fs::remove_dir_all(unpacked)?;
    Ok(())
}

/// Makes an ext4 image of a directory, without loop devices or a mount.
///
/// A guest that is thrown away needs neither a journal nor checksums.
pub(crate) fn file_system(directory: &Path, image: &Path, size: &str) -> Result<()> {
    host::run(
        host::command("mke2fs")
            .args(["-q", "-t", "ext4", "-O", "^has_journal,^metadata_csum", "-m", "0"])
            .args(["-E", "root_owner=0:0,lazy_itable_init=1,nodiscard", "-d"])
            .args([directory, image])
            .arg(size),
    )
}

/// The files of the early modules and what they need, dependencies first.
fn loading_order(root: &Path, release: &str) -> Result<Vec<PathBuf>> {
    let mut order: Vec<PathBuf> = Vec::new();
    for module in EARLY {
        let text = host::output(
            host::command("modprobe")
                .arg("-d")
                .arg(root)
                .args(["-S", release, "--show-depends", module])
                .env("MODPROBE_OPTIONS", ""),
        )?;
        for file in inserted(&String::from_utf8_lossy(&text)) {
            if !order.contains(&file) {
                order.push(file);
            }
        }
    }
    Ok(order)
}

/// The files of `modprobe --show-depends`; what is built in is left out.
fn inserted(text: &str) -> Vec<PathBuf> {
    text.lines()
        .filter_map(|line| line.trim().strip_prefix("insmod "))
        .map(|rest| PathBuf::from(rest.split_whitespace().next().unwrap_or(rest)))
        .collect()
}

/// Removes the modules of hardware that no guest has: three quarters of them.
fn prune(kernel: &Path) -> Result<()> {
    let drivers = kernel.join("drivers");
    for (directory, within) in [(kernel, ""), (&drivers, "drivers/")] {
        for entry in fs::read_dir(directory)? {
            let entry = entry?;
            let name = format!("{within}{}", entry.file_name().to_string_lossy());
            let kept = name == "drivers" || name == "drivers/net" || KEPT.contains(&&*name);
            if !kept && entry.file_type()?.is_dir() {
                fs::remove_dir_all(entry.path())?;
            }
        }
    }
    for entry in fs::read_dir(drivers.join("net"))? {
        let entry = entry?;
        let kept = KEPT_NET.contains(&&*entry.file_name().to_string_lossy());
        if !kept && entry.file_type()?.is_dir() {
            fs::remove_dir_all(entry.path())?;
        }
    }
    Ok(())
}

/// The kernel inside a bzImage (Documentation/arch/x86/boot.rst): a compressed ELF file whose
/// place the setup header gives.
fn decompressed(image: &[u8]) -> Result<Vec<u8>> {
    let payload = payload(image).context("the kernel image has no payload: not a bzImage?")?;
    match payload {
        [0x28, 0xb5, 0x2f, 0xfd, ..] => filter("zstd", payload),
        [0xfd, b'7', b'z', b'X', b'Z', ..] => filter("xz", payload),
        _ => bail!("the kernel is compressed in a way other than xz and zstd"),
    }
}

fn payload(image: &[u8]) -> Option<&[u8]> {
    let word = |at: usize| {
        let bytes = image.get(at..at + 4)?.try_into().ok()?;
        usize::try_from(u32::from_le_bytes(bytes)).ok()
    };
    if image.get(0x202..0x206)? != b"HdrS" {
        return None;
    }
    let setup_sectors = usize::from(*image.get(0x1f1)?);
    let start = (setup_sectors + 1) * 512 + word(0x248)?;
    // The last four bytes are the uncompressed size, which the decompressors do not expect.
    let end = start + word(0x24c)?.checked_sub(4)?;
    image.get(start..end)
}

/// Decompresses bytes by a program's `-dc`.
fn filter(program: &str, input: &[u8]) -> Result<Vec<u8>> {
    let mut child = host::command(program)
        .arg("-dc")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot run {program}"))?;
    let mut stdin = child.stdin.take().context("no pipe")?;
    let output = thread::scope(|scope| {
        let writer = scope.spawn(move || stdin.write_all(input));
        let output = child.wait_with_output()?;
        match writer.join() {
            // It closes its input early when it does not like it, and says why itself.
            Ok(Err(_)) if !output.status.success() => Ok(output),
            Ok(written) => written.map(|()| output).context("cannot write to it"),
            Err(_) => bail!("the writing thread panicked"),
        }
    })
    .with_context(|| format!("while decompressing by {program}"))?;
    if !output.status.success() {
        bail!("{program} -dc: {}: {}", output.status, String::from_utf8_lossy(&output.stderr));
    }
    Ok(output.stdout)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn series_are_parsed() {
        for kernel in Kernel::ALL {
            assert_eq!(kernel.series().parse(), Ok(kernel));
        }
        assert!("6.2".parse::<Kernel>().unwrap_err().contains("6.12"));
    }

    #[test]
    fn the_key_follows_the_package() {
        let package =
            |version: &str| Package { name: "linux-image-x".into(), version: version.into() };
        assert_eq!(key(&package("1")), key(&package("1")));
        assert_ne!(key(&package("1")), key(&package("2")));
    }

    #[test]
    fn the_payload_is_found() {
        let mut image = vec![0; 4096];
        image[0x1f1] = 1;
        image[0x202..0x206].copy_from_slice(b"HdrS");
        image[0x248..0x24c].copy_from_slice(&16_u32.to_le_bytes());
        image[0x24c..0x250].copy_from_slice(&104_u32.to_le_bytes());
        image[1040..1044].copy_from_slice(b"BODY");
        let payload = payload(&image).unwrap();
        assert_eq!((payload.len(), &payload[..4]), (100, b"BODY".as_slice()));
        assert!(super::payload(&image[..1100]).is_none(), "cut short");
        assert!(super::payload(&[0; 4096]).is_none(), "no header");
        assert!(decompressed(&image).is_err(), "unknown compression");
    }

    #[test]
    fn only_inserted_modules_count() {
        let text = "builtin virtio_pci\ninsmod /r/a.ko \ninsmod /r/b.ko opt=1\n";
        assert_eq!(inserted(text), [PathBuf::from("/r/a.ko"), PathBuf::from("/r/b.ko")]);
    }

    #[test]
    fn decompression_goes_through_pipes_of_any_size() {
        let input = vec![b'x'; 1 << 20];
        let packed = host::output(
            std::process::Command::new("sh")
                .args(["-c", "head -c 1048576 /dev/zero | tr '\\0' x | xz -1 -c"]),
        )
        .unwrap();
        assert_eq!(filter("xz", &packed).unwrap(), input);
        let error = filter("xz", b"not xz").unwrap_err().to_string();
        assert!(error.contains("format not recognized"), "{error}");
    }
}
