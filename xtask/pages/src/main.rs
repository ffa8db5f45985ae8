//! Manual pages and shell completions: `cargo xtask man`.
//!
//! A program of its own, so that neither the programs that it describes nor `cargo xtask` carry the
//! generators. The descriptions are those that the programs parse with, so they cannot differ.
//!
//! ```text
//! target/man/minirun.1  minirun-run.1  …  rootfs-tools.1  …  minisup.1  …
//! target/completions/minirun.bash  _minirun  minirun.fish  …
//! ```

use anyhow::{Context, Result};
use clap::Command;
use clap_complete::Shell;
use std::fs;
use std::path::Path;

fn main() -> Result<()> {
    let target = std::env::args_os().nth(1).context("usage: pages DIRECTORY")?;
    let target = Path::new(&target);
    let (man, completions) = (target.join("man"), target.join("completions"));
    for directory in [&man, &completions] {
        if directory.exists() {
            fs::remove_dir_all(directory)
                .with_context(|| format!("empty {}", directory.display()))?;
        }
        fs::create_dir_all(directory).with_context(|| format!("make {}", directory.display()))?;
    }
    for mut command in [minirun::command(), rootfs_tools::commands::command(), minisup::command()] {
        let name = command.get_name().to_owned();
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
            clap_complete::generate_to(shell, &mut command, &name, &completions)?;
        }
        // Builds the whole, so that options of the program appear in the pages of its verbs.
        command.build();
        pages(&command, &name, &man)?;
    }
    println!("{}\n{}", man.display(), completions.display());
    Ok(())
}

/// A page for a command, and one for each of its verbs: `git-commit(1)` has made that the custom.
fn pages(command: &Command, name: &str, directory: &Path) -> Result<()> {
    let page = clap_mangen::Man::new(command.clone()).title(name.to_uppercase());
    let mut text = Vec::new();
    page.render(&mut text)?;
    let file = directory.join(format!("{name}.1"));
    fs::write(&file, text).with_context(|| format!("write {}", file.display()))?;
    // `help` would get a page for each verb once more.
    let shown = |verb: &&Command| !verb.is_hide_set() && verb.get_name() != "help";
    for verb in command.get_subcommands().filter(shown) {
        pages(verb, &format!("{name}-{}", verb.get_name()), directory)?;
    }
    Ok(())
}
