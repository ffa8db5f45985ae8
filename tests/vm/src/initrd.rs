//! The initrd: the early modules and this very program as `/vm-agent`.

use std::{
    env, fs,
    fs::File,
    io::BufWriter,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};

use crate::{
    agent,
    cache::{Cache, Key},
    cpio::Archive,
    host,
    kernel::Built,
};

/// Where the early modules are in the initrd.
pub(crate) const MODULES: &str = "/modules";

/// The disks as the guest sees them, in the order of QEMU's command line.
pub(crate) const ROOT_DISK: &str = "/dev/vda";
pub(crate) const MODULES_DISK: &str = "/dev/vdb";

/// The initrd for a kernel, with `program` as the guest's side.
pub(crate) fn build(cache: &Cache, kernel: &Built, program: &Path) -> Result<PathBuf> {
    let content = host::read(program)?;
    let name = name(kernel, &content);
    cache.part(&name, |path| write(path, kernel, &stripped(program, path, content)?))
}

/// The name in the cache of the initrd for a kernel, with this content of the program.
pub(crate) fn name(kernel: &Built, program: &[u8]) -> String {
    let key = Key::default().text("1").text(&kernel.key).bytes(program).finish();
    format!("initrd-{key}.cpio")
}

fn write(path: &Path, kernel: &Built, program: &[u8]) -> Result<()> {
    let mut archive = Archive::new(BufWriter::new(File::create(path)?));
    for directory in ["dev", "proc", "sys", "root", &MODULES[1..]] {
        archive.directory(directory)?;
    }
    archive.device("dev/console", 5, 1)?;
    archive.program(agent::NAME, program)?;
    for module in kernel.early()? {
        let name = module.file_name().context("a module without a name")?.to_string_lossy();
        archive.file(&format!("{}/{name}", &MODULES[1..]), &host::read(&module)?)?;
    }
    archive.finish()?;
    Ok(())
}

/// The program without its debugging information, which a guest would only copy about. Where
/// there is no strip(1) it is used as it is.
fn stripped(program: &Path, near: &Path, content: Vec<u8>) -> Result<Vec<u8>> {
    if host::find("strip").is_none() {
        return Ok(content);
    }
    let target = near.with_extension("stripped");
    host::run(host::command("strip").arg("-o").args([&target, program]))?;
    let stripped = host::read(&target);
    fs::remove_file(&target)?;
    stripped
}

/// The `vm` program that belongs to the running process: itself, or beside it, or one directory
/// up, where cargo puts it for a test in `deps/`.
pub(crate) fn this_program() -> Result<PathBuf> {
    let running = env::current_exe().context("which program is this?")?;
    let candidates = running.ancestors().skip(1).take(2).map(|directory| directory.join("vm"));
    let Some(program) = candidates.into_iter().find(|candidate| candidate.is_file()) else {
        bail!("there is no program vm beside {}: run cargo build -p vm", running.display());
    };
    Ok(program)
}
