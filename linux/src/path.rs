//! Paths: opened once, then never named again.
//!
//! # What the kernel offers
//! openat2(2) resolves a path under rules: `RESOLVE_IN_ROOT` treats a directory as `/`, so that no
//! `..`, absolute link or race leads out of it; `RESOLVE_NO_MAGICLINKS` refuses the links of
//! procfs that jump anywhere.
//!
//! # What goes wrong without it
//! A path that is checked and then used is resolved twice, and an image or a second container can
//! swap a directory for a link in between (CVE-2021-30465, CVE-2019-19921, CVE-2024-45310 and
//! their kin in every runtime). So no function here takes a container's path and does something to
//! it: it gives a descriptor, and everything is done to that.

use std::cell::RefCell;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, OpenHow, ResolveFlag};
use nix::sys::stat::Mode;

use crate::fd::Spent;
use crate::trace::{observe, quoted};
use crate::{Error, Result};

/// Openat2 answers `EAGAIN` when a rename raced with the resolution of a `..`; this many tries
/// outlast any race that is not an attack.
const RACE_RETRIES: usize = 128;

/// Opens a path of the host. Never for a path that a container can influence.
pub fn open(path: &Path, flags: OFlag) -> Result<OwnedFd> {
    let result = nix::fcntl::open(path, flags | OFlag::O_CLOEXEC, Mode::empty());
    observe("open", || format!("{}, {}", quoted(path), shown(flags)), result)
}

/// Opens `name` below `dir` where both are ours (state, cgroup, procfs), openat(2).
pub fn open_at(dir: BorrowedFd<'_>, name: &Path, flags: OFlag) -> Result<OwnedFd> {
    let result = nix::fcntl::openat(dir, name, flags | OFlag::O_CLOEXEC, Mode::empty());
    observe("openat", || format!("{}, {}, {}", dir.as_raw_fd(), quoted(name), shown(flags)), result)
}

/// The path of the host's directory `path` without links, `.` and `..`. `ENOTDIR` when it is
/// something else.
///
/// The kernel resolves it once and then says where it has arrived; realpath(3) asks about each
/// component.
pub fn real_directory(path: &Path) -> Result<PathBuf> {
    let dir = open(path, OFlag::O_PATH | OFlag::O_DIRECTORY)?;
    let link = PathBuf::from(format!("/proc/self/fd/{}", dir.as_raw_fd()));
    read_link_at(AT_FDCWD, &link)
}

/// Creates the file `name` below `dir` and opens it; it must not exist.
pub fn create_at(dir: BorrowedFd<'_>, name: &Path, mode: u32) -> Result<OwnedFd> {
    let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW;
    let result =
        nix::fcntl::openat(dir, name, flags | OFlag::O_CLOEXEC, Mode::from_bits_truncate(mode));
    observe(
        "openat",
        || format!("{}, {}, {}, {mode:#o}", dir.as_raw_fd(), quoted(name), shown(flags)),
        result,
    )
}

/// Makes the directory `name` below `dir`, mkdirat(2).
pub fn make_dir_at(dir: BorrowedFd<'_>, name: &Path, mode: u32) -> Result<()> {
    let result = nix::sys::stat::mkdirat(dir, name, Mode::from_bits_truncate(mode));
    observe("mkdirat", || format!("{}, {}, {mode:#o}", dir.as_raw_fd(), quoted(name)), result)
}

/// Makes the symbolic link `name` below `dir`, symlinkat(2).
pub fn symlink_at(target: &Path, dir: BorrowedFd<'_>, name: &Path) -> Result<()> {
    let result = nix::unistd::symlinkat(target, dir, name);
    observe(
        "symlinkat",
        || format!("{}, {}, {}", quoted(target), dir.as_raw_fd(), quoted(name)),
        result,
    )
}

/// Where the symbolic link `name` of `dir` points, readlinkat(2).
pub fn read_link_at(dir: BorrowedFd<'_>, name: &Path) -> Result<PathBuf> {
    let result = nix::fcntl::readlinkat(dir, name);
    let shown = || format!("{}, {}", dir.as_raw_fd(), quoted(name));
    match result {
        Ok(target) => {
            observe("readlinkat", shown, Ok(()))?;
            Ok(PathBuf::from(target))
        }
        Err(errno) => Err(Error::new("readlinkat", shown(), errno)),
    }
}

/// Renames `from` to `to` below `dir`, renameat(2).
pub fn rename_at(dir: BorrowedFd<'_>, from: &Path, to: &Path) -> Result<()> {
    let result = nix::fcntl::renameat(dir, from, dir, to);
    observe("renameat", || format!("{}, {}", quoted(from), quoted(to)), result)
}

