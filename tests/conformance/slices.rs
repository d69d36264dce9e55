//! The union of a Service's slices.

use kube_ipvs_proxy::cluster::endpoints::merged;
use kube_ipvs_proxy::cluster::store::Store;
use kube_ipvs_proxy::cluster::{
    Endpoint, EndpointPort, EndpointSlice, Kind, Object, Update, objects as api,
};
use kube_ipvs_proxy::model::net::{Family, Protocol};
use kube_ipvs_proxy::testing::objects::{NODE, applied, endpoint, name, terminating, unready};
use serde_json::json;

use super::case::{Case, case, table};

pub fn cases() -> Vec<Case> {
    let mut cases = table("TestEndpointsMapFromESC", unions(), check_union);
    cases.extend([
        case("TestEndpointsMapFromESC/overlapping-slices-with-different-readiness", readiness),
        case("TestEndpointsMapFromESC/overlapping-slices-terminating", termination),
        case("TestEndpointsMapFromESC/overlapping-slices-all-unready", all_unready),
        case("TestEndpointsMapFromESC/no-port-number", no_port_number),
        case("TestEndpointsMapFromESC/duplicates-in-one-slice", duplicates_in_one_slice),
        case("TestEndpointInfoByServicePort/simple", simple),
        case("TestEndpointInfoByServicePort/duplicate-addresses", duplicate_addresses),
    ]);
    cases.extend(table("TestEndpointSliceCacheCleared", cleared(), check_cleared));
    cases
}

/// Endpoint `n` of slice `number` is 10.0.NUMBER.N; whole multiples of a number are of its kind.
#[derive(Clone, Copy)]
struct Generated {
    service: &'static str,
    /// Name of the slice, and what its addresses say.
    slice: (&'static str, u8),
    ports: &'static [u16],
    endpoints: u8,
    unready_every: u8,
    terminating_every: u8,
}

const PLAIN: Generated = Generated {
    service: "ns1/svc1",
    slice: ("ns1/slice-1", 1),
    ports: &[80],
    endpoints: 3,
    unready_every: u8::MAX,
    terminating_every: u8::MAX,
};

impl Generated {
    fn endpoint(&self, n: u8) -> Endpoint {
        let mut found = endpoint(&format!("10.0.{}.{n}", self.slice.1));
        if n.is_multiple_of(self.unready_every) {
            found = unready(found);
        }
        if n.is_multiple_of(self.terminating_every) {
            found = terminating(found);
        }
        // Every second one runs here.
        found.node = Some(if n.is_multiple_of(2) { NODE } else { "host-2" }.into());
        found
    }

    fn applied(&self) -> Update {
        let port = |(index, port): (usize, &u16)| EndpointPort {
            name: format!("port-{index}").into(),
            protocol: Protocol::Tcp,
            port: *port,
        };
        let slice = EndpointSlice {
            service: name(self.service),
            family: Family::V4,
            ports: self.ports.iter().enumerate().map(port).collect(),
            endpoints: (1..=self.endpoints).map(|n| self.endpoint(n)).collect(),
        };
        applied(Kind::EndpointSlice, name(self.slice.0), Object::EndpointSlice(slice))
    }
}

fn store(slices: &[Generated]) -> Store {
    let mut store = Store::new(&[]);
    slices.iter().for_each(|slice| drop(store.apply(slice.applied())));
    store
}

/// What is known of ns1/svc1, one line per port; `@` runs here, `-` dead, `~` leaving.
fn listing(store: &Store) -> Vec<String> {
    let by_port = merged(store.endpoints_of(&name("ns1/svc1")), Family::V4);
    let lines = by_port.iter().map(|((port, _), endpoints)| {
        let shown = endpoints.iter().map(|found| {
            let Endpoint { address, ready, serving, terminating, ref node, .. } = *found.endpoint;
            let here = if node.as_deref() == Some(NODE) { "@" } else { "" };
            let state = match (ready, serving, terminating) {
                (true, true, false) => "",
                (false, true, true) => "~",
                (false, false, _) => "-",
                other => panic!("{address}: {other:?}"),
            };
            format!(" {address}:{}{here}{state}", found.port)
        });
        format!("{port}:{}", shown.collect::<String>())
    });
    lines.collect()
}

type Union = (Vec<Generated>, &'static [&'static str]);

fn unions() -> Vec<(&'static str, Union)> {
    let second = Generated { slice: ("ns1/slice-2", 2), ..PLAIN };
    let of = |service, slice| Generated { service, slice: (slice, 2), ..PLAIN };
    vec![
        (
            "one-slice-two-ports",
            (
                vec![Generated { ports: &[80, 443], ..PLAIN }],
                &[
                    "port-0: 10.0.1.1:80 10.0.1.2:80@ 10.0.1.3:80",
                    "port-1: 10.0.1.1:443 10.0.1.2:443@ 10.0.1.3:443",
                ],
            ),
        ),
        (
            "two-slices-one-port",
            (
                vec![PLAIN, second],
                &["port-0: 10.0.1.1:80 10.0.1.2:80@ 10.0.1.3:80 10.0.2.1:80 10.0.2.2:80@ \
                   10.0.2.3:80"],
            ),
        ),
        (
            "overlapping-slices",
            (
                vec![PLAIN, Generated { endpoints: 4, ..PLAIN }],
                &["port-0: 10.0.1.1:80 10.0.1.2:80@ 10.0.1.3:80 10.0.1.4:80@"],
            ),
        ),
        (
            "slices-of-other-services",
            (
                vec![PLAIN, of("ns1/svc2", "ns1/slice-2"), of("ns2/svc1", "ns2/slice-1")],
                &["port-0: 10.0.1.1:80 10.0.1.2:80@ 10.0.1.3:80"],
            ),
        ),
        (
            "same-addresses-two-ports",
            (
                vec![
                    Generated { endpoints: 2, ..PLAIN },
                    Generated { slice: ("ns1/slice-2", 1), ports: &[8080], endpoints: 2, ..PLAIN },
                ],
                &["port-0: 10.0.1.1:80 10.0.1.1:8080 10.0.1.2:80@ 10.0.1.2:8080@"],
            ),
        ),
    ]
}

