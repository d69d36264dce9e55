//! What is told of what is programmed, and of what is not yet.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::cluster::{Endpoint, Parsed, Reason, Update};
use crate::config::{Periods, Policy};
use crate::model::ipset::{SetId, SetKey};
use crate::model::iptables::Version;
use crate::model::net::Family;
use crate::model::observed::Standing;
use crate::plan::slow;
use crate::plan::step::Step;
use crate::reconcile::pace::Audits;
use crate::reconcile::view::View;
use crate::status::{self, Bound};
use crate::testing::fake_kernel::{FakeKernel, Fault, Faults};
use crate::testing::node::Node;
use crate::testing::objects::*;

/// A Service with an endpoint on this node.
fn objects(number: usize) -> [Update; 2] {
    let (name, address) = (format!("default/service-{number}"), format!("10.96.1.{number}"));
    let endpoint = on_node(endpoint(&format!("10.244.0.{number}")));
    [
        service(&name, &[&address], &["tcp 80"]).applied(),
        slice_applied(&name, &["tcp 8080"], &[endpoint]),
    ]
}

#[test]
fn a_front_that_keeps_clients_outside_away_is_told_of() {
    let web = service("default/web", &["10.96.0.1"], &["tcp 80"]).external_ips(&["198.51.100.9"]);
    let nowhere = Endpoint { node: None, ..endpoint("10.244.9.9") };
    let mut node = Node::new([
        web.external_local().applied(),
        slice_applied("default/web", &["tcp 8080"], &[nowhere]),
    ]);
    node.sync();
    let notes = node.engine.view(None, node.now).notes();
    let nowhere = "; 1 endpoint names no node (nodeName), so it counts as on another";
    let expected = format!("{}{nowhere}", crate::desired::idle::ELSEWHERE);
    assert_eq!(notes, [(front("tcp 198.51.100.9:80"), expected)].into());
}

/// Cost: a Service may have thousands of endpoints, and the loop copies what it tells.
#[test]
fn slices_are_told_only_where_they_say_more_than_that_endpoints_are_elsewhere() {
    let web = |name: &str, cluster_ips: &[&str], external: &str| {
        let service = service(name, cluster_ips, &["tcp 80"]).external_ips(&[external]);
        service.external_local().applied()
    };
    let [one, both] = ["default/one", "default/both"];
    let away = || Endpoint { node: Some("node-2".into()), ..endpoint("10.244.9.9") };
    let slice = |name| slice_applied(name, &["tcp 8080"], &[away()]);
    let one = [web(one, &["10.96.0.1"], "198.51.100.1"), slice(one)];
    let both = [web(both, &["10.96.0.2", "fd00::2"], "198.51.100.2"), slice(both)];
    let mut node = Node::new(one);
    node.sync();
    let elsewhere = crate::desired::idle::ELSEWHERE.to_owned();
    let view = node.engine.view(None, node.now);
    let of_one = (front("tcp 198.51.100.1:80"), elsewhere.clone());
    assert_eq!((view.notes(), view.idle), ([of_one.clone()].into(), [].into()));
    node.tell(both);
    node.sync();
    let view = node.engine.view(None, node.now);
    let of_both = (front("tcp 198.51.100.2:80"), elsewhere);
    let idle = (front("tcp [fd00::2]:80"), "no IPv6 endpoint".to_owned());
    assert_eq!(view.notes(), [of_one, of_both, idle].into());
    assert!(view.idle.keys().eq([&name("default/both")]), "{:?}", view.idle);
}

/// All parts, put together.
fn whole(node: &Node) -> (usize, View) {
    let mut whole = View::default();
    for parts in 1.. {
        whole.append(node.engine.view(whole.rest, node.now));
        if whole.rest.is_none() {
            return (parts, whole);
        }
    }
    unreachable!("there is a last part")
}