/// Removes the name of a file, unlinkat(2).
pub fn unlink_at(dir: BorrowedFd<'_>, name: &Path) -> Result<()> {
    let result = nix::unistd::unlinkat(dir, name, nix::unistd::UnlinkatFlags::NoRemoveDir);
    observe("unlinkat", || format!("{}, {}", dir.as_raw_fd(), quoted(name)), result)
}

/// Removes an empty directory, unlinkat(2) with `AT_REMOVEDIR`.
pub fn remove_dir_at(dir: BorrowedFd<'_>, name: &Path) -> Result<()> {
    let result = nix::unistd::unlinkat(dir, name, nix::unistd::UnlinkatFlags::RemoveDir);
    observe("unlinkat", || format!("{}, {}, AT_REMOVEDIR", dir.as_raw_fd(), quoted(name)), result)
}

/// Removes an empty directory of the host, rmdir(2).
pub fn remove_dir(path: &Path) -> Result<()> {
    let result = nix::unistd::unlinkat(AT_FDCWD, path, nix::unistd::UnlinkatFlags::RemoveDir);
    observe("rmdir", || quoted(path), result)
}

/// Makes a fifo, mkfifoat(3).
pub fn make_fifo_at(dir: BorrowedFd<'_>, name: &Path, mode: u32) -> Result<()> {
    let result = nix::unistd::mkfifoat(dir, name, Mode::from_bits_truncate(mode));
    observe("mkfifoat", || format!("{}, {}", dir.as_raw_fd(), quoted(name)), result)
}

/// Opens `path` below `dir` under the given rules, openat2(2).
pub fn open_how(
    dir: BorrowedFd<'_>,
    path: &Path,
    flags: OFlag,
    rules: ResolveFlag,
) -> Result<OwnedFd> {
    let how = OpenHow::new().flags(flags | OFlag::O_CLOEXEC).resolve(rules);
    let mut result = Err(Errno::EAGAIN);
    for _ in 0..RACE_RETRIES {
        result = nix::fcntl::openat2(dir, path, how);
        if !matches!(result, Err(Errno::EAGAIN)) {
            break;
        }
    }
    observe(
        "openat2",
        || format!("{}, {}, {}, {}", dir.as_raw_fd(), quoted(path), shown(flags), rule(rules)),
        result,
    )
}

/// Opens `path` strictly below `dir`: no link may lead out, none of procfs is followed.
pub fn open_beneath(dir: BorrowedFd<'_>, path: &Path, flags: OFlag) -> Result<OwnedFd> {
    open_how(dir, path, flags, ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_MAGICLINKS)
}

/// The root directory of a file system tree that is not trusted.
///
/// The first of the four primitives: [`in_root`](Self::in_root) turns a path into a descriptor as
/// if this directory were `/`, whatever links the tree holds and whoever renames in it.
#[derive(Debug)]
pub struct Root {
    dir: OwnedFd,
    spent: RefCell<Spent>,
    /// A directory by its path, as long as nothing can have covered it.
    known: RefCell<Option<(PathBuf, OwnedFd)>>,
}

impl Root {
    /// Takes an open directory as a root.
    pub fn new(dir: OwnedFd) -> Self {
        Self { dir, spent: RefCell::default(), known: RefCell::default() }
    }

    /// Opens the directory `path` of the host as a root.
    pub fn open(path: &Path) -> Result<Self> {
        open(path, OFlag::O_PATH | OFlag::O_DIRECTORY).map(Self::new)
    }

    /// Closes the root, together with what was done with in it.
    pub fn close(self) {
        self.forget_but_above(Path::new("/"));
        let Self { dir, spent, .. } = self;
        spent.into_inner().put(dir);
    }

    /// Remembers that `dir`, which was mounted just now, is what `path` leads to: directories right
    /// below it are then made without looking for it.
    pub fn remember(&self, path: &Path, dir: OwnedFd) {
        self.forget_but_above(path);
        self.known.replace(Some((path.to_owned(), dir)));
    }

    /// Forgets that, unless `path` is right below it: what is mounted anywhere else may cover it.
    pub fn forget_but_above(&self, path: &Path) {
        let mut known = self.known.borrow_mut();
        if let Some((_, dir)) = known.take_if(|(above, _)| path.parent() != Some(above)) {
            self.spend(dir);
        }
    }

    /// Takes a descriptor that the work in this root is done with: it is closed soon, with others,
    /// and with the root at the latest.
    pub fn spend(&self, done: OwnedFd) {
        self.spent.borrow_mut().put(done);
    }

    /// The descriptor for `path` inside this root. Links are followed, inside.
    pub fn in_root(&self, path: &Path, flags: OFlag) -> Result<OwnedFd> {
        let rules = ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS;
        open_how(self.as_fd(), relative(path), flags, rules)
    }

