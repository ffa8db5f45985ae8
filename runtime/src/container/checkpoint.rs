//! Taking a running container apart into files, so that it can be made again later, here or
//! elsewhere: `checkpoint`.
//!
//! CRIU does the work. What it cannot know is told here: which mounts, namespaces and streams are
//! not the container's own, and what to freeze while it looks. It leaves the container as it was
//! when it fails.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use linux::clone::Birth;
use linux::fd;
use linux::namespace::{Kind as Namespace, Namespaces};
use linux::path::Root;

use super::state::{Init, State};
use crate::criu::images::{self, Images};
use crate::criu::message::{CgroupRoot, Kind, Options, Pair};
use crate::criu::mounts::{self, Entry};
use crate::criu::{self, CgroupMode, OUTER_NETWORK, OUTER_PIDS, Session};
use crate::error::{Error, Result};
use crate::plan::Plan;

/// What a caller asks for, of a checkpoint and of a restore.
#[derive(Debug, Default)]
pub(crate) struct Asked {
    /// The directory of the images.
    pub(crate) images: PathBuf,
    /// The directory of CRIU's log and temporary files; that of the images without it.
    pub(crate) work: Option<PathBuf>,
    /// The checkpoint that this one continues, as a path below `images`.
    pub(crate) parent: Option<String>,
    /// How CRIU treats cgroups.
    pub(crate) cgroups: Option<CgroupMode>,
    /// Leave the content of the network namespace out.
    pub(crate) empty_network: bool,
    /// What CRIU is told as it is.
    pub(crate) criu: Options,
}

impl Asked {
    /// Opens the directories of the images and of the work; the last is made if it is missing.
    pub(crate) fn directories(&self) -> Result<(File, File)> {
        Ok((images::existing(&self.images)?, images::directory(self.work())?))
    }

    /// Where the log goes.
    pub(crate) fn work(&self) -> &Path {
        self.work.as_ref().unwrap_or(&self.images)
    }

    /// The options of CRIU that follow from what was asked for.
    pub(crate) fn options(&self, images: &File, work: &File) -> Options {
        let mode = self.cgroups.unwrap_or(CgroupMode::Ignore);
        let network = Namespaces::from_iter([Namespace::Network]).bits();
        Options {
            images_dir_fd: images.as_raw_fd(),
            work_dir_fd: Some(work.as_raw_fd()),
            parent_img: self.parent.clone(),
            manage_cgroups: mode != CgroupMode::Ignore,
            manage_cgroups_mode: Some(mode.number()),
            empty_ns: self.empty_network.then_some(u32::try_from(network).unwrap_or(0)),
            evasive_devices: true,
            orphan_pts_master: true,
            ext_masters: true,
            ..self.criu.clone()
        }
    }
}

/// Whether only memory is saved, ahead of the checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum What {
    /// Memory; the container goes on.
    Memory,
    /// Everything.
    Everything,
}

/// Saves the container of `state`. It goes on afterwards if it was asked to, or if this fails.
pub(crate) fn checkpoint(state: &State, plan: &Plan, asked: &Asked, what: What) -> Result<()> {
    let program = criu::find()?;
    refuse_what_cannot_be(state)?;
    let init = state.init.as_ref().filter(|init| init.open().is_some());
    let init = init.ok_or(Error::NotRunning)?;
    images::directory(&asked.images)?;
    let (dir, work) = asked.directories()?;
    let seen = Seen::of(plan, init)?;
    let mut options = asked.options(&dir, &work);
    options.pid = Some(init.pid);
    options.root = Some(plan.rootfs.path.display().to_string());
    options.freeze_cgroup = freezer_of(state);
    options.cg_root = roots_of(state);
    options.ext_mnt = seen.images.externals.iter().map(named_mount).collect();
    options.external = seen.outside.clone();
    let (kind, log) = match what {
        What::Everything => (Kind::Dump, "dump.log"),
        What::Memory => {
            options.track_mem = true;
            (Kind::PreDump, "pre-dump.log")
        }
    };
    if what == What::Everything {
        let mut notes = seen.images;
        notes.dies_with_parent = state.dies_with_parent;
        notes.writable = state.writable.clone();
        notes.write(&asked.images)?;
    }
    let kept = [dir.as_raw_fd(), work.as_raw_fd()];
    let prepare = || Ok([&dir, &work].iter().try_for_each(|dir| fd::keep_on_exec(dir.as_fd()))?);
    let kept = (&kept[..], options.shell_job);
    let session = Session::start(&program, Birth::default(), kept, |_| Ok(()), prepare)?;
    session.request(kind, options, &asked.work().join(log), |_| Ok(()))?;
    Ok(())
}

fn refuse_what_cannot_be(state: &State) -> Result<()> {
    let refused = |what: &str| Err(Error::Unsupported(format!("checkpoint {}: {what}", state.id)));
    if linux::credentials::effective_user() != 0 {
        return refused("CRIU needs root");
    }
    if state.network.is_some() {
        return refused(
            "its network was made by `run --net`, and cannot be made again: use a network \
             namespace by path",
        );
    }
    Ok(())
}

