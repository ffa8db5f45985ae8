//! What an image is: documents that name each other by digest, and a stack of layers.

pub mod config;
pub mod document;
pub mod platform;
pub mod view;
