//! Sources over real sockets and real files, against the state they must end in.
//!
//! [`server`] is a small API server that replays captured events of a real control plane up to
//! a version, with faults; [`follower`] folds what a source sends; [`golden`] compares.
//! Invariant: no test sleeps; each waits for a condition with a deadline.
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "these are tests")]

mod api;
mod configuration;
mod events;
mod follower;
mod golden;
mod manifests;
mod real;
mod role;
mod server;

use std::future::Future;
use std::process::ExitCode;

use libtest_mimic::{Arguments, Failed, Trial};

/// A test that runs on a runtime of its own.
fn trial<F: Future<Output = ()> + 'static>(name: &str, test: fn() -> F) -> Trial {
    let run = move || -> Result<(), Failed> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(test());
        Ok(())
    };
    Trial::test(name, run)
}

fn main() -> ExitCode {
    let mut trials = Vec::new();
    trials.extend(api::trials());
    trials.extend(configuration::trials());
    trials.extend(events::trials());
    trials.extend(manifests::trials());
    trials.extend(real::trials());
    trials.extend(role::trials());
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}
