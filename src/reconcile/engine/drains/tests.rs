//! Looks at drains wait for changes and audits, but not for ever.

use crate::cluster::Update;
use crate::testing::node::Node;
use crate::testing::objects::*;

/// Services, each with an endpoint that stays and one that is gone.
fn objects(number: usize) -> [Update; 2] {
    let (name, address) = (format!("default/service-{number}"), format!("10.96.0.{number}"));
    let endpoints = [endpoint("10.244.0.1"), endpoint("10.244.0.2")];
    [
        service(&name, &[&address], &["tcp 80"]).applied(),
        slice_applied(&name, &["tcp 8080"], &endpoints),
    ]
}

/// A node on which a real server of each of some Services drains, idle.
fn draining(services: usize) -> Node {
    let mut node = Node::new((1..=services).flat_map(objects));
    assert!(node.sync().is_complete());
    for number in 1..=services {
        let name = format!("default/service-{number}");
        node.tell([slice_applied(&name, &["tcp 8080"], &[endpoint("10.244.0.1")])]);
    }
    assert!(node.sync().is_complete());
    assert_eq!(node.engine.drains().len(), services);
    node
}

/// Something changes, as so often that nothing can wait for a pause; returns what drains still.
fn changed(node: &mut Node, pods: usize) -> usize {
    let endpoints: Vec<_> = (1..=pods).map(|pod| endpoint(&format!("10.244.1.{pod}"))).collect();
    node.tell([slice_applied("default/other", &["tcp 8080"], &endpoints)]);
    assert!(node.sync().is_complete());
    node.engine.drains().len()
}

#[test]
fn a_pause_is_taken_for_a_few() {
    let mut node = draining(6);
    node.wait(3);
    assert!(node.engine.next_sync() <= Some(node.now));
    node.sync();
    assert_eq!(node.engine.drains().len(), 2);
    node.sync();
    assert_eq!(node.engine.drains().len(), 2, "a change may follow that sync closely");
    node.pass(100);
    node.sync();
    assert_eq!(node.engine.drains().len(), 0);
}

#[test]
fn a_change_never_waits_for_what_is_merely_late() {
    let mut node = draining(3);
    node.tell([service("default/other", &["10.96.1.1"], &["tcp 80"]).applied()]);
    node.wait(8);
    assert_eq!(changed(&mut node, 1), 3);
    assert!(node.engine.next_sync() <= Some(node.now), "the gap after it is enough");
    node.sync();
    assert_eq!(node.engine.drains().len(), 2, "one by one, as another change is close");
    assert_eq!(changed(&mut node, 2), 2);
}

#[test]
fn changes_without_a_gap_do_not_put_looks_off_for_ever() {
    let mut node = draining(2);
    node.tell([service("default/other", &["10.96.1.1"], &["tcp 80"]).applied()]);
    node.wait(11);
    assert_eq!(changed(&mut node, 1), 2);
    node.wait(1);
    assert_eq!(changed(&mut node, 2), 1);
    assert_eq!(changed(&mut node, 3), 0);
}

#[test]
fn an_audit_is_not_disturbed_unless_it_is_long() {
    let mut node = Node::new(objects(1));
    node.sync();
    node.wait(3600);
    assert!(node.engine.begin_audit(node.now));
    node.tell([slice_applied("default/service-1", &["tcp 8080"], &[endpoint("10.244.0.1")])]);
    node.sync();
    node.wait(3);
    assert!(node.engine.next_sync() > Some(node.now));
    node.sync();
    assert_eq!(node.engine.drains().len(), 1);
    node.wait(4);
    node.sync();
    assert_eq!(node.engine.drains().len(), 0);
}
