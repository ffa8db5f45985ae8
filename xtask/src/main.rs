//! The project's own commands.
//!
//! ```text
//! cargo xtask demo    build everything, make the example's image, run a container visibly
//! cargo xtask test    install what the tests need and run all of them
//! ```

mod demo;
mod programs;
mod test;

use std::process::ExitCode;

fn main() -> ExitCode {
    let command = std::env::args().nth(1);
    let result = match command.as_deref() {
        Some("demo") => demo::run(),
        Some("test") => test::run(),
        _ => {
            eprintln!("cargo xtask demo    build everything and run the example, visibly");
            eprintln!("cargo xtask test    install what the tests need and run all of them");
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
