//! What updates touch, and what a list leaves behind.

use super::*;
use crate::cluster::objects;

fn name(text: &str) -> ObjectName {
    match text.split_once('/') {
        Some((namespace, name)) => ObjectName::new(namespace, name),
        None => ObjectName::new("", text),
    }
}

/// An update that applies the object of a kind given as JSON.
fn applied(kind: Kind, json: &str) -> Update {
    let read = objects::read(kind, json).unwrap();
    Update::Applied(kind, read.name, read.parsed)
}

fn service(name: &str, port: u16, extra: &str) -> Update {
    let json = format!(
        r#"{{"metadata":{{"name":"{name}","annotations":{{"x":"{extra}"}}}},
            "spec":{{"clusterIP":"10.0.0.1","ports":[{{"port":{port}}}]}}}}"#
    );
    applied(Kind::Service, &json)
}

fn slice(name: &str, service: &str, address: &str) -> Update {
    let json = format!(
        r#"{{"metadata":{{"name":"{name}","labels":{{"kubernetes.io/service-name":"{service}"}}}},
            "addressType":"IPv4","ports":[{{"port":80}}],
            "endpoints":[{{"addresses":["{address}"],"nodeName":"n"}}]}}"#
    );
    applied(Kind::EndpointSlice, &json)
}

fn endpoints(name: &str, addresses: &[&str]) -> Update {
    let subset = |address: &&str| {
        format!(r#"{{"addresses":[{{"ip":"{address}"}}],"ports":[{{"port":80}}]}}"#)
    };
    let subsets: Vec<_> = addresses.iter().map(subset).collect();
    let json = format!(r#"{{"metadata":{{"name":"{name}"}},"subsets":[{}]}}"#, subsets.join(","));
    applied(Kind::Endpoints, &json)
}

fn touched(store: &mut Store, update: Update) -> Vec<String> {
    store.apply(update).services.iter().map(ToString::to_string).collect()
}

fn addresses(store: &Store, service: &str) -> Vec<String> {
    let slices = store.endpoints_of(&name(service));
    slices.flat_map(|slice| &slice.endpoints).map(|one| one.address.to_string()).collect()
}

const NOTHING: [&str; 0] = [];

#[test]
fn a_change_touches_its_service_and_an_equal_update_nothing() {
    let mut store = Store::new(&Kind::ALL);
    assert_eq!(touched(&mut store, service("web", 80, "")), ["default/web"]);
    assert_eq!(touched(&mut store, service("web", 80, "")), NOTHING);
    assert_eq!(touched(&mut store, service("web", 80, "another annotation")), NOTHING);
    assert_eq!(touched(&mut store, service("web", 81, "")), ["default/web"]);
    let gone = Update::Deleted(Kind::Service, name("default/web"));
    assert_eq!(touched(&mut store, gone.clone()), ["default/web"]);
    assert_eq!(touched(&mut store, gone), NOTHING);
    assert_eq!(store.service(&name("default/web")), None);
}

/// Spec 13.9: Services come and go, and one becomes a load balancer and back.
#[test]
fn becoming_a_load_balancer_and_back_touches_once_each() {
    let of_type = |kind: &str, more: &str| {
        let json = format!(
            r#"{{"metadata":{{"name":"web"}},"spec":{{"clusterIP":"10.0.0.1","type":"{kind}",
                "externalTrafficPolicy":"Local","ports":[{{"port":80}},{{"port":81}}]{more}}}}}"#
        );
        applied(Kind::Service, &json)
    };
    let balancer = of_type("LoadBalancer", r#","healthCheckNodePort":345"#);
    let plain = of_type("ClusterIP", "");
    let mut store = Store::new(&Kind::ALL);
    for (update, expected, health_check_port) in [
        (plain.clone(), vec!["default/web"], None),
        (balancer.clone(), vec!["default/web"], Some(345)),
        (balancer, vec![], Some(345)),
        (plain, vec!["default/web"], None),
    ] {
        assert_eq!(touched(&mut store, update), expected);
        let service = store.service(&name("default/web")).unwrap();
        assert_eq!((service.ports.len(), service.health_check_port), (2, health_check_port));
    }
}