/// The cgroup that holds all its processes, where one is mounted that can freeze.
fn freezer_of(state: &State) -> Option<String> {
    let record = state.cgroup.as_ref()?;
    let group = record.trees.get("unified")?.join(&record.path);
    group.join("cgroup.freeze").exists().then(|| group.display().to_string())
}

/// Where the container's group is in each tree, for the modes in which CRIU makes groups.
pub(super) fn roots_of(state: &State) -> Vec<CgroupRoot> {
    let Some(record) = &state.cgroup else { return Vec::new() };
    let path = Path::new("/").join(&record.path).display().to_string();
    let controller = |tree: &String| (tree != "unified").then(|| tree.clone());
    let roots = record.trees.keys().map(controller);
    roots.map(|controller| CgroupRoot { controller, path: path.clone() }).collect()
}

fn named_mount(mount: &mounts::External) -> Pair {
    let place = mount.place.display().to_string();
    Pair { key: place.clone(), value: place }
}

/// What is seen of a container from outside.
struct Seen {
    images: Images,
    /// What is not the container's own, by CRIU's names: namespaces and files.
    outside: Vec<String>,
}

impl Seen {
    fn of(plan: &Plan, init: &Init) -> Result<Self> {
        let proc = PathBuf::from(format!("/proc/{}", init.pid));
        let table = proc.join("mountinfo");
        let table = std::fs::read_to_string(&table)
            .map_err(Error::file(format!("read {}", table.display())))?;
        let table = mounts::parse(&table);
        let root = Root::open(&proc.join("root")).map_err(Error::kernel("look at its root"))?;
        let mut images = Images::default();
        if plan.namespaces.has(Namespace::Mount) {
            let known = mounts::known(plan, &root)?;
            images.externals = mounts::externals(&table, &known)?;
            images.places =
                mounts::places(&table).map(|place| is_directory(place, &root)).collect();
        }
        let mut outside = Vec::new();
        for (number, name) in images.streams.iter_mut().enumerate() {
            if let Some(stream) = Stream::of(&proc, number, &table)? {
                if stream.must_be_told && !outside.contains(&stream.name) {
                    outside.push(stream.name.clone());
                }
                *name = Some(stream.name);
            }
        }
        for (kind, name) in [(Namespace::Network, OUTER_NETWORK), (Namespace::Pid, OUTER_PIDS)] {
            if plan.namespaces.joins(kind) {
                let file = proc.join("ns").join(kind.proc_name());
                let inode = std::fs::metadata(&file)
                    .map_err(Error::file(format!("look at {}", file.display())))?
                    .ino();
                outside.push(format!("{}[{inode}]:{name}", kind.proc_name()));
            }
        }
        Ok(Self { images, outside })
    }
}

fn is_directory(place: &Path, root: &Root) -> (PathBuf, bool) {
    let flags = linux::OFlag::O_PATH | linux::OFlag::O_DIRECTORY;
    (place.to_owned(), root.in_root(place, flags).is_ok())
}

/// A standard stream whose other end, or whose file, is outside.
struct Stream {
    /// Its name in the images.
    name: String,
    /// Whether CRIU must be told of it: of a file, not of a pipe.
    must_be_told: bool,
}

impl Stream {
    fn of(proc: &Path, number: usize, table: &[Entry]) -> Result<Option<Self>> {
        let link = proc.join("fd").join(number.to_string());
        let Ok(target) = std::fs::read_link(&link) else { return Ok(None) };
        let text = target.display().to_string();
        if text.starts_with("pipe:") {
            return Ok(Some(Self { name: text, must_be_told: false }));
        }
        let file =
            std::fs::metadata(&link).map_err(Error::file(format!("look at {}", link.display())))?;
        let kind = file.file_type();
        if kind.is_socket() || !text.starts_with('/') {
            return Ok(None);
        }
        let mount = mounts::mount_id_of(&format!("{}/fdinfo/{number}", proc.display()))?;
        if mounts::ids(table).contains(&mount) {
            return Ok(None);
        }
        let name = match kind.is_char_device() && is_terminal(file.rdev()) {
            true => format!("tty[{:x}:{:x}]", file.rdev(), file.dev()),
            false => format!("file[{mount:x}:{:x}]", file.ino()),
        };
        Ok(Some(Self { name, must_be_told: true }))
    }
}

/// Whether a device number is that of a terminal: consoles, serial lines, pseudo-terminals.
fn is_terminal(device: u64) -> bool {
    let (major, minor) = (device >> 8 & 0xfff, device & 0xff);
    // 5:2 is /dev/ptmx, which makes terminals and is none.
    matches!(major, 4 | 136..=143) || (major == 5 && minor < 2)
}

/// A descriptor for each namespace that is entered by path, to be inherited by CRIU.
pub(super) fn outer_namespaces(plan: &Plan) -> Result<Vec<(Namespace, OwnedFd)>> {
    let opened = crate::steps::namespaces::open(&plan.namespaces);
    opened.map_err(|cause| Error::Config(cause.text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terminals_are_known_by_their_numbers() {
        assert!(is_terminal(136 << 8 | 3));
        assert!(is_terminal(4 << 8 | 1));
        assert!(!is_terminal(1 << 8 | 3));
        assert!(!is_terminal(5 << 8 | 2));
    }
}
