//! Which words about slices are changes, and what a sync makes of them.

use std::time::Duration;

use kube_ipvs_proxy::cluster::endpoints::merged;
use kube_ipvs_proxy::cluster::store::{Store, Touched, Trigger};
use kube_ipvs_proxy::cluster::{Endpoint, Kind, Parsed, Update, objects as api};
use kube_ipvs_proxy::model::net::Family;
use kube_ipvs_proxy::reconcile::report::Report;
use kube_ipvs_proxy::telemetry::metrics::Metrics;
use kube_ipvs_proxy::testing::objects::{name, service, slice_applied};
use serde_json::json;

use super::case::{Case, case, table};
use super::state::{endpoints, programmed, servers, slice_deleted, slice_named};

pub fn cases() -> Vec<Case> {
    let mut cases = table("TestEsDataChanged", data_changes(), check_data_change);
    cases.extend(table("TestEndpointSliceUpdate", updates(), check_update));
    cases.extend([
        case("TestEndpointSliceUpdate/fqdn", fqdn),
        case("TestEndpointSliceUpdate/removed", removed),
        case("TestEndpointSliceUpdate/unknown-removed", unknown_removed),
        case("TestLastChangeTriggerTime", trigger_times),
        case("TestCheckoutChanges/none", no_changes),
        case("TestCheckoutChanges/first-slice", first_slice),
        case("TestCheckoutChanges/port-removed", port_removed),
    ]);
    cases
}

