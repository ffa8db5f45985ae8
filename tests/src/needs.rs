//! What a test needs of the machine that it runs on.

use std::fmt;
use std::path::Path;

use crate::programs;

/// Something that not every machine has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Need {
    /// To be root.
    Root,
    /// Cgroup v2 with every controller that limits use.
    CgroupV2,
    /// The memory controller in version 1.
    CgroupV1,
    /// A program.
    Program(&'static str),
    /// CRIU, and a kernel that it can work with.
    Criu,
    /// The runtime's source.
    Source,
    /// The whole workspace.
    Workspace,
    /// So much free memory, in MiB.
    Memory(u64),
    /// A kernel that lets ordinary users make user namespaces.
    UserNamespaces,
    /// This kind of namespace.
    Namespace(&'static str),
    /// To test what `cargo build --release` makes.
    ReleaseBuild,
    /// systemd with sessions for users, and the user 1000.
    UserSessions,
    /// systemd as process 1, with its bus, and cgroup v2.
    Systemd,
    /// The tests' files on a file system that can be idmapped.
    IdmappedFiles,
    /// A kernel whose ext4 has fs-verity.
    SealedFiles,
    /// A kernel without netem: only there bad networks take a process.
    NoNetem,
}

impl Need {
    /// Whether it is there.
    pub(crate) fn is_met(self) -> bool {
        match self {
            Self::Root => rustix::process::geteuid().is_root(),
            Self::CgroupV2 => {
                let read = std::fs::read_to_string("/sys/fs/cgroup/cgroup.controllers");
                let offered = read.unwrap_or_default();
                ["cpu", "io", "memory", "pids"]
                    .iter()
                    .all(|name| offered.split_whitespace().any(|one| one == *name))
            }
            Self::CgroupV1 => Path::new("/sys/fs/cgroup/memory/memory.limit_in_bytes").exists(),
            Self::Program(name) => programs::find(name).is_some(),
            Self::Criu => criu_finds_itself_able(),
            Self::Source => programs::source().is_some(),
            Self::Workspace => {
                programs::source().is_some_and(|path| path.join("Cargo.toml").exists())
            }
            Self::Memory(mib) => available_mib() >= mib,
            Self::UserNamespaces => user_namespaces(),
            Self::UserSessions => {
                let passwd = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
                let known = passwd.lines().any(|line| line.split(':').nth(2) == Some("1000"));
                known && Path::new("/run/systemd/system").is_dir()
            }
            Self::Systemd => {
                Path::new("/run/systemd/system").is_dir()
                    && Path::new("/run/dbus/system_bus_socket").exists()
                    && Self::CgroupV2.is_met()
            }
            Self::ReleaseBuild => {
                // Everything that release builds leave out, and no other build does.
                std::fs::metadata(programs::minirun()).is_ok_and(|file| file.len() < 20_000_000)
            }
            Self::Namespace(kind) => Path::new("/proc/self/ns").join(kind).exists(),
            Self::SealedFiles => Path::new("/sys/fs/ext4/features/verity").exists(),
            Self::NoNetem => !netem(),
            Self::IdmappedFiles => !is_tmpfs(&std::env::temp_dir()) || kernel() >= (6, 3),
        }
    }
}

impl fmt::Display for Need {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Root => f.write_str("root"),
            Self::CgroupV2 => f.write_str("cgroup v2"),
            Self::CgroupV1 => f.write_str("cgroup v1"),
            Self::Program(name) => write!(f, "the program {name}"),
            Self::Criu => f.write_str("a CRIU that can work with this kernel"),
            Self::Source => f.write_str("the source"),
            Self::Workspace => f.write_str("the whole workspace"),
            Self::Memory(mib) => write!(f, "{mib} MiB of memory"),
            Self::UserNamespaces => f.write_str("unprivileged user namespaces"),
            Self::UserSessions => f.write_str("systemd with a session for user 1000"),
            Self::Systemd => f.write_str("systemd and cgroup v2"),
            Self::ReleaseBuild => f.write_str("a release build"),
            Self::Namespace(kind) => write!(f, "{kind} namespaces"),
            Self::SealedFiles => f.write_str("an ext4 with fs-verity"),
            Self::NoNetem => f.write_str("a kernel without netem"),
            Self::IdmappedFiles => f.write_str("a disk, or a tmpfs that can be idmapped (6.3)"),
        }
    }
}

/// Asked once: it takes a while.
fn criu_finds_itself_able() -> bool {
    static ABLE: std::sync::OnceLock<bool> = std::sync::OnceLock::new();
    *ABLE.get_or_init(|| {
        programs::find("criu").is_some_and(|criu| {
            let checked = std::process::Command::new(criu).arg("check").output();
            checked.is_ok_and(|ran| ran.status.success())
        })
    })
}

/// Tried once, on an interface that nobody uses.
fn netem() -> bool {
    static THERE: std::sync::OnceLock<bool> = std::sync::OnceLock::new();
    *THERE.get_or_init(|| {
        let words = ["--net", "tc", "qdisc", "add", "dev", "lo", "root", "netem", "delay", "1ms"];
        let tried = std::process::Command::new("unshare").args(words).output();
        tried.expect("unshare runs").status.success()
    })
}

fn is_tmpfs(path: &Path) -> bool {
    const TMPFS_MAGIC: i64 = 0x0102_1994;
    rustix::fs::statfs(path).is_ok_and(|found| found.f_type == TMPFS_MAGIC)
}

/// The kernel's version, to its second number.
fn kernel() -> (u32, u32) {
    let system = rustix::system::uname();
    let release = system.release().to_string_lossy();
    let mut numbers = release.split(['.', '-']).map(|part| part.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

fn available_mib() -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    let kib = line.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok());
    kib.unwrap_or(0) / 1024
}

fn user_namespaces() -> bool {
    let number = |file: &str| -> Option<u64> {
        std::fs::read_to_string(format!("/proc/sys/{file}")).ok()?.trim().parse().ok()
    };
    number("user/max_user_namespaces").is_some_and(|most| most > 0)
        && number("kernel/unprivileged_userns_clone") != Some(0)
        && number("kernel/apparmor_restrict_unprivileged_userns") != Some(1)
}
