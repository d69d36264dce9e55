//! Commands as an administrator gives them.

use std::process::{Command, Output, Stdio};

/// Runs a command line of plain words and returns what it prints; its failure is the test's.
#[track_caller]
pub fn run(line: &str) -> String {
    let output = attempt(line);
    assert!(output.status.success(), "{line}: {}\n{}", output.status, text(&output));
    text(&output)
}

/// Runs a command line of plain words, whatever comes of it.
pub fn attempt(line: &str) -> Output {
    let mut words = line.split_whitespace();
    let program = words.next().expect("a command");
    let mut command = Command::new(program);
    command.args(words).env("DEBIAN_FRONTEND", "noninteractive").stdin(Stdio::null());
    command.output().unwrap_or_else(|error| panic!("{line}: {error}"))
}

/// What a command has said on both its outputs.
pub fn text(output: &Output) -> String {
    let texts = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes));
    texts.concat()
}
