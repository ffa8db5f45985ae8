//! The guest's root file system: a small Debian, made by mmdebstrap, as an ext4 image.

use std::{
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
    str::FromStr,
};

use anyhow::{Context, Result, bail};

use crate::{
    cache::{Cache, Key},
    debian::{self, SUITE},
    host, kernel,
};

/// What kind of guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Profile {
    /// No init system: seconds to a command, cgroup v2 with every controller enabled.
    Quick,
    /// systemd, D-Bus, and user sessions with delegated controllers.
    Full,
    /// As full, with Docker, containerd and Podman installed; none runs before it is started.
    Docker,
}

impl Profile {
    /// Every profile, smallest first.
    pub const ALL: [Self; 3] = [Self::Quick, Self::Full, Self::Docker];

    /// The name on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Quick => "quick",
            Self::Full => "full",
            Self::Docker => "docker",
        }
    }

    /// Whether systemd is process 1.
    pub(crate) fn has_systemd(self) -> bool {
        self != Self::Quick
    }

    fn packages(self) -> Vec<&'static str> {
        let mut packages = QUICK.to_vec();
        if self.has_systemd() {
            packages.extend(FULL);
        }
        if self == Self::Docker {
            packages.extend(DOCKER);
        }
        packages
    }

    fn masked(self) -> &'static [&'static str] {
        if self.has_systemd() { MASKED } else { &[] }
    }

    fn disabled(self) -> &'static [&'static str] {
        if self == Self::Docker { DISABLED } else { &[] }
    }

    fn files(self) -> Vec<(&'static str, &'static str)> {
        let mut files = FILES.to_vec();
        if self.has_systemd() {
            files.extend(SYSTEMD_FILES);
        }
        files
    }
}

impl FromStr for Profile {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL
            .into_iter()
            .find(|profile| profile.name() == text)
            .ok_or_else(|| format!("no profile {text}: there are quick, full and docker"))
    }
}

/// Peers to compare with, and what tests look at the system with.
const QUICK: &[&str] = &[
    "attr",
    "busybox-static",
    "criu",
    "crun",
    "e2fsprogs",
    "iproute2",
    "iptables",
    "jq",
    "kmod",
    "libcap2-bin",
    "mount",
    "nftables",
    "passwd",
    "procps",
    "runc",
    "strace",
    "uidmap",
    "util-linux",
];

const FULL: &[&str] =
    &["apparmor", "dbus", "dbus-user-session", "libpam-systemd", "systemd", "systemd-sysv", "udev"];

const DOCKER: &[&str] = &[
    "catatonit",
    "conmon",
    "containerd",
    "docker.io",
    "fuse-overlayfs",
    "iptables",
    "netavark",
    "passt",
    "podman",
    "slirp4netns",
];

const FILES: &[(&str, &str)] = &[
    ("etc/hostname", "vm\n"),
    ("etc/hosts", "127.0.0.1 localhost vm\n::1 localhost\n"),
    ("etc/subuid", "user:100000:65536\n"),
    ("etc/subgid", "user:100000:65536\n"),
    ("etc/machine-id", "6d696e6972756e2076697274756c0000\n"),
    ("etc/fstab", ""),
];

const SYSTEMD_FILES: &[(&str, &str)] = &[
    ("etc/systemd/system/vm-agent.service", include_str!("../files/vm-agent.service")),
    ("etc/systemd/system/user@.service.d/delegate.conf", include_str!("../files/delegate.conf")),
    ("etc/systemd/journald.conf.d/volatile.conf", "[Journal]\nStorage=volatile\n"),
    // A session without a login: rootless tests want one from the start.
    ("var/lib/systemd/linger/user", ""),
];

/// Run in the new system. The user is for rootless containers; nobody logs in.
const COMMANDS: &[&[&str]] = &[&["useradd", "--create-home", "--shell", "/bin/bash", "user"]];

/// Units a guest for tests does without: each costs boot time, or changes things by itself.
/// `kmod-static-nodes` stays: it makes /dev/net/tun and /dev/fuse. AppArmor is on all the same;
/// only the profiles that Debian ships are not compiled at every boot, which takes ten seconds.
const MASKED: &[&str] = &[
    "apparmor.service",
    "apt-daily-upgrade.timer",
    "apt-daily.timer",
    "dpkg-db-backup.timer",
    "e2scrub_all.timer",
    "e2scrub_reap.service",
    "fstrim.timer",
    "getty.target",
    "ldconfig.service",
    "modprobe@configfs.service",
    "modprobe@dm_mod.service",
    "modprobe@drm.service",
    "modprobe@efi_pstore.service",
    "modprobe@loop.service",
    "serial-getty@ttyS0.service",
    "sys-kernel-config.mount",
    "systemd-binfmt.service",
    "systemd-boot-system-token.service",
    "systemd-firstboot.service",
    "systemd-hwdb-update.service",
    "systemd-journal-catalog-update.service",
    "systemd-journal-flush.service",
    "systemd-machine-id-commit.service",
    "systemd-modules-load.service",
    "systemd-pcrphase-sysinit.service",
    "systemd-pcrphase.service",
    "systemd-pstore.service",
    "systemd-random-seed.service",
    "systemd-remount-fs.service",
    "systemd-sysusers.service",
    "systemd-timesyncd.service",
    "systemd-tmpfiles-clean.timer",
    "systemd-udev-trigger.service",
    "systemd-update-done.service",
    "systemd-update-utmp-runlevel.service",
    "systemd-update-utmp.service",
];

