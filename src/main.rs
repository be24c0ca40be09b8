//! The `alexc` command.
fn main() {}
