//! `logging`: where the output of the containers goes, and how much of it is kept.

use std::collections::BTreeMap;

use serde::{Serialize, Serializer};

use crate::field::{Field, Fields};
use crate::findings::Findings;
use crate::quantity::Bytes;

/// `logging` of a service. Rotation is on by default.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Logging {
    /// Files, or nothing.
    pub driver: LogDriver,
    /// Size at which a file is rotated (`max-size`). Default 10 MiB.
    pub max_size: Bytes,
    /// Files kept for each replica (`max-file`). Default 3.
    pub max_file: u32,
    /// Whether rotated files are compressed (`compress`). Default false.
    pub compress: bool,
}

/// `logging.driver`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogDriver {
    /// One JSON object for each line, in rotated files (`json-file`, `local`).
    JsonFile,
    /// Nothing is kept (`none`).
    None,
}

impl Default for Logging {
    fn default() -> Self {
        Self {
            driver: LogDriver::JsonFile,
            max_size: Bytes(10 << 20),
            max_file: 3,
            compress: false,
        }
    }
}

impl Serialize for Logging {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeMap as _;
        let mut map = serializer.serialize_map(None)?;
        if self.driver == LogDriver::None {
            map.serialize_entry("driver", "none")?;
            return map.end();
        }
        let options = BTreeMap::from([
            ("max-size", self.max_size.to_string()),
            ("max-file", self.max_file.to_string()),
            ("compress", self.compress.to_string()),
        ]);
        map.serialize_entry("driver", "json-file")?;
        map.serialize_entry("options", &options)?;
        map.end()
    }
}

impl Logging {
    pub(crate) fn read(field: &Field<'_>, cx: &mut Findings) -> Option<Self> {
        let mut f = Fields::open(field, cx);
        let mut logging = Self::default();
        if let Some(driver) = f.get("driver", cx, read_driver) {
            logging.driver = driver;
        }
        if let Some(options) = f.take("options", cx) {
            logging.read_options(&options, cx);
        }
        f.close(cx);
        if logging.driver == LogDriver::None {
            logging = Self { driver: LogDriver::None, ..Self::default() };
        }
        Some(logging)
    }

    fn read_options(&mut self, field: &Field<'_>, cx: &mut Findings) {
        for (name, option) in field.named(cx) {
            match name {
                "max-size" => {
                    self.max_size = option.bytes(cx).filter(|b| b.0 > 0).unwrap_or(self.max_size)
                }
                "max-file" => self.max_file = option.number(cx, 1, 1000).unwrap_or(self.max_file),
                "compress" => self.compress = option.boolean(cx).unwrap_or(self.compress),
                "mode" | "max-buffer-size" => {
                    option.warn(
                        cx,
                        "has no effect: a slow disk never blocks the container",
                        "remove it",
                    );
                }
                "labels" | "labels-regex" | "env" | "env-regex" | "tag" => {
                    let remedy = "remove it; `minisup logs` names service and slot of every line";
                    option.warn(cx, "has no effect: lines carry no extra fields", remedy);
                }
                _ => option.error(
                    cx,
                    "unknown option",
                    "known are `max-size`, `max-file`, `compress`",
                ),
            }
        }
    }
}

fn read_driver(field: &Field<'_>, cx: &mut Findings) -> Option<LogDriver> {
    match field.text(cx)?.as_str() {
        "json-file" => Some(LogDriver::JsonFile),
        "none" => Some(LogDriver::None),
        "local" => {
            field.warn(cx, "is kept as `json-file`", "write `json-file`");
            Some(LogDriver::JsonFile)
        }
        other => {
            let remedy = "write `json-file`, and let a log shipper read the files; or `none`";
            field.error(cx, format!("the log driver `{other}` is not supported"), remedy);
            None
        }
    }
}
