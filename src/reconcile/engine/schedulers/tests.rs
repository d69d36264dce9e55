//! What a scheduler costs that the kernel lacks, and when it is asked for.

use crate::cluster::Update;
use crate::model::ipset::SetId;
use crate::testing::node::Node;
use crate::testing::objects::*;

fn scheduler(node: &Node, key: &str) -> String {
    node.kernel.tables.servers[&front(key)].config.scheduler.to_string()
}

/// Services: one that asks for nothing, one that asks for a scheduler of its own.
fn plain_and_picky() -> [Update; 3] {
    let picky = service("default/picky", &["10.96.0.2"], &["tcp 80"]);
    [
        service("default/plain", &["10.96.0.1"], &["tcp 80"]).applied(),
        picky.scheduling(Some("sed"), &[]).applied(),
        slice_applied("default/picky", &["tcp 8080"], &[endpoint("10.244.1.1")]),
    ]
}

#[test]
fn a_scheduler_that_is_missing_costs_only_its_service_and_is_asked_for_anew() {
    let mut node = Node::new(plain_and_picky());
    node.kernel.lacking = ["sed"].into();
    let report = node.sync();
    assert_eq!(report.failed, []);
    assert_eq!(scheduler(&node, "tcp 10.96.0.2:80"), "rr");
    let told = "the kernel has no scheduler sed, rr is used: load ip_vs_sed: modprobe ip_vs_sed";
    let reasons = |node: &Node| -> Vec<String> {
        node.engine.rejected().into_iter().map(|rejected| rejected.reason).collect()
    };
    assert_eq!(reasons(&node), [told]);
    assert!(node.kernel.tables.lists(SetId::Pass, &front("tcp 10.96.0.2:80")), "it is served");
    let writes = node.kernel.writes;

    node.wait(3600);
    let report = node.sync();
    assert!(report.is_audit && report.is_complete(), "{report}");
    assert_eq!((report.changes(), reasons(&node)), (0, vec![told.to_owned()]));
    assert_eq!(node.kernel.writes, writes, "it is asked for without touching a row");
    node.kernel.lacking.clear();
    node.wait(3600);
    assert!(node.sync().is_complete());
    assert_eq!(scheduler(&node, "tcp 10.96.0.2:80"), "sed");
    assert_eq!(reasons(&node), [""; 0]);
}

#[test]
fn the_default_scheduler_has_nothing_in_its_place() {
    let mut node = Node::new(plain_and_picky());
    node.kernel.lacking = ["rr"].into();
    let report = node.sync();
    assert_eq!(report.failed.len(), 1, "{report}");
    assert!(report.failed[0].error.contains("modprobe ip_vs_rr"), "{report}");
    assert_eq!(scheduler(&node, "tcp 10.96.0.2:80"), "sed");
}

#[test]
fn a_missing_scheduler_that_no_service_names_any_more_is_not_asked_for() {
    let mut node = Node::new(plain_and_picky());
    node.kernel.lacking = ["sed"].into();
    node.sync();
    node.tell([service("default/picky", &["10.96.0.2"], &["tcp 80"]).applied()]);
    node.wait(3600);
    for asked in [2, 1] {
        let observations = node.kernel.observations;
        assert!(node.sync().is_audit);
        assert_eq!(node.kernel.observations, observations + asked);
        node.wait(3600);
    }
}

/// An audit that is read beside the work, part by part, is an occasion to ask, too.
#[test]
fn a_missing_scheduler_is_asked_for_after_an_audit_beside_the_work() {
    let mut node = Node::new(plain_and_picky());
    node.kernel.lacking = ["sed"].into();
    node.sync();
    node.kernel.lacking.clear();
    node.wait(3600);
    assert!(node.engine.begin_audit(node.now));
    node.engine.end_audit(Ok(()), node.now);
    assert!(node.sync().is_complete());
    assert_eq!(scheduler(&node, "tcp 10.96.0.2:80"), "sed");
}
