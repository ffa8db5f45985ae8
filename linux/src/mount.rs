//! Mounting by descriptor: the mount API of Linux 5.2, and mount_setattr(2) of 5.12.
//!
//! # What the kernel offers
//! A file system is configured (`fsopen`, `fsconfig`), made into a mount that hangs nowhere
//! (`fsmount`), given its attributes (`mount_setattr`) and only then attached (`move_mount`), from
//! one descriptor to another. An existing tree is copied with `open_tree`.
//!
//! # What goes wrong without it
//! mount(2) takes its target as a path and follows the links of the image; a bind mount ignores its
//! flags until a second, separate remount. Both have let containers write to their host.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::path::Path;

use nix::errno::Errno;

use crate::trace::{answer, observe, quoted};
use crate::{Error, Result};

const OPEN_TREE_CLONE: libc::c_uint = 1;
const OPEN_TREE_CLOEXEC: libc::c_uint = libc::O_CLOEXEC.cast_unsigned();
const AT_EMPTY_PATH: libc::c_uint = libc::AT_EMPTY_PATH.cast_unsigned();
const AT_RECURSIVE: libc::c_uint = 0x8000;
const MOVE_MOUNT_F_EMPTY_PATH: libc::c_uint = 0x4;
const MOVE_MOUNT_T_EMPTY_PATH: libc::c_uint = 0x40;
const FSOPEN_CLOEXEC: libc::c_uint = 1;
const FSMOUNT_CLOEXEC: libc::c_uint = 1;
const FSCONFIG_SET_FLAG: libc::c_uint = 0;
const FSCONFIG_SET_STRING: libc::c_uint = 1;
const FSCONFIG_CMD_CREATE: libc::c_uint = 6;

/// How mounts of one peer group see each other's changes, mount_namespaces(7).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Propagation {
    /// No change passes either way.
    Private,
    /// Changes pass in from the peer, none out.
    Slave,
    /// Changes pass both ways.
    Shared,
    /// Private, and may not be bind-mounted either.
    Unbindable,
}

impl Propagation {
    fn bits(self) -> u64 {
        match self {
            Self::Private => libc::MS_PRIVATE,
            Self::Slave => libc::MS_SLAVE,
            Self::Shared => libc::MS_SHARED,
            Self::Unbindable => libc::MS_UNBINDABLE,
        }
    }
}

/// Attributes of a mount (`MOUNT_ATTR_*` of mount_setattr(2)).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Attributes {
    /// Bits to set.
    pub set: u64,
    /// Bits to clear first.
    pub clear: u64,
}

impl Attributes {
    /// `MOUNT_ATTR_RDONLY`.
    pub const READ_ONLY: u64 = 0x1;
    /// `MOUNT_ATTR_NOSUID`.
    pub const NO_SUID: u64 = 0x2;
    /// `MOUNT_ATTR_NODEV`.
    pub const NO_DEV: u64 = 0x4;
    /// `MOUNT_ATTR_NOEXEC`.
    pub const NO_EXEC: u64 = 0x8;
    /// The field of access-time modes, `MOUNT_ATTR__ATIME`.
    pub const ACCESS_TIME_MASK: u64 = 0x70;
    /// `MOUNT_ATTR_NOATIME`.
    pub const NO_ATIME: u64 = 0x10;
    /// `MOUNT_ATTR_STRICTATIME`.
    pub const STRICT_ATIME: u64 = 0x20;
    /// `MOUNT_ATTR_NODIRATIME`.
    pub const NO_DIRATIME: u64 = 0x80;
    /// `MOUNT_ATTR_NOSYMFOLLOW`.
    pub const NO_SYMFOLLOW: u64 = 0x20_0000;

    /// Only bits to set.
    pub fn set(bits: u64) -> Self {
        Self { set: bits, clear: 0 }
    }

    /// Whether it changes nothing.
    pub fn is_empty(self) -> bool {
        self == Self::default()
    }
}

/// The layout of `struct mount_attr` (32 bytes).
#[repr(C)]
#[derive(Debug, Default)]
struct MountAttr {
    attr_set: u64,
    attr_clr: u64,
    propagation: u64,
    userns_fd: u64,
}

