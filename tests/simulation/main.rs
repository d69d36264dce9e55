//! Seeded worlds with faults: the engine over a strict kernel in memory.
//!
//! `SIMULATION_SEEDS=100000` runs more seeds, `SIMULATION_SEED=7` runs one and prints its events.
//! Each seed is two runs: in one of them a part of the cluster cannot be read for a while.

mod check;
mod clients;
mod cluster;
mod event;
mod host;
mod packet;
mod service;
mod unread;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread;

use event::Event;
use kube_ipvs_proxy::testing::random::Random;

/// Seeds that once failed; they run always.
const REGRESSIONS: [u64; 40] = [
    18, 35, 36, 40, 179, 188, 443, 474, 537, 597, 638, 688, 695, 839, 853, 943, 995, 1465, 1587,
    1800, 2004, 2921, 3388, 3409, 3659, 3878, 4412, 6006, 6017, 7152, 7401, 8859, 9730, 12868,
    12964, 13553, 17850, 22281, 33223, 36148,
];

/// Seeds that failed while a part of the cluster could not be read.
const UNREAD_REGRESSIONS: [u64; 5] = [68, 182, 188, 1454, 4088];

/// Seeds in an ordinary run.
const SEEDS: u64 = 3_000;

/// What happens in a run.
type List = fn(&mut Random) -> Vec<Event>;

/// A seed with the kind of list that it gives.
type Job = (u64, List);

const LISTS: [List; 2] = [event::list, event::list_in_part];

#[test]
fn the_engine_keeps_its_promises_in_every_world() {
    if let Some(seed) = number("SIMULATION_SEED") {
        return LISTS.into_iter().for_each(|list| report((seed, list), true));
    }
    let seeds = number("SIMULATION_SEEDS").unwrap_or(SEEDS);
    let [whole, in_part] = LISTS;
    let regressions = REGRESSIONS.into_iter().map(|seed| (seed, whole));
    let regressions = regressions.chain(UNREAD_REGRESSIONS.into_iter().map(|seed| (seed, in_part)));
    let new = (0..seeds).flat_map(|seed| LISTS.map(|list| (seed, list)));
    let all: Vec<Job> = regressions.chain(new).collect();
    let workers = thread::available_parallelism().map_or(2, usize::from);
    let first_failure = &|worker: usize| {
        let mut share = all.iter().copied().enumerate().skip(worker).step_by(workers);
        share.find(|(_, (seed, list))| run(*seed, &events((*seed, *list))).is_err())
    };
    let failed = thread::scope(|scope| {
        let start = |worker| scope.spawn(move || first_failure(worker));
        let threads: Vec<_> = (0..workers).map(start).collect();
        let failed = threads.into_iter().filter_map(|thread| thread.join().unwrap());
        failed.min_by_key(|(place, _)| *place)
    });
    if let Some((_, job)) = failed {
        report(job, false);
    }
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|text| text.parse().expect("a number"))
}

fn events((seed, list): Job) -> Vec<Event> {
    // Not the generator of the world, so that a shorter list meets the same world.
    list(&mut Random::new(!seed))
}

/// Runs one world; a panic is a failure like any other.
fn run(seed: u64, events: &[Event]) -> check::Verdict {
    let outcome = catch_unwind(AssertUnwindSafe(|| world::run(seed, events)));
    outcome.unwrap_or_else(|_| Err("panic".into()))
}

/// Runs a seed and, if it fails, says how with the shortest list of events that still fails.
#[expect(clippy::print_stderr, reason = "the events of a run that was asked for by its seed")]
fn report(job: Job, is_verbose: bool) {
    let (seed, events) = (job.0, events(job));
    if is_verbose {
        eprintln!("{events:#?}");
    }
    if run(seed, &events).is_ok() {
        return;
    }
    let events = shortest(seed, events);
    let error = run(seed, &events).expect_err("a shortened list fails still");
    panic!("seed {seed}: {error}\n{events:#?}");
}

/// Leaves out ever smaller parts of the list for as long as the rest fails.
fn shortest(seed: u64, mut events: Vec<Event>) -> Vec<Event> {
    let mut part = events.len().div_ceil(2);
    loop {
        let mut start = 0;
        while start < events.len() {
            let mut fewer = events.clone();
            fewer.drain(start..(start + part).min(events.len()));
            match run(seed, &fewer) {
                Err(_) => events = fewer,
                Ok(()) => start += part,
            }
        }
        if part <= 1 {
            return events;
        }
        part = part.div_ceil(2);
    }
}
