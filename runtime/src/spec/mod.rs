//! config.json: read, checked against what this program knows, and written with good defaults.

mod default;
mod load;
pub mod mount_options;
pub mod units;

pub use default::{default_config, make_rootless, rootless_config, to_text};
pub use load::{OLDEST, VERSION, load, parse, parse_process};
