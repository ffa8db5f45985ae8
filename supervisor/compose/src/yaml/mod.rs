//! YAML text to a tree in which every value knows its place.

mod node;
mod parse;

pub(crate) use node::{Entry, Map, Node, Scalar, Style, Tag, Value};
pub(crate) use parse::parse;
