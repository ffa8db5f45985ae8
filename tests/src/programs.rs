//! Where the programs under test are.

use std::path::{Path, PathBuf};

/// The directory of this program: the artefacts of one build.
fn here() -> PathBuf {
    let this = std::env::current_exe().expect("this program has a path");
    this.parent().expect("a file is in a directory").to_owned()
}

/// A program of this workspace: named by `variable`, else beside this one; and where this one was
/// just built for debugging, rather the one that was built for release.
fn program(variable: &str, name: &str) -> PathBuf {
    if let Some(path) = std::env::var_os(variable) {
        return PathBuf::from(path);
    }
    let here = here();
    let beside = here.join(name);
    let release = here.with_file_name("release").join(name);
    if here.ends_with("debug") && !["probe", "cri"].contains(&name) && release.exists() {
        return release;
    }
    assert!(beside.exists(), "no {}: build it, or set {variable}", beside.display());
    beside
}

/// The runtime under test.
pub(crate) fn minirun() -> PathBuf {
    program("MINIRUN", "minirun")
}

/// The image tool.
pub(crate) fn rootfs_tools() -> PathBuf {
    program("ROOTFS_TOOLS", "rootfs-tools")
}

/// The supervisor.
pub(crate) fn minisup() -> PathBuf {
    program("MINISUP", "minisup")
}

/// What test containers run.
pub(crate) fn probe() -> PathBuf {
    program("PROBE", "probe")
}

/// The client of the Container Runtime Interface.
pub(crate) fn cri() -> PathBuf {
    program("CRI_CLIENT", "cri")
}

/// One of the example applications.
pub(crate) fn example(name: &str) -> PathBuf {
    program(&name.to_uppercase(), name)
}

/// The statically linked busybox of the system.
pub(crate) fn busybox() -> PathBuf {
    let places = ["/bin/busybox", "/usr/bin/busybox"].map(PathBuf::from);
    let found = places.into_iter().find(|path| path.exists());
    found.expect("the tests need busybox-static: apt-get install busybox-static")
}

/// The project's source, for the tests that read it; `None` where it is not there (in a guest, when
/// it was not shared).
pub(crate) fn source() -> Option<PathBuf> {
    let named = std::env::var_os("MINIRUN_SOURCE").map(PathBuf::from);
    let beside = here().join("source");
    let built_from = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let candidates = named.into_iter().chain([beside, built_from]);
    candidates.into_iter().find(|path| path.join("runtime/src/steps").is_dir())
}

/// Whether a program is in `PATH`, or where administration programs live.
pub(crate) fn find(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin"].map(PathBuf::from))
        .map(|directory| directory.join(name))
        .find(|path| path.is_file())
}