/// Ports of one address are in two parts, and each part has an address of its own.
#[test]
fn an_address_that_is_not_bound_counts_once_in_however_many_parts_it_is() {
    let ports: Vec<String> = (1..=600).map(|port| format!("tcp {port}")).collect();
    let ports: Vec<&str> = ports.iter().map(String::as_str).collect();
    let mut node = Node::new([
        service("default/first", &["10.96.0.1"], &["tcp 80"]).applied(),
        service("default/middle", &["10.96.0.2"], &ports).applied(),
        service("default/last", &["10.96.0.3"], &["tcp 80"]).applied(),
    ]);
    node.kernel.faults = Faults::When(|step| matches!(step, Step::Addresses(_)), Fault::Refused);
    node.sync();
    let (parts, view) = whole(&node);
    assert_eq!((parts, view.fronts.len()), (2, 602));
    assert_eq!(view.unbound, ["10.96.0.1", "10.96.0.2", "10.96.0.3"].map(ip).into());
    let picture = view.picture(Vec::new());
    let mut fronts = picture.services.values().flatten();
    assert!(fronts.all(|front| front.bound == Bound::NotYet), "in the part of the front, too");
    let differences = status::differences(&picture, None).to_string();
    assert_eq!(differences, "3 addresses not bound yet");
    node.kernel.faults = Faults::None;
    node.wait(60);
    node.sync();
    let (parts, view) = whole(&node);
    assert_eq!((parts, view.unbound.len(), view.standing.addresses.len()), (2, 0, 3));
}

#[test]
fn what_all_services_rely_on_is_told_as_it_was_made() {
    let web = service("default/web", &["10.96.0.1"], &["tcp 80:30001"]);
    let mut kernel = FakeKernel::default();
    kernel.host.families.v6 = false;
    kernel.host.addresses = [ip("192.0.2.1")].into();
    kernel.host.iptables = "-nft".to_owned();
    let version = Some(Version { number: (1, 8, 9), is_nf_tables: true });
    kernel.host.iptables_version = version;
    let mut node = Node::on(kernel, [web.applied()]);
    let before = node.engine.view(None, node.now);
    assert_eq!((before.standing, before.lacks_foundation), (Standing::default(), true));
    node.sync();
    let View { standing, lacks_foundation, .. } = node.engine.view(None, node.now);
    assert!(standing.device && !lacks_foundation);
    assert_eq!(standing.addresses, [ip("10.96.0.1")].into(), "node ports are on the host's own");
    let set = |id| standing.sets.get(&SetKey { id, family: Family::V4 });
    assert_eq!((set(SetId::Servers), set(SetId::Pass)), (Some(&Some(2)), Some(&Some(0))));
    assert_eq!(standing.rulesets, node.kernel.tables.rulesets);
    let picture = node.engine.view(None, node.now).picture(Vec::new());
    assert_eq!((picture.iptables.as_str(), picture.iptables_version), ("-nft", version));
}

#[test]
fn the_moments_of_audits_are_told() {
    let mut node = Node::new(objects(1));
    let audits = |node: &Node, later| node.engine.view(None, node.now + later).audits;
    assert_eq!(audits(&node, Duration::ZERO), None);
    node.sync();
    let later = Duration::from_secs(7);
    let Audits { since, left } = audits(&node, later).expect("the first sync reads all");
    let at_once = audits(&node, Duration::ZERO).expect("audits");
    assert_eq!((since - at_once.since, at_once.left - left), (later, later));
}

#[test]
fn chains_that_we_may_have_deleted_are_not_told_as_there() {
    let mut node = Node::new(objects(1));
    node.sync();
    node.kernel.host.families.v6 = false;
    node.engine.note_host_changed(node.now);
    node.kernel.faults = Faults::When(|step| matches!(step, Step::Chains(_)), Fault::AnswerLost);
    node.sync();
    assert!(node.kernel.tables.rulesets.keys().eq([&Family::V4]));
    let families = |node: &Node| -> BTreeSet<Family> {
        let rulesets = node.engine.view(None, node.now).standing.rulesets;
        let chains = rulesets.iter().flat_map(|(family, rules)| rules.chains(*family));
        chains.map(|chain| chain.family).collect()
    };
    assert_eq!(families(&node), [Family::V4].into());
    node.kernel.faults = Faults::None;
    node.kernel.host.families.v6 = true;
    node.engine.note_host_changed(node.now);
    node.sync();
    assert_eq!(families(&node), Family::ALL.into(), "they were made anew");
}