/// Copies the mount at a path of the host, detached from everything, open_tree(2).
pub fn clone_tree(source: &Path, recursive: bool) -> Result<OwnedFd> {
    let path = c_path("open_tree", source)?;
    open_tree(libc::AT_FDCWD, &path, recursive, 0, || quoted(source))
}

/// Copies the mount (or the part of it) behind a descriptor.
pub fn clone_tree_at(source: BorrowedFd<'_>, recursive: bool) -> Result<OwnedFd> {
    let shown = || source.as_raw_fd().to_string();
    open_tree(source.as_raw_fd(), c"", recursive, AT_EMPTY_PATH, shown)
}

fn open_tree(
    dir: libc::c_int,
    path: &CStr,
    recursive: bool,
    extra: libc::c_uint,
    shown: impl FnOnce() -> String,
) -> Result<OwnedFd> {
    let recursion = if recursive { AT_RECURSIVE } else { 0 };
    let flags = OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | recursion | extra;
    // SAFETY: `path` is NUL-terminated and outlives the call.
    #[expect(unsafe_code, reason = "nix has no open_tree(2)")]
    let value = unsafe { libc::syscall(libc::SYS_open_tree, dir, path.as_ptr(), flags) };
    let arguments = || {
        let recursion = if recursive { "|AT_RECURSIVE" } else { "" };
        format!("{}, OPEN_TREE_CLONE{recursion}", shown())
    };
    observe("open_tree", arguments, owned(value))
}

/// Attaches a detached mount to the place behind `target`: the third of the four primitives.
pub fn attach(tree: BorrowedFd<'_>, target: BorrowedFd<'_>) -> Result<()> {
    // SAFETY: both paths are the empty literal; the rest are numbers.
    #[expect(unsafe_code, reason = "nix has no move_mount(2)")]
    let value = unsafe {
        libc::syscall(
            libc::SYS_move_mount,
            tree.as_raw_fd(),
            c"".as_ptr(),
            target.as_raw_fd(),
            c"".as_ptr(),
            MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH,
        )
    };
    observe(
        "move_mount",
        || format!("{}, \"\", {}, \"\"", tree.as_raw_fd(), target.as_raw_fd()),
        answer(value).map(drop),
    )
}

/// Changes the attributes of a mount, or of the whole tree below it, mount_setattr(2).
pub fn set_attributes(mount: BorrowedFd<'_>, change: Attributes, recursive: bool) -> Result<()> {
    let attr = MountAttr { attr_set: change.set, attr_clr: change.clear, ..MountAttr::default() };
    let shown =
        || format!("{}, set={:#x}, clear={:#x}", mount.as_raw_fd(), change.set, change.clear);
    mount_setattr(mount.as_raw_fd(), c"", recursive, &attr, shown)
}

/// Changes how a mount (or the tree below it) propagates changes, mount_setattr(2).
pub fn set_propagation(
    mount: BorrowedFd<'_>,
    propagation: Propagation,
    recursive: bool,
) -> Result<()> {
    let attr = MountAttr { propagation: propagation.bits(), ..MountAttr::default() };
    let shown = || format!("{}, propagation={propagation:?}", mount.as_raw_fd());
    mount_setattr(mount.as_raw_fd(), c"", recursive, &attr, shown)
}

/// Maps the file owners of a detached mount through a user namespace (`MOUNT_ATTR_IDMAP`).
pub fn map_owners(tree: BorrowedFd<'_>, user_ns: BorrowedFd<'_>, recursive: bool) -> Result<()> {
    const MOUNT_ATTR_IDMAP: u64 = 0x0010_0000;
    let attr = MountAttr {
        attr_set: MOUNT_ATTR_IDMAP,
        userns_fd: user_ns.as_raw_fd() as u64,
        ..MountAttr::default()
    };
    let shown = || format!("{}, IDMAP, userns={}", tree.as_raw_fd(), user_ns.as_raw_fd());
    mount_setattr(tree.as_raw_fd(), c"", recursive, &attr, shown)
}

