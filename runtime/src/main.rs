//! minirun.
fn main() {}