#[test]
fn a_real_server_whose_making_got_no_answer_is_awaited() {
    let mut node = Node::new(objects(1));
    node.kernel.faults = Faults::When(|step| matches!(step, Step::Reals(_)), Fault::AnswerLost);
    let told = |node: &Node| {
        let mut picture = node.engine.view(None, node.now).picture(Vec::new());
        let front = picture.services.remove("default/service-1").unwrap().remove(0);
        (front.reals.unwrap().len(), front.awaited)
    };
    node.sync();
    assert_eq!(told(&node), (0, ["10.244.0.1:8080".parse().unwrap()].into()));
    node.kernel.faults = Faults::None;
    node.sync();
    assert_eq!(told(&node), (1, [].into()));
}

#[test]
fn an_address_that_could_not_be_bound_is_told_and_counts() {
    let mut node = Node::new(objects(1));
    let told = |node: &Node| {
        let picture = node.engine.view(None, node.now).picture(Vec::new());
        let bound = picture.services["default/service-1"][0].bound;
        (bound, status::differences(&picture, None).to_string())
    };
    node.kernel.faults = Faults::When(|step| matches!(step, Step::Addresses(_)), Fault::Refused);
    node.sync();
    assert_eq!(told(&node), (Bound::NotYet, "1 address not bound yet".to_owned()));
    node.kernel.faults = Faults::None;
    node.wait(60);
    node.sync();
    assert_eq!(told(&node), (Bound::Yes, String::new()));
    node.kernel.host.addresses = [ip("10.96.1.1")].into();
    node.engine.note_host_changed(node.now);
    node.sync();
    assert_eq!(told(&node), (Bound::No, String::new()), "the host has it itself");
}

#[test]
fn a_scheduling_that_could_not_be_made_counts() {
    let mut node = Node::new(objects(1));
    node.sync();
    node.kernel.faults = Faults::When(|step| matches!(step, Step::Servers(_)), Fault::Refused);
    let web = service("default/service-1", &["10.96.1.1"], &["tcp 80"]).affinity(600);
    node.tell([web.applied()]);
    node.sync();
    let picture = node.engine.view(None, node.now).picture(Vec::new());
    let differences = status::differences(&picture, None).to_string();
    assert_eq!(differences, "scheduling of 1 virtual server not changed yet");
}

/// Each sync changes a few of them, and the next follows at once.
#[test]
fn schedulings_that_wait_for_their_turn_count_until_it_is_theirs() {
    let number = 2 * slow::MOST_SERVERS + 1;
    let mut node = Node::new((1..=number).flat_map(objects));
    node.sync();
    let hour = Duration::from_secs(3600);
    let periods = Periods { sync: hour, min_sync: Duration::ZERO, audit: hour };
    node.engine.reconfigure(Policy { scheduler: "sh".into(), ..policy() }, periods, node.now);
    let told: Vec<String> = (0..3)
        .map(|_| {
            node.sync();
            let picture = node.engine.view(None, node.now).picture(Vec::new());
            status::differences(&picture, None).to_string()
        })
        .collect();
    let left = slow::MOST_SERVERS + 1;
    let expected = [
        format!("scheduling of {left} virtual servers not changed yet"),
        "scheduling of 1 virtual server not changed yet".to_owned(),
        String::new(),
    ];
    assert_eq!(told, expected);
}

#[test]
fn what_cannot_be_used_is_told_soon_though_no_row_changes() {
    let mut node = Node::new(objects(1));
    node.sync();
    node.wait(5);
    let fine = service("default/service-1", &["10.96.1.1"], &["tcp 80"]);
    for reasons in [&["spec.type: odd"][..], &[]] {
        let reasons: Vec<_> = reasons.iter().map(|it| Reason::Rejected((*it).into())).collect();
        let Update::Applied(kind, name, parsed) = fine.clone().applied() else { unreachable!() };
        node.tell([Update::Applied(kind, name, Parsed { reasons: reasons.clone(), ..parsed })]);
        assert_eq!(node.engine.next_sync(), Some(node.now));
        assert_eq!(node.changes(), "");
        assert_eq!(node.engine.rejected().len(), reasons.len());
    }
}