/// Changes how the whole mount table of this namespace propagates.
pub fn set_root_propagation(propagation: Propagation) -> Result<()> {
    let attr = MountAttr { propagation: propagation.bits(), ..MountAttr::default() };
    let shown = || format!("\"/\", AT_RECURSIVE, propagation={propagation:?}");
    mount_setattr(libc::AT_FDCWD, c"/", true, &attr, shown)
}

fn mount_setattr(
    dir: libc::c_int,
    path: &CStr,
    recursive: bool,
    attr: &MountAttr,
    shown: impl FnOnce() -> String,
) -> Result<()> {
    let empty = if path.is_empty() { AT_EMPTY_PATH } else { 0 };
    let recursion = if recursive { AT_RECURSIVE } else { 0 };
    // SAFETY: the path is NUL-terminated, `attr` is a live struct of the size that is passed.
    #[expect(unsafe_code, reason = "nix has no mount_setattr(2)")]
    let value = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            dir,
            path.as_ptr(),
            empty | recursion,
            &raw const *attr,
            size_of::<MountAttr>(),
        )
    };
    observe("mount_setattr", shown, answer(value).map(drop))
}

/// A file system that is being configured, fsopen(2).
#[derive(Debug)]
pub struct FileSystem {
    context: OwnedFd,
    kind: String,
}

impl FileSystem {
    /// Starts to configure a file system of type `kind`.
    pub fn open(kind: &str) -> Result<Self> {
        let name = c_string("fsopen", kind)?;
        // SAFETY: the name is NUL-terminated and outlives the call.
        #[expect(unsafe_code, reason = "nix has no fsopen(2)")]
        let value = unsafe { libc::syscall(libc::SYS_fsopen, name.as_ptr(), FSOPEN_CLOEXEC) };
        let context = observe("fsopen", || format!("{kind:?}"), owned(value))?;
        Ok(Self { context, kind: kind.to_owned() })
    }

    /// Sets `key` to `value`.
    pub fn set(&self, key: &str, value: &str) -> Result<()> {
        let c_value = c_string("fsconfig", value)?;
        self.config(FSCONFIG_SET_STRING, key, Some(&c_value))
    }

    /// Sets `key`, which takes no value.
    pub fn flag(&self, key: &str) -> Result<()> {
        self.config(FSCONFIG_SET_FLAG, key, None)
    }

    /// Sets options as mount(8) writes them: `mode=755,size=64k,ro`.
    pub fn options(&self, options: &str) -> Result<()> {
        options.split(',').filter(|option| !option.is_empty()).try_for_each(|option| {
            match option.split_once('=') {
                Some((key, value)) => self.set(key, value),
                None => self.flag(option),
            }
        })
    }

    /// The descriptor of the configuration, which is done with once the file system is mounted.
    pub fn into_descriptor(self) -> OwnedFd {
        self.context
    }

    /// Makes the file system and a mount of it that hangs nowhere yet, fsmount(2).
    pub fn mount(&self, attributes: u64) -> Result<OwnedFd> {
        self.config(FSCONFIG_CMD_CREATE, "", None)?;
        // SAFETY: fsmount takes three numbers.
        #[expect(unsafe_code, reason = "nix has no fsmount(2)")]
        let value = unsafe {
            libc::syscall(
                libc::SYS_fsmount,
                self.context.as_raw_fd(),
                FSMOUNT_CLOEXEC,
                u32::try_from(attributes).unwrap_or(u32::MAX),
            )
        };
        let arguments = || format!("{}, attributes={attributes:#x}", self.context.as_raw_fd());
        observe("fsmount", arguments, owned(value))
            .map_err(|error| error.with_kernel_log(self.log()))
    }