    /// Like [`in_root`](Self::in_root), and no component may be a link at all: for the places where
    /// a link is always an attack (`/proc`, `/sys`, `/dev`).
    pub fn in_root_without_links(&self, path: &Path, flags: OFlag) -> Result<OwnedFd> {
        let rules = ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_SYMLINKS;
        open_how(self.as_fd(), relative(path), flags, rules)
    }

    /// Opens the directory `path`, and makes what is missing of it.
    ///
    /// Each new component is made and opened relative to the descriptor of its parent, and never
    /// through a link (CVE-2024-45310), so that nothing appears outside of the root.
    pub fn make_dir(&self, path: &Path, mode: u32) -> Result<OwnedFd> {
        if let Some(made) = self.make_below_known(path, mode)? {
            return Ok(made);
        }
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY;
        match self.in_root(path, flags) {
            Err(error) if error.errno == Errno::ENOENT => self.make_missing_dir(path, mode),
            found => found,
        }
    }

    /// A new directory right below the one that is known; `None` when there is one already.
    fn make_below_known(&self, path: &Path, mode: u32) -> Result<Option<OwnedFd>> {
        let known = self.known.borrow();
        let above = known.as_ref().filter(|(above, _)| path.parent() == Some(above));
        let (Some((_, dir)), Some(name)) = (above, path.file_name().map(Path::new)) else {
            return Ok(None);
        };
        match make_dir_at(dir.as_fd(), name, mode) {
            Err(error) if error.errno == Errno::EEXIST => Ok(None),
            Err(error) => Err(error),
            Ok(()) => {
                let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW;
                open_at(dir.as_fd(), name, flags).map(Some)
            }
        }
    }

    /// The same, where it has just been found missing.
    pub fn make_missing_dir(&self, path: &Path, mode: u32) -> Result<OwnedFd> {
        let (existing, missing) = self.deepest_existing(path)?;
        let mut dir = existing;
        for name in missing {
            let above = dir.as_ref().map_or(self.as_fd(), AsFd::as_fd);
            match make_dir_at(above, &name, mode) {
                Err(error) if error.errno != Errno::EEXIST => return Err(error),
                _ => {}
            }
            let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW;
            let made = open_at(above, &name, flags)?;
            dir.replace(made).into_iter().for_each(|above| self.spend(above));
        }
        dir.map_or_else(|| self.in_root(path, OFlag::O_PATH | OFlag::O_DIRECTORY), Ok)
    }

    /// Opens the file `path` (a mount point for a file), and makes it, empty, when it is missing.
    pub fn make_file(&self, path: &Path, mode: u32) -> Result<OwnedFd> {
        match self.in_root(path, OFlag::O_PATH) {
            Err(error) if error.errno == Errno::ENOENT => {}
            found => return found,
        }
        let parent = self.make_dir(path.parent().unwrap_or(Path::new("/")), 0o755)?;
        let name = path
            .file_name()
            .ok_or_else(|| Error::new("openat", quoted(path), Errno::EISDIR))
            .map(Path::new)?;
        match create_at(parent.as_fd(), name, mode) {
            Err(error) if error.errno != Errno::EEXIST => return Err(error),
            _ => {}
        }
        let made = open_at(parent.as_fd(), name, OFlag::O_PATH | OFlag::O_NOFOLLOW);
        self.spend(parent);
        made
    }

    /// The longest part of `path`, which is missing, that exists, opened (`None` for the root
    /// itself), and the names after it.
    fn deepest_existing(&self, path: &Path) -> Result<(Option<OwnedFd>, Vec<PathBuf>)> {
        let mut prefix = relative(path).to_path_buf();
        let mut missing = Vec::new();
        let found = loop {
            match prefix.components().next_back() {
                Some(Component::Normal(name)) => missing.push(PathBuf::from(name)),
                // `..` behind something that does not exist has no meaning that we could create.
                _ => return Err(Error::new("mkdirat", quoted(path), Errno::ENOENT)),
            }
            prefix.pop();
            if prefix.as_os_str().is_empty() {
                break None;
            }
            match self.in_root(&prefix, OFlag::O_PATH | OFlag::O_DIRECTORY) {
                Err(error) if error.errno == Errno::ENOENT => {}
                found => break Some(found?),
            }
        };
        missing.reverse();
        Ok((found, missing))
    }
}

impl AsFd for Root {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.dir.as_fd()
    }
}

/// A path as openat2 wants it below a directory: without the leading slash, `.` for the root.
fn relative(path: &Path) -> &Path {
    let stripped = path.strip_prefix("/").unwrap_or(path);
    if stripped.as_os_str().is_empty() { Path::new(".") } else { stripped }
}

fn shown(flags: OFlag) -> String {
    let names: Vec<_> =
        flags.iter_names().map(|(name, _)| name).filter(|n| *n != "O_CLOEXEC").collect();
    if names.is_empty() { "O_RDONLY".into() } else { names.join("|") }
}

