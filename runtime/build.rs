//! Gives the program the commit that it was built from, for `--version`.

use std::process::Command;

fn main() {
    let output = Command::new("git").args(["rev-parse", "--short=12", "HEAD"]).output();
    let commit = output
        .ok()
        .filter(|output| output.status.success())
        .and_then(|output| String::from_utf8(output.stdout).ok());
    let commit = commit.as_deref().map_or("unknown", str::trim);
    println!("cargo::rustc-env=MINIRUN_COMMIT={commit}");
    println!("cargo::rerun-if-changed=../.git/HEAD");
}