/// Installed, and started by the test that wants them.
const DISABLED: &[&str] = &[
    "containerd.service",
    "docker.service",
    "docker.socket",
    "podman.service",
    "podman.socket",
    "podman-auto-update.service",
    "podman-auto-update.timer",
    "podman-restart.service",
];

/// Kept out of the image: nobody reads manual pages in it.
const EXCLUDED: &[&str] =
    &["/usr/share/doc/*", "/usr/share/man/*", "/usr/share/info/*", "/usr/share/locale/*"];

/// Changes when [`customize`] changes.
const RECIPE: &str = "1";

/// The image for a profile from the cache, or builds it.
pub(crate) fn build(cache: &Cache, profile: Profile, update: bool) -> Result<PathBuf> {
    let name = image(profile);
    let make = |image: &Path| {
        host::ensure_host_packages()?;
        if !rustix::process::geteuid().is_root() {
            bail!("installing Debian packages below a directory needs root: run vm build as root");
        }
        eprintln!("vm: building the root file system of {} from Debian's packages", profile.name());
        let root = image.with_extension("root");
        let made = install(profile, &root).and_then(|()| {
            let listed = ["-W", "--admindir"];
            let packages = host::output(
                host::command("dpkg-query").args(listed).arg(root.join("var/lib/dpkg")),
            )?;
            cache
                .write(&name.replace(".ext4", ".packages"), &String::from_utf8_lossy(&packages))?;
            kernel::file_system(&root, image, "8G")
        });
        fs::remove_dir_all(&root).with_context(|| format!("cannot remove {}", root.display()))?;
        made
    };
    if update { cache.renewed(&name, make) } else { cache.part(&name, make) }
}

/// The name of a profile's image in the cache.
pub(crate) fn image(profile: Profile) -> String {
    format!("root-{}-{}.ext4", profile.name(), key(profile))
}

fn key(profile: Profile) -> String {
    let files = profile.files();
    Key::default()
        .list([RECIPE, SUITE, profile.name()])
        .list(profile.packages())
        .list(files.iter().flat_map(|(path, content)| [*path, *content]))
        .list(COMMANDS.iter().flat_map(|words| words.iter().copied()))
        .list(profile.masked().iter().copied())
        .list(profile.disabled().iter().copied())
        .list(EXCLUDED.iter().copied())
        .finish()
}

fn install(profile: Profile, root: &Path) -> Result<()> {
    fs::create_dir(root)?;
    let excluded = EXCLUDED.iter().map(|path| format!("--dpkgopt=path-exclude={path}"));
    host::run(
        // Its mounts die with a mount namespace, whatever happens to it.
        host::command("unshare")
            .args(["-m", "--propagation", "private", "mmdebstrap", "--quiet", "--mode=root"])
            .args(["--variant=essential", "--skip=chroot/mount/sys"])
            .arg("--aptopt=Acquire::Languages \"none\"")
            .arg("--aptopt=Acquire::Retries \"3\"")
            .args(excluded)
            .arg(format!("--include={}", profile.packages().join(",")))
            .arg(SUITE)
            .arg(root)
            .args(debian::sources())
            .env("LC_ALL", "C"),
    )?;
    customize(profile, root)
}

fn customize(profile: Profile, root: &Path) -> Result<()> {
    for (path, content) in profile.files() {
        let path = root.join(path);
        fs::create_dir_all(path.parent().context("a file without a directory")?)?;
        fs::write(path, content)?;
    }
    for directory in ["lib/modules", "dev", "proc", "sys", "run", "tmp"] {
        fs::create_dir_all(root.join(directory))?;
    }
    fs::set_permissions(root.join("tmp"), fs::Permissions::from_mode(0o1777))?;
    for command in COMMANDS {
        host::run(host::command("chroot").arg(root).args(*command))?;
    }
    let units = root.join("etc/systemd/system");
    for unit in profile.masked() {
        relink("/dev/null", &units.join(unit))?;
    }
    for unit in profile.disabled() {
        host::run(host::command("chroot").arg(root).args(["systemctl", "disable", unit]))?;
    }
    if profile.has_systemd() {
        let wants = units.join("multi-user.target.wants");
        fs::create_dir_all(&wants)?;
        relink("/etc/systemd/system/vm-agent.service", &wants.join("vm-agent.service"))?;
        relink("/lib/systemd/system/multi-user.target", &units.join("default.target"))?;
    }
    Ok(())
}

fn relink(target: &str, link: &Path) -> Result<()> {
    match fs::remove_file(link) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
        _ => {}
    }
    Ok(symlink(target, link)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn profiles_are_parsed_and_have_images_of_their_own() {
        for profile in Profile::ALL {
            assert_eq!(profile.name().parse(), Ok(profile));
        }
        assert!("slow".parse::<Profile>().is_err());
        let mut keys = Profile::ALL.map(key).to_vec();
        keys.dedup();
        assert_eq!(keys.len(), Profile::ALL.len());
    }

    #[test]
    fn lists_are_sorted_so_that_a_change_is_seen() {
        for list in [QUICK, FULL, DOCKER, MASKED] {
            assert!(list.is_sorted(), "{list:?}");
        }
    }
}
