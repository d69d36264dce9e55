//! What the engine reads of the host, and when.

use crate::model::observed::Host;
use crate::testing::fake_kernel::{FAULTS, Faults};
use crate::testing::node::Node;
use crate::testing::objects;
use crate::testing::random::Random;

const ACCEPT_RA: &str = "net/ipv6/conf/eth9/accept_ra";

fn synced() -> Node {
    let mut node = Node::new([objects::service("ns/web", &["10.96.0.1"], &["tcp 80"]).applied()]);
    assert!(node.sync().is_audit);
    node
}

/// Another interface with an address appears.
fn change(host: &mut Host) {
    host.addresses.insert([192, 0, 2, 9].into());
    host.router_advertised.insert("eth9".to_owned());
}

#[test]
fn a_changed_host_is_read_again_without_an_audit() {
    let mut node = synced();
    change(&mut node.kernel.host);
    node.wait(1);
    let before = node.kernel.observations;
    node.sync();
    assert_eq!(node.kernel.observations, before, "nobody said that the host has changed");

    node.engine.note_host_changed(node.now);
    assert_eq!(node.engine.next_sync(), Some(node.now));
    let report = node.sync();
    assert!(report.is_complete() && !report.is_audit);
    assert_eq!(node.kernel.observations, before + 1);
    assert_eq!(node.kernel.tables.settings.get(ACCEPT_RA).map(String::as_str), Some("2"));
    assert_eq!(node.engine.host, node.kernel.host);

    node.wait(1);
    node.sync();
    assert_eq!(node.kernel.observations, before + 1, "once is enough");
}

/// W-13: what cannot be read is not taken for gone.
#[test]
fn a_host_that_cannot_be_read_stays_as_it_was_known() {
    let mut node = synced();
    let (known, tables) = (node.engine.host.clone(), node.kernel.tables.clone());
    change(&mut node.kernel.host);
    node.kernel.faults = Faults::Random { random: Random::new(1), one_in: 1, kinds: &FAULTS };
    node.engine.note_host_changed(node.now);
    let report = node.sync();
    assert!(!report.is_complete());
    assert_eq!((&node.engine.host, &node.kernel.tables), (&known, &tables));

    node.kernel.faults = Faults::None;
    node.wait(60);
    assert!(node.sync().is_audit);
    assert_eq!(node.engine.host, node.kernel.host);
}
