//! rootfs-tools: images for minirun. Everything is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    rootfs_tools::commands::main()
}