#[test]
fn endpoints_touch_the_service_they_belong_to() {
    let mut store = Store::new(&Kind::ALL);
    assert_eq!(touched(&mut store, slice("a", "web", "10.1.0.1")), ["default/web"]);
    assert_eq!(touched(&mut store, slice("b", "web", "10.1.0.2")), ["default/web"]);
    assert_eq!(addresses(&store, "default/web"), ["10.1.0.1", "10.1.0.2"]);
    // A slice that changes hands touches both.
    let moved = slice("a", "api", "10.1.0.1");
    assert_eq!(touched(&mut store, moved), ["default/api", "default/web"]);
    assert_eq!(addresses(&store, "default/web"), ["10.1.0.2"]);
    assert_eq!(addresses(&store, "default/api"), ["10.1.0.1"]);
    let gone = Update::Deleted(Kind::EndpointSlice, name("default/a"));
    assert_eq!(touched(&mut store, gone), ["default/api"]);
    assert_eq!(addresses(&store, "default/api"), NOTHING);
    assert!(!store.holders.contains_key(&name("default/api")));
}

#[test]
fn subsets_that_vanish_go_with_their_object() {
    let mut store = Store::new(&Kind::ALL);
    assert_eq!(touched(&mut store, endpoints("web", &["10.1.0.1", "10.1.0.2"])), ["default/web"]);
    assert_eq!(addresses(&store, "default/web"), ["10.1.0.1", "10.1.0.2"]);
    assert_eq!(touched(&mut store, endpoints("web", &["10.1.0.2"])), ["default/web"]);
    assert_eq!(addresses(&store, "default/web"), ["10.1.0.2"]);
    assert_eq!(touched(&mut store, endpoints("web", &[])), ["default/web"]);
    assert_eq!(touched(&mut store, endpoints("web", &[])), NOTHING);
}

#[test]
fn a_slice_and_endpoints_of_one_name_live_side_by_side() {
    let mut store = Store::new(&Kind::ALL);
    store.apply(slice("web", "web", "10.1.0.1"));
    store.apply(endpoints("web", &["10.1.0.2"]));
    assert_eq!(addresses(&store, "default/web"), ["10.1.0.1"]);
    store.apply(Update::Deleted(Kind::EndpointSlice, name("default/web")));
    assert_eq!(addresses(&store, "default/web"), ["10.1.0.2"]);
}

#[test]
fn a_list_removes_what_it_does_not_name_only_when_done() {
    let mut store = Store::new(&Kind::ALL);
    for update in [service("a", 80, ""), service("b", 80, ""), service("c", 80, "")] {
        store.apply(update);
    }
    store.apply(slice("a-1", "a", "10.1.0.1"));
    assert_eq!(touched(&mut store, Update::ListStarted(Kind::Service)), NOTHING);
    assert_eq!(touched(&mut store, service("a", 80, "")), NOTHING);
    assert_eq!(touched(&mut store, service("b", 81, "")), ["default/b"]);
    assert_eq!(store.services().count(), 3);
    assert_eq!(touched(&mut store, Update::ListDone(Kind::Service)), ["default/c"]);
    assert_eq!(store.services().count(), 2);
    // The other kinds are not concerned.
    assert_eq!(addresses(&store, "default/a"), ["10.1.0.1"]);
}

#[test]
fn a_list_that_starts_over_forgets_what_the_broken_one_named() {
    let mut store = Store::new(&Kind::ALL);
    store.apply(service("a", 80, ""));
    store.apply(Update::ListStarted(Kind::Service));
    store.apply(service("a", 80, ""));
    store.apply(service("b", 80, ""));
    store.apply(Update::ListStarted(Kind::Service));
    store.apply(service("b", 80, ""));
    assert_eq!(touched(&mut store, Update::ListDone(Kind::Service)), ["default/a"]);
}

#[test]
fn an_object_deleted_while_a_list_runs_stays_deleted() {
    let mut store = Store::new(&Kind::ALL);
    store.apply(service("a", 80, ""));
    store.apply(Update::ListStarted(Kind::Service));
    store.apply(service("a", 80, ""));
    store.apply(Update::Deleted(Kind::Service, name("default/a")));
    assert_eq!(touched(&mut store, Update::ListDone(Kind::Service)), NOTHING);
    assert_eq!(store.services().count(), 0);
}

