//! Sets that outgrow their capacity (W-09).

use super::*;
use crate::model::ipset::SetSpec;
use crate::model::net::Protocol;
use crate::model::tables::Tables;
use crate::plan::mirror::Mirror;
use crate::plan::{capacity, sets};

const LOOP_BACK: SetKey = SetKey { id: SetId::LoopBack, family: Family::V4 };

/// A slice with so many endpoints on this node, each of which may reach itself.
fn crowd(count: u8) -> Update {
    let pods = (1..=count).map(|number| on_node(endpoint(&format!("10.244.0.{number}"))));
    slice_of_web(&pods.collect::<Vec<_>>())
}

/// A node whose set for them has room for four.
fn cramped() -> Node {
    let mut kernel = FakeKernel::default();
    kernel.host.families.v6 = false;
    let spec = SetSpec { maxelem: Some(4), ..SetId::LoopBack.spec() };
    kernel.tables.sets.insert(LOOP_BACK, spec);
    Node::on(kernel, [web(), crowd(4)])
}

#[test]
fn a_set_grows_before_it_is_full_and_never_shrinks() {
    let mut node = cramped();
    assert!(node.sync().is_complete());
    assert_eq!(node.kernel.tables.sets[&LOOP_BACK].maxelem, Some(4), "it fits");

    node.tell([crowd(5)]);
    check(
        node.changes(),
        "sets      ~ KUBE-LOOP-BACK  hash:ip,port,ip of 4 to hash:ip,port,ip of 8
         entries   + KUBE-LOOP-BACK 10.244.0.5,tcp:8080,10.244.0.5
         reals     + tcp 10.96.0.1:80 > 10.244.0.5:8080  weight 1",
    );
    node.tell([crowd(1)]);
    node.sync();
    node.wait(3600);
    let report = node.sync();
    assert!(report.is_audit && report.is_complete(), "{report}");
    assert_eq!(node.kernel.tables.sets[&LOOP_BACK].maxelem, Some(8));
}

/// What comes is added before what goes is removed, so both must fit at the same time.
#[test]
fn a_set_has_room_for_what_comes_next_to_what_goes() {
    let mut node = cramped();
    node.sync();
    let others = (5..=8).map(|number| on_node(endpoint(&format!("10.244.0.{number}"))));
    node.tell([slice_of_web(&others.collect::<Vec<_>>())]);
    assert!(node.sync().is_complete());
    assert_eq!(node.kernel.tables.sets[&LOOP_BACK].maxelem, Some(8));
}

#[test]
fn a_set_that_cannot_grow_costs_what_does_not_fit() {
    let mut node = cramped();
    node.sync();
    node.kernel.faults = Faults::When(|step| matches!(step, Step::Sets(_)), Fault::Refused);
    node.tell([crowd(6)]);
    assert_eq!(node.sync().failed.len(), 3, "the set and two entries");
    let held = node.kernel.tables.entries.iter().filter(|entry| entry.key() == LOOP_BACK).count();
    assert_eq!(held, 4);
    node.kernel.faults = Faults::None;
    node.wait(1);
    assert!(node.sync().is_complete());
}

#[test]
fn a_set_is_made_with_room_for_all() {
    let room = |count: usize| capacity(count);
    assert_eq!([1, 65_536, 65_537].map(room), [1, 65_536, 131_072]);
    let mut wanted = Tables::default();
    wanted.sets.insert(LOOP_BACK, SetSpec { maxelem: Some(2), ..SetId::LoopBack.spec() });
    let entries: Vec<Entry> = (1..=5)
        .map(|port| {
            let address = ip("10.244.0.1");
            let member = Member::IpPortIp(address, Protocol::Tcp, port, address);
            Entry { set: SetId::LoopBack, member }
        })
        .collect();
    let step = sets(&wanted, &Mirror::default(), entries.iter(), true);
    let Step::Sets(changes) = step else { panic!("{step}") };
    assert_eq!(changes[0].to.and_then(|spec| spec.maxelem), Some(8));
}
