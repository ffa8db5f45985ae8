//! The program `minisup`. Everything is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    minisup::main()
}