#[test]
fn complete_means_every_required_kind_was_listed_once() {
    let mut store = Store::new(&[Kind::Service, Kind::Node]);
    for (update, is_complete) in [
        (Update::ListStarted(Kind::Service), false),
        (Update::ListDone(Kind::EndpointSlice), false),
        (Update::ListDone(Kind::Service), false),
        (Update::ListDone(Kind::Node), true),
        (Update::ListStarted(Kind::Service), true),
    ] {
        store.apply(update.clone());
        assert_eq!(store.is_complete(), is_complete, "{update:?}");
    }
    assert_eq!(store.awaited().count(), 0);
}

#[test]
fn nodes_and_ranges_are_told_apart() {
    let mut store = Store::new(&Kind::ALL);
    let node = applied(Kind::Node, r#"{"metadata":{"name":"n"}}"#);
    assert_eq!(store.apply(node), Touched { nodes: true, ..Touched::default() });
    assert!(store.node("n").is_some() && store.node("m").is_none());
    let ranges =
        applied(Kind::ServiceCidr, r#"{"metadata":{"name":"k"},"spec":{"cidrs":["10.0.0.0/8"]}}"#);
    assert_eq!(store.apply(ranges), Touched { service_cidrs: true, ..Touched::default() });
    assert_eq!(store.service_cidrs().map(ToString::to_string).collect::<Vec<_>>(), ["10.0.0.0/8"]);
}

#[test]
fn reasons_are_kept_until_they_change() {
    let mut store = Store::new(&Kind::ALL);
    let bad = || applied(Kind::Service, r#"{"metadata":{"name":"a"},"spec":{"clusterIP":"x"}}"#);
    let concerned = BTreeSet::from([(Kind::Service, name("default/a"))]);
    assert_eq!(store.apply(bad()), Touched { rejected: concerned.clone(), ..Touched::default() });
    assert!(store.apply(bad()).is_empty());
    let reasons: Vec<_> = store.unusable().map(|(_, _, reasons)| reasons.to_vec()).collect();
    let reason = Reason::Rejected("spec.clusterIP: \"x\" is not an IP address".to_owned());
    assert_eq!(reasons, [[reason]]);
    // Rejected objects take part in lists like all others.
    store.apply(Update::ListStarted(Kind::Service));
    assert_eq!(store.apply(Update::ListDone(Kind::Service)).rejected, concerned);
    assert_eq!(store.unusable().count(), 0);
}

#[test]
fn repeated_names_are_shared() {
    let mut store = Store::new(&Kind::ALL);
    store.apply(slice("a", "web", "10.1.0.1"));
    store.apply(slice("b", "web", "10.1.0.2"));
    let nodes: Vec<_> = store
        .endpoints_of(&name("default/web"))
        .filter_map(|slice| slice.endpoints[0].node.as_ref())
        .collect();
    assert!(std::sync::Arc::ptr_eq(nodes[0], nodes[1]));
}

#[test]
fn a_list_that_could_not_be_read_whole_says_so_and_removes_what_was_known() {
    let mut store = Store::new(&[Kind::Service]);
    store.apply(service("a", 80, ""));
    store.apply(Update::ListStarted(Kind::Service));
    assert_eq!(touched(&mut store, Update::ListIncomplete(Kind::Service)), ["default/a"]);
    assert!(store.is_complete() && store.is_partial());
    store.apply(Update::ListStarted(Kind::Service));
    assert!(store.apply(Update::ListDone(Kind::Service)).is_empty());
    assert!(!store.is_partial());
}

#[test]
fn endpoints_count_only_for_a_service_without_slices() {
    let mut store = Store::new(&Kind::ALL);
    let hinted = r#"{"metadata":{"name":"web-1","labels":{"kubernetes.io/service-name":"web"}},
        "addressType":"IPv4","ports":[{"port":80}],"endpoints":[
        {"addresses":["10.1.0.1"],"hints":{"forZones":[{"name":"a"}]}}]}"#;
    store.apply(endpoints("web", &["10.1.0.1"]));
    let hints = |store: &Store| -> Vec<bool> {
        let slices = store.endpoints_of(&name("default/web"));
        slices.flat_map(|slice| &slice.endpoints).map(|one| !one.zone_hints().is_empty()).collect()
    };
    assert_eq!(hints(&store), [false]);
    assert_eq!(touched(&mut store, applied(Kind::EndpointSlice, hinted)), ["default/web"]);
    assert_eq!(hints(&store), [true], "the slice says more");
    store.apply(Update::Deleted(Kind::EndpointSlice, name("default/web-1")));
    assert_eq!(hints(&store), [false]);
}
