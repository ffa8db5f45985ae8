//! `minisup install`: a systemd unit that starts a project at boot.
//!
//! The unit only calls `up` and `down`: whether a container lives is the keeper's business, not
//! systemd's, so the unit's own end must not touch it (`KillMode=process`).

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::compose;

/// Writes the unit, and enables it unless only its text is wanted.
pub(crate) fn run(
    named: Option<&str>,
    files: &[PathBuf],
    directory: &Path,
    print: bool,
) -> Result<()> {
    let choice = compose::Choice { files: files.to_vec(), ..compose::Choice::default() };
    let file = compose::File::read(&choice, named)?;
    let program = std::env::current_exe().context("this program's own path is unknown")?;
    let paths: Result<Vec<PathBuf>> =
        file.paths().iter().map(|path| Ok(path.canonicalize()?)).collect();
    let text = unit(&program, file.name(), &paths?)?;
    if print {
        print!("{text}");
        return Ok(());
    }
    let name = format!("minisup-{}.service", file.name());
    let path = directory.join(&name);
    fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    println!("{}", path.display());
    if !Path::new("/run/systemd/system").is_dir() {
        println!(
            "systemd does not run here: enable it with `systemctl enable {name}` where it does"
        );
        return Ok(());
    }
    for arguments in [&["daemon-reload"][..], &["enable", &name]] {
        let status = Command::new("systemctl").args(arguments).status();
        if !status.context("cannot run systemctl")?.success() {
            bail!("systemctl {} failed", arguments.join(" "));
        }
    }
    println!("started at boot from now on; now with `systemctl start {name}`");
    Ok(())
}

fn unit(program: &Path, project: &str, files: &[PathBuf]) -> Result<String> {
    let program = word(program)?;
    let files: Result<Vec<String>> =
        files.iter().map(|file| Ok(format!(" --file {}", word(file)?))).collect();
    let files = files?.concat();
    Ok(format!(
        "[Unit]\n\
         Description=minisup project {project}\n\
         Documentation=man:minisup(1)\n\
         After=network-online.target local-fs.target time-sync.target\n\
         Wants=network-online.target\n\
         \n\
         [Service]\n\
         Type=oneshot\n\
         RemainAfterExit=yes\n\
         ExecStart={program} -P {project} up -d{files}\n\
         ExecReload={program} -P {project} up -d{files}\n\
         ExecStop={program} -P {project} down\n\
         TimeoutStartSec=infinity\n\
         KillMode=process\n\
         Delegate=yes\n\
         \n\
         [Install]\n\
         WantedBy=multi-user.target\n"
    ))
}

/// A path as systemd reads it in a command line: `%` and `$` are its own, and so are quotes.
fn word(path: &Path) -> Result<String> {
    let text = path.to_str().with_context(|| format!("{} is not UTF-8", path.display()))?;
    if text.contains(['\n', '"', '\\']) {
        bail!("{text:?}: systemd cannot be given such a path");
    }
    Ok(format!("\"{}\"", text.replace('%', "%%").replace('$', "$$")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_unit_calls_up_and_down_with_whole_paths() {
        let text =
            unit(Path::new("/opt/minisup"), "shop", &["/srv/100% $x/c.yaml".into()]).unwrap();
        let start = "ExecStart=\"/opt/minisup\" -P shop up -d --file \"/srv/100%% $$x/c.yaml\"\n";
        assert!(text.contains(start), "{text}");
        assert!(text.contains("ExecStop=\"/opt/minisup\" -P shop down\n"));
        assert!(text.contains("\nKillMode=process\n"));
        assert!(unit(Path::new("/a\"b"), "shop", &[]).is_err());
    }
}
