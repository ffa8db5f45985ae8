//! The project's own commands.
//!
//! ```text
//! cargo xtask demo    build everything, make the example's image, run a container visibly
//! cargo xtask test    install what the tests need and run all of them
//! cargo xtask clients Docker, Podman and containerd drive runc, crun and minirun: the table
//! cargo xtask man     write manual pages and shell completions into target/
//! cargo xtask storm   kill everything for minutes while wrk asks: is a request lost?
//! ```

mod ask;
mod clients;
mod demo;
mod programs;
mod storm;
mod test;

use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let result = match words.as_slice() {
        ["demo"] => demo::run(),
        ["test"] => test::run(),
        ["clients", names @ ..] => clients::run(names),
        ["man"] => manual_pages(),
        ["storm", names @ ..] => storm::run(names),
        // The demo asks itself, see there.
        ["ask", pid, path] => ask::run(pid, path),
        _ => {
            eprintln!("cargo xtask demo    build everything and run the example, visibly");
            eprintln!("cargo xtask test    install what the tests need and run all of them");
            eprintln!("cargo xtask clients engines drive runc, crun and minirun: [NAME…]");
            eprintln!("cargo xtask man     write manual pages and shell completions into target/");
            eprintln!("cargo xtask storm   kill everything for minutes while wrk asks: [NAME…]");
            return ExitCode::from(2);
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Another program makes them: it is built from the programs that it describes, which the other
/// commands here need not wait for.
fn manual_pages() -> anyhow::Result<()> {
    let status = std::process::Command::new(env!("CARGO"))
        .args(["run", "--quiet", "--package", "pages", "--", "target"])
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
        .status()?;
    anyhow::ensure!(status.success(), "the program `pages` failed: {status}");
    Ok(())
}