fn rule(rules: ResolveFlag) -> String {
    rules.iter_names().map(|(name, _)| name).collect::<Vec<_>>().join("|")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn tree() -> (tempdir::Dir, Root) {
        let dir = tempdir::Dir::new();
        let root = Root::open(dir.path()).expect("temporary directory");
        (dir, root)
    }

    /// A temporary directory that removes itself; the crate has no dependency for it.
    mod tempdir {
        use std::path::{Path, PathBuf};
        use std::sync::atomic::{AtomicU32, Ordering};

        pub(super) struct Dir(PathBuf);

        impl Dir {
            pub(super) fn new() -> Self {
                static NEXT: AtomicU32 = AtomicU32::new(0);
                let name = format!(
                    "linux-{}-{}",
                    std::process::id(),
                    NEXT.fetch_add(1, Ordering::Relaxed)
                );
                let path = std::env::temp_dir().join(name);
                std::fs::create_dir(&path).expect("fresh directory");
                Self(path)
            }

            pub(super) fn path(&self) -> &Path {
                &self.0
            }
        }

        impl Drop for Dir {
            fn drop(&mut self) {
                let _ = std::fs::remove_dir_all(&self.0);
            }
        }
    }

    #[test]
    fn links_and_dots_stay_inside() {
        let (dir, root) = tree();
        std::fs::create_dir(dir.path().join("etc")).unwrap();
        std::fs::write(dir.path().join("etc/passwd"), "inside").unwrap();
        symlink("../../../../etc", dir.path().join("up")).unwrap();
        symlink("/etc", dir.path().join("absolute")).unwrap();
        for path in ["/up/passwd", "/absolute/passwd", "../../etc/passwd", "/etc/passwd"] {
            let fd = root.in_root(Path::new(path), OFlag::O_RDONLY).unwrap();
            let mut text = String::new();
            std::io::Read::read_to_string(&mut std::fs::File::from(fd), &mut text).unwrap();
            assert_eq!(text, "inside", "{path}");
        }
    }

    #[test]
    fn directories_are_made_inside_and_never_through_dangling_links() {
        let (dir, root) = tree();
        let outside = tempdir::Dir::new();
        symlink(outside.path().join("new"), dir.path().join("dangling")).unwrap();
        root.make_dir(Path::new("/a/b/c"), 0o755).unwrap();
        assert!(dir.path().join("a/b/c").is_dir());
        assert!(root.make_dir(Path::new("/dangling/x"), 0o755).is_err());
        assert!(!outside.path().join("new").exists());
        assert_eq!(
            root.make_dir(Path::new("/missing/../../x"), 0o755).unwrap_err().errno,
            Errno::ENOENT
        );
    }

    #[test]
    fn what_is_known_is_forgotten_when_it_may_be_covered() {
        let (dir, root) = tree();
        let make = |path: &str| root.make_dir(Path::new(path), 0o755).map(drop);
        make("/dev").unwrap();
        // Another directory in its place: whoever asks for the path alone is told of that one.
        std::fs::create_dir(dir.path().join("other")).unwrap();
        let other = open(&dir.path().join("other"), OFlag::O_PATH).unwrap();
        root.remember(Path::new("/dev"), other);
        make("/dev/pts").unwrap();
        make("/dev/pts").unwrap_or_else(|error| panic!("there already: {error}"));
        assert!(dir.path().join("other/pts").is_dir());
        root.forget_but_above(Path::new("/dev/shm"));
        make("/dev/shm").unwrap();
        assert!(dir.path().join("other/shm").is_dir());
        root.forget_but_above(Path::new("/sys"));
        make("/dev/mqueue").unwrap();
        assert!(dir.path().join("dev/mqueue").is_dir());
        assert!(!dir.path().join("other/mqueue").exists());
    }

    #[test]
    fn a_link_is_refused_where_none_may_be() {
        let (dir, root) = tree();
        std::fs::create_dir(dir.path().join("real")).unwrap();
        symlink("real", dir.path().join("proc")).unwrap();
        let error =
            root.in_root_without_links(Path::new("/proc"), OFlag::O_PATH | OFlag::O_DIRECTORY);
        assert_eq!(error.unwrap_err().errno, Errno::ELOOP);
    }

    #[test]
    fn a_file_mount_point_is_made_once_and_reused() {
        let (dir, root) = tree();
        root.make_file(Path::new("/etc/resolv.conf"), 0o644).unwrap();
        std::fs::write(dir.path().join("etc/resolv.conf"), "kept").unwrap();
        root.make_file(Path::new("/etc/resolv.conf"), 0o644).unwrap();
        assert_eq!(std::fs::read_to_string(dir.path().join("etc/resolv.conf")).unwrap(), "kept");
    }
}
