//! What is shipped beside the program, checked with the tools that will read it.
//!
//! A tool that is not installed is taken out of its Debian package; a test that finds none good
//! enough is shown as ignored, with the reason.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod kubernetes;
mod monitoring;
mod packaging;
#[path = "../../examples/manual/pages.rs"]
mod pages;
mod tool;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use libtest_mimic::{Arguments, Trial};

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let tests = [kubernetes::tests(), monitoring::tests(), packaging::tests()];
    libtest_mimic::run(&arguments, tests.into_iter().flatten().collect()).exit_code()
}

fn trial(name: &str, test: fn()) -> Trial {
    Trial::test(name, move || {
        test();
        Ok(())
    })
}

/// A file or folder of the package.
fn shipped(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// The text of a file of the package.
fn text(path: &str) -> String {
    std::fs::read_to_string(shipped(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}
