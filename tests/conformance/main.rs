//! Conformance: one case per unit test case of kube-proxy's ipvs mode.
//!
//! `CATALOGUE.md` says in our words what each of those shows, and which file here shows it of this
//! program. A row that nothing shows and nothing excuses fails, as does a case that no row names.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]
#![allow(clippy::print_stdout, reason = "the count of rows is part of the outcome")]

mod case;
mod catalogue;
mod state;

mod configuration;
mod conntrack;
mod draining;
mod endpoints;
mod health;
mod load_balancers;
mod masquerade;
mod node;
mod node_addresses;
mod node_ports;
mod pace;
mod rules;
mod servers;
mod service_map;
mod services;
mod sets;
mod slices;
mod terminating;
mod topology;
mod tracking;
mod tuning;

use std::process::ExitCode;

use case::Case;
use libtest_mimic::{Arguments, Failed, Trial};

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let is_whole = !arguments.list && arguments.filter.is_none();
    let conclusion = libtest_mimic::run(&arguments, trials(areas()));
    if is_whole {
        println!("{}", catalogue::summary());
    }
    conclusion.exit_code()
}

/// The cases, by the file that they are in.
fn areas() -> Vec<(&'static str, Vec<Case>)> {
    macro_rules! areas {
        ($($area:ident),* $(,)?) => { vec![$((stringify!($area), $area::cases())),*] };
    }
    areas![
        configuration,
        conntrack,
        draining,
        endpoints,
        health,
        load_balancers,
        masquerade,
        node,
        node_addresses,
        node_ports,
        pace,
        rules,
        servers,
        service_map,
        services,
        sets,
        slices,
        terminating,
        topology,
        tracking,
        tuning,
    ]
}

fn trials(areas: Vec<(&'static str, Vec<Case>)>) -> Vec<Trial> {
    let faults = catalogue::faults(&areas);
    let catalogue = Trial::test("catalogue/every_row_is_covered_or_excused", move || {
        if faults.is_empty() { Ok(()) } else { Err(Failed::from(faults.join("\n"))) }
    });
    let parser = Trial::test("catalogue/disagreement_is_noticed", || {
        catalogue::notices_disagreement();
        Ok(())
    });
    let cases = areas.into_iter().flat_map(|(_, cases)| cases).map(|case| {
        let run = case.run;
        Trial::test(case.row, move || {
            run();
            Ok(())
        })
    });
    [catalogue, parser].into_iter().chain(cases).collect()
}
