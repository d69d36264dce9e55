//! The traffic truth table: who reaches a Service by which address, and whom the pod sees.
//!
//! [`expect`] is the table; [`world`] has the nodes, pods and Services that it speaks of.

mod expect;
mod world;

use expect::{CLUSTER, LOCAL_WITH_ENDPOINT, LOCAL_WITHOUT_ENDPOINT, Policy, Row};
use libtest_mimic::Trial;
use world::TwoNodes;

use crate::outcome;

pub fn tests() -> Vec<Trial> {
    let mut trials = crate::trials![
        truth_of_the_cluster_policy,
        truth_of_the_local_policy_with_an_endpoint,
        truth_of_the_local_policy_without_one,
    ];
    trials.extend(crate::trials_by_route![
        truth_of_the_cluster_policy,
        truth_of_the_local_policy_with_an_endpoint,
        truth_of_the_local_policy_without_one,
    ]);
    trials
}

fn truth_of_the_cluster_policy() {
    check(Policy::Cluster, &CLUSTER);
}

fn truth_of_the_local_policy_with_an_endpoint() {
    check(Policy::Local, &LOCAL_WITH_ENDPOINT);
}

fn truth_of_the_local_policy_without_one() {
    check(Policy::Local, &LOCAL_WITHOUT_ENDPOINT);
}

fn check(policy: Policy, table: &[Row]) {
    let nodes = TwoNodes::start();
    outcome::assert_all(table.iter().flat_map(|row| nodes.probes(policy, row)).collect());
}