fn check_union((slices, expected): Union) {
    assert_eq!(listing(&store(&slices)), expected);
}

/// The state of ten endpoints, in order.
fn states(slices: &[Generated]) -> String {
    let line = listing(&store(slices)).remove(0);
    let state = |one: &str| one.chars().last().filter(|last| ['-', '~'].contains(last));
    let shown = line.split(' ').skip(1).map(|one| state(one).unwrap_or('+'));
    shown.collect()
}

const TEN: Generated = Generated { endpoints: 10, ..PLAIN };

fn readiness() {
    let [third, sixth] = [3, 6].map(|unready_every| Generated { unready_every, ..TEN });
    assert_eq!(states(&[third, sixth]), "+++++-++++");
}

fn termination() {
    let [third, sixth] =
        [3, 6].map(|unready_every| Generated { unready_every, terminating_every: 5, ..TEN });
    assert_eq!(states(&[third, sixth]), "++++~-+++~");
}

fn all_unready() {
    let dead = Generated { unready_every: 1, ..TEN };
    assert_eq!(states(&[dead, dead]), "----------");
}

fn no_port_number() {
    let object = json!({
        "metadata": {"namespace": "ns1", "name": "slice-1",
            "labels": {"kubernetes.io/service-name": "svc1"}},
        "addressType": "IPv4",
        "ports": [{"name": "port-0", "port": null}],
        "endpoints": [{"addresses": ["10.0.1.1"]}],
    });
    let read = api::read(Kind::EndpointSlice, &object.to_string()).unwrap();
    let mut store = Store::new(&[]);
    store.apply(Update::Applied(Kind::EndpointSlice, read.name, read.parsed));
    assert_eq!(listing(&store), [""; 0]);
}

fn duplicates_in_one_slice() {
    let one = || endpoint("10.0.1.1");
    let endpoints = vec![terminating(one()), one(), terminating(unready(one()))];
    let ports = vec![EndpointPort { name: "port-0".into(), protocol: Protocol::Tcp, port: 80 }];
    let service = name("ns1/svc1");
    let slice = EndpointSlice { service, family: Family::V4, ports, endpoints };
    let mut store = Store::new(&[]);
    store.apply(applied(Kind::EndpointSlice, name("ns1/slice-1"), Object::EndpointSlice(slice)));
    assert_eq!(listing(&store), ["port-0: 10.0.1.1:80"]);
}

fn simple() {
    let expected = ["port-0: 10.0.1.1:80 10.0.1.2:80@ 10.0.1.3:80"];
    assert_eq!(listing(&store(&[PLAIN])), expected);
}

fn duplicate_addresses() {
    let again = Generated { slice: ("ns1/slice-2", 1), ..PLAIN };
    let expected = ["port-0: 10.0.1.1:80 10.0.1.2:80@ 10.0.1.3:80"];
    assert_eq!(listing(&store(&[PLAIN, again])), expected);
}

/// Slices of Services, those that are deleted again, and Services that still have endpoints.
type Cleared = (&'static [(&'static str, &'static str)], usize, &'static [&'static str]);

fn cleared() -> Vec<(&'static str, Cleared)> {
    const TWO: &[(&str, &str)] = &[("ns1/svc1", "ns1/slice-1"), ("ns1/svc1", "ns1/slice-2")];
    vec![
        ("one-slice", (&[("ns1/svc1", "ns1/slice-1")], 1, &[])),
        ("two-services", (&[("ns1/svc1", "ns1/slice-1"), ("ns1/svc2", "ns1/slice-2")], 2, &[])),
        ("two-slices-of-one-service", (TWO, 2, &[])),
        ("two-namespaces", (&[("ns1/svc1", "ns1/slice-1"), ("ns2/svc1", "ns2/slice-1")], 2, &[])),
        (
            "one-of-two-services",
            (&[("ns1/svc1", "ns1/a"), ("ns1/svc2", "ns1/b")], 1, &["ns1/svc2"]),
        ),
        ("one-of-two-slices", (TWO, 1, &["ns1/svc1"])),
    ]
}

fn check_cleared((slices, deleted, expected): Cleared) {
    let generated = (1..).zip(slices).map(|(number, (service, slice))| Generated {
        service,
        slice: (slice, number),
        ..PLAIN
    });
    let mut store = store(&generated.collect::<Vec<_>>());
    for (_, slice) in slices.iter().take(deleted) {
        store.apply(Update::Deleted(Kind::EndpointSlice, name(slice)));
    }
    let mut services: Vec<&str> = slices.iter().map(|(service, _)| *service).collect();
    services.dedup();
    services.retain(|service| store.endpoints_of(&name(service)).next().is_some());
    assert_eq!(services, expected);
}
