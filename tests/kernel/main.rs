//! Kernel tests: the daemon, and what it stands on, against a real IPVS kernel.
//!
//! Runs right here where it can, else boots the machine of `tests/lab` and runs itself inside.
//! Every test lives in a [`world::World`] of its own; nothing outside it may be touched.

#![allow(clippy::print_stderr, reason = "tests talk to whoever runs them")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod addresses;
mod affinity;
mod api_server;
mod binding;
mod bindings;
#[path = "../watch/server.rs"]
#[allow(dead_code, reason = "the watch tests ask more of it")]
mod captured_server;
mod changes;
mod client;
mod cluster;
#[path = "../reference/comparison/mod.rs"]
mod comparison;
mod control_plane;
mod crash;
mod crash_in_change;
mod daemon;
mod datagrams;
mod draining;
mod dump;
mod growth;
mod health_checks;
mod lab;
mod leftovers;
mod load;
mod metrics;
mod namespace;
mod once;
mod outcome;
mod ownership;
mod pod_server;
mod readme;
mod reference;
mod refusals;
mod reload;
mod scale;
mod schedulers;
mod settings;
mod source_ranges;
mod status;
mod steps;
mod takeover;
mod traffic;
mod truth_table;
mod wait;
mod whoami;
mod world;
mod world_itself;

use std::process::ExitCode;

use libtest_mimic::{Arguments, Trial};

/// Trials named after the functions they run.
macro_rules! trials {
    ($($name:ident),* $(,)?) => {
        vec![$(libtest_mimic::Trial::test(stringify!($name), || { $name(); Ok(()) })),*]
    };
}
use trials;

/// The same tests once more, with service addresses bound by routes.
macro_rules! trials_by_route {
    ($($name:ident),* $(,)?) => {
        vec![$(libtest_mimic::Trial::test(concat!(stringify!($name), "_by_route"), || {
            crate::binding::by_route($name);
            Ok(())
        })),*]
    };
}
use trials_by_route;

/// What the README's commands read.
const MANIFESTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy");

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    if !arguments.list
        && let Some(missing) = lab::missing_here()
    {
        return lab::run_inside("kernel", &missing, &[MANIFESTS]);
    }
    // One after another: the lab has two processors, and some tests measure time.
    arguments.test_threads.get_or_insert(1);
    libtest_mimic::run(&arguments, tests()).exit_code()
}

fn tests() -> Vec<Trial> {
    let of_files = [
        world_itself::tests(),
        traffic::tests(),
        truth_table::tests(),
        addresses::tests(),
        bindings::tests(),
        source_ranges::tests(),
        affinity::tests(),
        scale::tests(),
        changes::tests(),
        draining::tests(),
        reference::tests(),
        datagrams::tests(),
        refusals::tests(),
        ownership::tests(),
        api_server::tests(),
        takeover::tests(),
        leftovers::tests(),
        crash::tests(),
        crash_in_change::tests(),
        steps::tests(),
        settings::tests(),
        reload::tests(),
        schedulers::tests(),
        growth::tests(),
        health_checks::tests(),
        status::tests(),
        metrics::tests(),
        once::tests(),
        readme::tests(),
    ];
    of_files.into_iter().flatten().collect()
}
