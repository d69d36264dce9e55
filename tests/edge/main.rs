//! The kernel edge against a real kernel, without the daemon around it.
//!
//! Runs right here where it can, else boots the machine of `tests/lab` and runs itself inside.
//! Each test runs on a thread of its own in a network namespace of its own, so nothing of the
//! machine is touched.
//!
//! Invariant: a test never leaves its namespace; settings outside of it are only read.

#![allow(clippy::print_stderr, reason = "tests talk to whoever runs them")]

mod flows;
mod host;
#[path = "../kernel/lab.rs"]
#[allow(dead_code, reason = "no daemon is run here")]
mod lab;
mod links;
mod locks;
mod namespace;
mod routes;
mod rules;
mod sets;

use std::process::ExitCode;

use libtest_mimic::{Arguments, Trial};

/// A test's name and what it does.
type Test = (&'static str, fn());

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    if !arguments.list
        && let Some(missing) = lab::missing_here()
    {
        return lab::run_inside("edge", &missing, &[]);
    }
    let mut trials = Vec::new();
    trials.extend(sets::tests().map(|test| trial("sets", test)));
    trials.extend(rules::tests().map(|test| trial("rules", test)));
    trials.extend(locks::tests().map(|test| trial("locks", test)));
    trials.extend(links::tests().map(|test| trial("links", test)));
    trials.extend(routes::tests().map(|test| trial("routes", test)));
    trials.extend(host::tests().map(|test| trial("host", test)));
    trials.extend(flows::tests().map(|test| trial("flows", test)));
    libtest_mimic::run(&arguments, trials).exit_code()
}

fn trial(group: &str, (name, test): Test) -> Trial {
    Trial::test(format!("{group}::{name}"), move || namespace::run(test))
}
