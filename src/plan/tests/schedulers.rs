//! A change of the scheduler, and the refusals that are held back meanwhile.

use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::config::{Policy, VipBinding};
use crate::status::Scheduling;

fn spread_by(scheduler: &str) -> Update {
    let service = service("default/web", &["10.96.0.1"], &["tcp 80"]);
    service.scheduling(Some(scheduler), &[]).applied()
}

fn is_hold(entry: &Entry) -> bool {
    entry.set == SetId::Hold
}

#[test]
fn refusals_are_held_back_while_the_scheduler_changes() {
    let mut node = serving();
    node.tell([spread_by("lc")]);
    check(
        node.changes(),
        "entries   + KUBE-IPVS-HOLD 10.96.0.1
         servers   ~ tcp 10.96.0.1:80  rr to lc
         entries   - KUBE-IPVS-HOLD 10.96.0.1",
    );
    check(node.changes(), "");
}

/// Kernel: no device has the address, so the host refuses in its own name.
#[test]
fn refusals_in_the_name_of_the_host_are_held_back_where_a_route_leads_to_an_ipv6_address() {
    let mut kernel = FakeKernel::default();
    kernel.host.addresses = ["192.0.2.1", "fd00:9::1", "fd00:9::2"].map(ip).into();
    let policy = Policy { vip_binding: VipBinding::Route, ..policy() };
    let spread_by = |scheduler| {
        let service = service("default/web", &["10.96.0.1", "fd00::1"], &["tcp 80"]);
        service.scheduling(Some(scheduler), &[]).applied()
    };
    let mut node = Node::with(policy, kernel, [spread_by("rr")]);
    node.sync();
    node.tell([spread_by("lc")]);
    let changes = node.changes();
    let held: BTreeSet<&str> =
        changes.lines().filter_map(|line| line.split_once("HOLD ")).map(|(_, held)| held).collect();
    assert_eq!(held, ["10.96.0.1", "fd00::1", "fd00:9::1", "fd00:9::2"].into(), "{changes}");
    assert_eq!(changes.matches("+ KUBE-").count(), 4, "{changes}");
    assert_eq!(changes.matches("- KUBE-").count(), 4, "{changes}");
}

#[test]
fn the_scheduler_stays_where_refusals_cannot_be_held_back() {
    let mut node = serving();
    node.tell([spread_by("lc")]);
    let is_hold = |step: &Step| step.to_string().contains("KUBE-IPVS-HOLD 10");
    node.kernel.faults = Faults::When(is_hold, Fault::Refused);
    assert!(!node.sync().is_complete());
    let server = front("tcp 10.96.0.1:80");
    assert_eq!(&*node.kernel.tables.servers[&server].config.scheduler, "rr");
    node.kernel.faults = Faults::None;
    node.wait(60);
    assert!(node.sync().is_complete());
    assert_eq!(&*node.kernel.tables.servers[&server].config.scheduler, "lc");
}

/// What is told of it is what is made, and next to it what waits for its turn.
#[test]
fn a_scheduler_that_waits_for_its_turn_is_told_as_wanted_and_not_made() {
    let services = |scheduler| {
        (1..=10).map(move |n| {
            let service =
                service(&format!("default/s{n}"), &[&format!("10.96.1.{n}")], &["tcp 80"]);
            service.scheduling(Some(scheduler), &[]).applied()
        })
    };
    let mut node = Node::new(services("rr"));
    node.sync();
    let told = |node: &Node| {
        let picture = node.engine.view(None, node.now).picture(Vec::new());
        let schedulers = picture.services.values().flatten().map(|front| {
            let name = |scheduling: &Option<Scheduling>| scheduling.clone().map(|s| s.scheduler);
            (name(&front.scheduling).unwrap(), name(&front.pending))
        });
        schedulers.fold(BTreeMap::new(), |mut counts, schedulers| {
            *counts.entry(schedulers).or_insert(0) += 1;
            counts
        })
    };
    let [rr, lc] = ["rr", "lc"].map(str::to_owned);
    assert_eq!(told(&node), [((rr.clone(), None), 10)].into());
    node.tell(services("lc"));
    node.sync();
    assert_eq!(told(&node), [((lc.clone(), None), 8), ((rr, Some(lc.clone())), 2)].into());
    node.sync();
    assert_eq!(told(&node), [((lc, None), 10)].into());
}

#[test]
fn what_a_killed_change_holds_back_is_released_by_the_next_start() {
    let mut node = serving();
    node.tell([spread_by("lc")]);
    node.kernel.dies_after = Some(2);
    node.sync();
    assert!(node.kernel.tables.entries.iter().any(|entry| is_hold(&entry)));
    node.kernel.dies_after = None;
    node.restart([spread_by("lc"), two_pods()]);
    check(node.changes(), "entries   - KUBE-IPVS-HOLD 10.96.0.1");
}

#[test]
fn what_could_not_be_released_is_by_the_next_sync() {
    let mut node = serving();
    node.tell([spread_by("lc")]);
    let is_release = |step: &Step| step.to_string().contains("- KUBE-IPVS-HOLD");
    node.kernel.faults = Faults::When(is_release, Fault::Refused);
    node.sync();
    node.kernel.faults = Faults::None;
    node.tell([one_pod()]);
    let changes = node.changes();
    assert!(changes.ends_with("entries   - KUBE-IPVS-HOLD 10.96.0.1\n"), "{changes}");
    assert!(!node.kernel.tables.entries.iter().any(|entry| is_hold(&entry)));
}
