//! The program `minirun`.

use std::process::ExitCode;

fn main() -> ExitCode {
    minirun::main()
}