/// Ports and endpoints of a slice, those after an update, and whether that is a change.
type DataChange = ([&'static [&'static str]; 2], [&'static str; 2], bool);

fn data_changes() -> Vec<(&'static str, DataChange)> {
    const A: &str = "a tcp 80";
    const B: &str = "b tcp 443";
    const ONE: &str = "10.0.0.1";
    const TWO: &str = "10.0.0.1, 10.0.0.2";
    vec![
        ("same-ports", ([&[A, B], &[A, B]], [ONE, ONE], false)),
        ("same-endpoints", ([&[A], &[A]], [TWO, TWO], false)),
        ("ports-reordered", ([&[A, B], &[B, A]], [ONE, ONE], true)),
        ("endpoints-reordered", ([&[A], &[A]], [TWO, "10.0.0.2, 10.0.0.1"], true)),
        ("port-added", ([&[A], &[A, B]], [ONE, ONE], true)),
        ("port-removed", ([&[A, B], &[A]], [ONE, ONE], true)),
        ("endpoint-added", ([&[A], &[A]], [ONE, TWO], true)),
    ]
}

fn check_data_change((ports, shown, expected): DataChange) {
    let mut store = Store::new(&[]);
    let [before, after] = [0, 1].map(|i| slice_applied("ns/svc", ports[i], &endpoints(shown[i])));
    store.apply(before);
    assert_eq!(!store.apply(after).is_empty(), expected);
}

/// Endpoints of a slice before and after, whether that is a change, and the outcome.
struct Change {
    ports: [&'static [&'static str]; 2],
    endpoints: [&'static str; 2],
    is_change: bool,
    /// Endpoints per port as `+` ready, `-` unready, `~` leaving.
    states: &'static str,
}

const BOTH: &[&str] = &["a tcp 80", "b tcp 443"];

fn of_ports(
    ports: [&'static [&'static str]; 2],
    endpoints: [&'static str; 2],
    is_change: bool,
    states: &'static str,
) -> Change {
    Change { ports, endpoints, is_change, states }
}

fn updates() -> Vec<(&'static str, Change)> {
    const THREE: &str = "10.0.0.1, 10.0.0.2, 10.0.0.3";
    const FOUR: &str = "10.0.0.1, 10.0.0.2, 10.0.0.3, 10.0.0.4";
    const NONE: &str = "10.0.0.1 unready, 10.0.0.2 unready, 10.0.0.3 unready";
    const SOME: &str = "10.0.0.1, 10.0.0.2 unready, 10.0.0.3";
    const LEAVING: &str = "10.0.0.1 leaving, 10.0.0.2 leaving, 10.0.0.3 leaving";
    let both = [BOTH, BOTH];
    vec![
        ("new", of_ports(both, ["", THREE], true, "+++ +++")),
        ("same", of_ports(both, [THREE, THREE], false, "+++ +++")),
        ("overlapping", of_ports(both, [THREE, FOUR], true, "++++ ++++")),
        ("fewer-ports", of_ports([BOTH, &["a tcp 80"]], [THREE, THREE], true, "+++")),
        ("ready-to-unready", of_ports(both, [THREE, NONE], true, "--- ---")),
        ("unready-to-ready", of_ports(both, [NONE, THREE], true, "+++ +++")),
        ("partly-unready", of_ports(both, [THREE, SOME], true, "+-+ +-+")),
        ("ready-to-terminating", of_ports(both, [THREE, LEAVING], true, "~~~ ~~~")),
    ]
}

fn check_update(change: Change) {
    let mut store = Store::new(&[]);
    let [before, after] = change.endpoints;
    if !before.is_empty() {
        store.apply(slice_applied("ns/svc", change.ports[0], &endpoints(before)));
    }
    let touched = store.apply(slice_applied("ns/svc", change.ports[1], &endpoints(after)));
    assert_eq!(touched.services.contains(&name("ns/svc")), change.is_change);
    assert_eq!(states(&store), change.states);
}

/// The endpoints of ns/svc, port by port.
fn states(store: &Store) -> String {
    let by_port = merged(store.endpoints_of(&name("ns/svc")), Family::V4);
    let of_port = by_port.values().map(|found| found.iter().map(|one| state(one.endpoint)));
    of_port.map(Iterator::collect::<String>).collect::<Vec<_>>().join(" ")
}

fn state(endpoint: &Endpoint) -> char {
    match (endpoint.ready, endpoint.serving, endpoint.terminating) {
        (true, true, false) => '+',
        (false, false, false) => '-',
        (false, true, true) => '~',
        other => panic!("{other:?}"),
    }
}

/// An update of the one slice of a Service with so many endpoints, which a change at a second
/// caused; without endpoints, the slice goes.
type Word = (&'static str, u32, Option<u64>);

/// The start of the tracker, in seconds.
const START: u64 = 100;

fn trigger_times() {
    let sequences: [(&[Word], &[u64]); 8] = [
        (&[("ns/one", 1, Some(101))], &[101]),
        (&[("ns/one", 1, Some(101)), ("ns/one", 2, Some(102))], &[101, 102]),
        (
            &[("ns/one", 1, Some(102)), ("ns/two", 1, Some(103)), ("ns/one", 2, Some(104))],
            &[102, 103, 104],
        ),
        (&[("ns/one", 1, None)], &[]),
        (&[("ns/one", 1, Some(START - 1))], &[START - 1]),
        (&[("ns/one", 1, Some(101)), ("ns/one", 0, None)], &[]),
        (&[("ns/one", 1, Some(101)), ("ns/one", 0, None), ("ns/one", 1, Some(102))], &[102]),
        (&[("ns/one", 0, None)], &[]),
    ];
    for (words, expected) in sequences {
        let metrics = Metrics::new();
        let triggers = triggers(words, &metrics);
        let mut seconds: Vec<u64> = triggers.iter().map(|one| second_of(one, &metrics)).collect();
        seconds.sort_unstable();
        assert_eq!(seconds, expected, "{words:?}");
        // What was before the start is left out where the delays are counted.
        metrics.observe(&Report { triggers, ..Report::default() }, Duration::ZERO);
        let since_start = expected.iter().filter(|second| **second > START).count();
        assert_eq!(counted(&metrics), since_start, "{words:?}");
    }
}

/// How many delays are counted.
fn counted(metrics: &Metrics) -> usize {
    let text = metrics.text();
    let name = "kubeproxy_network_programming_duration_seconds_count";
    let count = text.lines().find_map(|line| line.strip_prefix(name)?.split_once(' '));
    count.map_or(0, |(_, count)| count.parse().unwrap())
}

/// When a cause was, by the clock that stands at [`START`] when the tracker starts.
fn second_of(trigger: &Trigger, metrics: &Metrics) -> u64 {
    let zero = metrics.started() - Duration::from_secs(START);
    trigger.at.duration_since(zero).unwrap().as_secs()
}

/// What the store has for a sync after these words.
fn triggers(words: &[Word], metrics: &Metrics) -> Vec<Trigger> {
    let zero = metrics.started() - Duration::from_secs(START);
    let mut store = Store::new(&[]);
    for (service, endpoints, at) in words {
        store.apply(if *endpoints == 0 {
            slice_deleted(service)
        } else {
            let addresses: Vec<String> = (1..=*endpoints).map(|n| format!("10.0.0.{n}")).collect();
            let Update::Applied(kind, name, parsed) = slice_named(
                &format!("{service}-slice"),
                service,
                "a tcp 80",
                &addresses.join(", "),
            ) else {
                unreachable!("a slice is applied");
            };
            let triggered = at.map(|at| (zero + Duration::from_secs(at)).into());
            Update::Applied(kind, name, Parsed { triggered, ..parsed })
        });
    }
    store.take_triggers()
}

fn fqdn() {
    let object = json!({
        "metadata": {"namespace": "ns", "name": "slice",
            "labels": {"kubernetes.io/service-name": "svc"}},
        "addressType": "FQDN",
        "ports": [{"name": "a", "port": 80}],
        "endpoints": [{"addresses": ["svc.example"]}],
    });
    let read = api::read(Kind::EndpointSlice, &object.to_string()).unwrap();
    let mut store = Store::new(&[]);
    let touched = store.apply(Update::Applied(Kind::EndpointSlice, read.name, read.parsed));
    assert!(touched.services.is_empty());
}

fn removed() {
    let mut store = Store::new(&[]);
    store.apply(slice_named("ns/one", "ns/svc", "a tcp 80", "10.0.0.1, 10.0.0.2"));
    store.apply(slice_named("ns/two", "ns/svc", "a tcp 80", "10.0.0.3"));
    let touched = store.apply(Update::Deleted(Kind::EndpointSlice, name("ns/one")));
    assert!(touched.services.contains(&name("ns/svc")));
    assert_eq!(states(&store), "+");
}

fn unknown_removed() {
    let mut store = Store::new(&[]);
    store.apply(slice_named("ns/one", "ns/svc", "a tcp 80", "10.0.0.1"));
    let touched = store.apply(Update::Deleted(Kind::EndpointSlice, name("ns/other")));
    assert_eq!(touched, Touched::default());
    assert_eq!(states(&store), "+");
}

fn no_changes() {
    assert_eq!(programmed(&[], []).changes(), "");
}

fn web() -> Update {
    service("ns/svc", &["10.9.0.1"], BOTH).applied()
}

fn first_slice() {
    let mut node = programmed(&[], [web()]);
    node.tell([slice_applied("ns/svc", BOTH, &endpoints("10.0.0.1"))]);
    node.sync();
    let expected = ["tcp 10.9.0.1:80 -> 10.0.0.1:80", "tcp 10.9.0.1:443 -> 10.0.0.1:443"];
    assert_eq!(servers(&node), expected);
}

fn port_removed() {
    let slice = |ports| slice_applied("ns/svc", ports, &endpoints("10.0.0.1"));
    let mut node = programmed(&[], [web(), slice(BOTH)]);
    node.tell([slice(&["a tcp 80"])]);
    node.sync();
    let expected =
        ["tcp 10.9.0.1:80 -> 10.0.0.1:80", "tcp 10.9.0.1:443 -> 10.0.0.1:443 (weight 0)"];
    assert_eq!(servers(&node), expected);
}
