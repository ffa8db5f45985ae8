//! config.json: read, checked against what this program knows, and written with good defaults.

mod default;
mod load;
pub mod mount_options;

pub use default::{default_config, rootless_config, to_text};
pub use load::{VERSION, load, parse};
