//! The program `minirun`.
#![no_main]

linux::begin!(minirun::main);
