//! The daemon's entry point: flags in, exit code out.

fn main() {}