    fn config(&self, command: libc::c_uint, key: &str, value: Option<&CStr>) -> Result<()> {
        let c_key = c_string("fsconfig", key)?;
        let key_pointer = if key.is_empty() { std::ptr::null() } else { c_key.as_ptr() };
        let value_pointer = value.map_or(std::ptr::null(), CStr::as_ptr);
        // SAFETY: both strings are NUL-terminated (or null where the command takes none) and
        // outlive the call.
        #[expect(unsafe_code, reason = "nix has no fsconfig(2)")]
        let answered = unsafe {
            libc::syscall(
                libc::SYS_fsconfig,
                self.context.as_raw_fd(),
                command,
                key_pointer,
                value_pointer,
                0,
            )
        };
        let arguments = || match (key, value) {
            ("", _) => format!("{:?}, FSCONFIG_CMD_CREATE", self.kind),
            (key, Some(value)) => format!("{:?}, {key:?}, {value:?}", self.kind),
            (key, None) => format!("{:?}, {key:?}", self.kind),
        };
        observe("fsconfig", arguments, answer(answered).map(drop))
            .map_err(|error| error.with_kernel_log(self.log()))
    }

    /// The kernel's messages about this context: they say what the errno does not.
    fn log(&self) -> Option<String> {
        let mut buffer = [0_u8; 1024];
        let mut lines = Vec::new();
        while let Ok(length @ 1..) = nix::unistd::read(self.context.as_fd(), &mut buffer) {
            let line = String::from_utf8_lossy(&buffer[..length]);
            lines.push(line.trim_start_matches(['e', 'w', 'i']).trim().to_owned());
        }
        if lines.is_empty() { None } else { Some(lines.join("; ")) }
    }
}

/// Makes the current directory the root and puts the old root on top of it, pivot_root(2).
///
/// With both paths `.` no directory for the old root is needed; see the last section of the page.
pub fn pivot_to_current_directory() -> Result<()> {
    observe("pivot_root", || "\".\", \".\"".into(), nix::unistd::pivot_root(".", "."))
}

/// Unmounts what the descriptor `number` of this process is on top of, umount2(2) with
/// `MNT_DETACH`. The current directory must be `/proc/self/fd` of a procfs that can be trusted.
/// `EINVAL`: it is not the top of a mount.
pub fn detach_numbered(number: std::os::fd::RawFd) -> Result<()> {
    let name = number.to_string();
    let result = nix::mount::umount2(name.as_str(), nix::mount::MntFlags::MNT_DETACH);
    observe("umount2", || format!("\"{name}\" (in /proc/self/fd), MNT_DETACH"), result)
}

/// Unmounts the tree at the current directory once nobody uses it, umount2(2) with `MNT_DETACH`.
pub fn detach_current_directory() -> Result<()> {
    let result = nix::mount::umount2(".", nix::mount::MntFlags::MNT_DETACH);
    observe("umount2", || "\".\", MNT_DETACH".into(), result)
}

/// Changes the root directory of this process only, chroot(2): what is left where a container
/// shares its mount namespace.
pub fn change_root_to_current_directory() -> Result<()> {
    observe("chroot", || "\".\"".into(), nix::unistd::chroot("."))
}

/// Changes the working directory, fchdir(2).
pub fn enter_directory(dir: BorrowedFd<'_>) -> Result<()> {
    observe("fchdir", || dir.as_raw_fd().to_string(), nix::unistd::fchdir(dir))
}

/// Changes the working directory to a path in the root of this process, chdir(2).
pub fn enter_path(dir: &Path) -> Result<()> {
    observe("chdir", || quoted(dir), nix::unistd::chdir(dir))
}

fn owned(value: libc::c_long) -> nix::Result<OwnedFd> {
    answer(value).map(|number| {
        // SAFETY: a successful call has just returned a new descriptor that nobody else knows.
        #[expect(unsafe_code, reason = "taking ownership of a new descriptor")]
        let fd = unsafe { OwnedFd::from_raw_fd(number) };
        fd
    })
}

fn c_string(call: &'static str, text: &str) -> Result<CString> {
    CString::new(text).map_err(|_| Error::new(call, format!("{text:?}"), Errno::EINVAL))
}

fn c_path(call: &'static str, path: &Path) -> Result<CString> {
    CString::new(path.as_os_str().as_encoded_bytes())
        .map_err(|_| Error::new(call, quoted(path), Errno::EINVAL))
}
