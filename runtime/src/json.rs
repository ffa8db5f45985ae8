//! JSON, always through the same door.
//!
//! serde writes a reader for each pair of type and source. Reading the configuration from bytes
//! *and* from a value made the program half a megabyte larger, so everything goes through bytes.

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Error, Value};

/// Reads a value of type `T`.
pub(crate) fn read<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Error> {
    serde_json::from_slice(bytes)
}

/// Makes a typed value of an untyped one.
pub(crate) fn typed<T: DeserializeOwned>(value: &Value) -> Result<T, Error> {
    read(&serde_json::to_vec(value)?)
}

/// Makes an untyped value of a typed one.
pub(crate) fn untyped<T: Serialize>(value: &T) -> Result<Value, Error> {
    read(&serde_json::to_vec(value)?)
}
