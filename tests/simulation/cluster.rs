//! The cluster of a run: its objects now, and how numbers shape them.

use std::collections::BTreeMap;
use std::net::IpAddr;

use kube_ipvs_proxy::cluster::{
    Endpoint, EndpointSlice, Kind, Node, Object, ObjectName, Parsed, Update,
};
use kube_ipvs_proxy::testing::objects::{self, endpoint, hinted, on_node, terminating, unready};
use kube_ipvs_proxy::testing::random::Random;

const TARGETS: [&str; 6] = [
    "http tcp 8080",
    "http tcp 9090",
    "https tcp 8443",
    "dns udp 5353",
    "dns-tcp tcp 5353",
    "sig sctp 9999",
];

/// The objects that exist.
#[derive(Debug, Default)]
pub struct Cluster {
    objects: BTreeMap<Kind, BTreeMap<ObjectName, Parsed>>,
}

impl Cluster {
    /// Puts an object in place; the update that says so.
    pub fn put(&mut self, kind: Kind, name: ObjectName, object: Parsed) -> Update {
        self.objects.entry(kind).or_default().insert(name.clone(), object.clone());
        Update::Applied(kind, name, object)
    }

    /// Removes an object; the update that says so, if it was there.
    pub fn remove(&mut self, kind: Kind, name: &ObjectName) -> Option<Update> {
        let removed = self.objects.get_mut(&kind)?.remove(name);
        removed.map(|_| Update::Deleted(kind, name.clone()))
    }

    /// Removes about one in three objects of a kind without a word.
    pub fn lose(&mut self, kind: Kind, random: &mut Random) {
        if let Some(objects) = self.objects.get_mut(&kind) {
            objects.retain(|_, _| !random.one_in(3));
        }
    }

    /// A list of a kind, as a source would give it.
    pub fn list(&self, kind: Kind) -> Vec<Update> {
        let objects = self.objects.get(&kind).into_iter().flatten();
        let applied =
            objects.map(|(name, object)| Update::Applied(kind, name.clone(), object.clone()));
        [Update::ListStarted(kind)]
            .into_iter()
            .chain(applied)
            .chain([Update::ListDone(kind)])
            .collect()
    }

    /// The objects.
    pub fn names(&self) -> impl Iterator<Item = (Kind, ObjectName)> {
        let of_kind = |(kind, objects): (&Kind, &BTreeMap<ObjectName, Parsed>)| {
            let kind = *kind;
            objects.keys().map(move |name| (kind, name.clone())).collect::<Vec<_>>()
        };
        self.objects.iter().flat_map(of_kind)
    }

    /// The slice of a name.
    pub fn slice(&self, name: &ObjectName) -> Option<&EndpointSlice> {
        match self.objects.get(&Kind::EndpointSlice)?.get(name)?.object.as_ref()? {
            Object::EndpointSlice(slice) => Some(slice),
            _ => None,
        }
    }
}

/// The name of a Service.
pub fn service_name(number: usize) -> ObjectName {
    objects::name(&format!("default/service-{number}"))
}

/// The name of a slice of a Service.
pub fn slice_name(number: usize, part: usize) -> ObjectName {
    objects::name(&format!("default/service-{number}-{part}"))
}

/// A slice of a Service.
pub fn slice(number: usize, shape: u64) -> Object {
    let random = &mut Random::new(shape);
    let is_v6 = random.one_in(3);
    let is_hinted = random.one_in(2);
    let hosts: Vec<usize> = (1..6).filter(|_| random.one_in(2)).collect();
    let endpoints: Vec<Endpoint> =
        hosts.into_iter().map(|host| some_endpoint(host, is_v6, random)).collect();
    let endpoints: Vec<Endpoint> = match is_hinted {
        true => endpoints
            .into_iter()
            .map(|e| hinted(e, if random.one_in(2) { "a" } else { "b" }))
            .collect(),
        false => endpoints,
    };
    let ports: Vec<&str> = TARGETS.into_iter().filter(|_| !random.one_in(4)).collect();
    let service = service_name(number).to_string();
    Object::EndpointSlice(objects::slice(&service, &ports, &endpoints))
}

/// The slice after one of its endpoints changed.
pub fn with_other_endpoint(slice: &EndpointSlice, choice: u64) -> EndpointSlice {
    let random = &mut Random::new(choice);
    let mut slice = slice.clone();
    let is_v6 = slice.endpoints.first().is_some_and(|endpoint| endpoint.address.is_ipv6());
    let changed = some_endpoint(1 + random.below(5), is_v6, random);
    slice.endpoints.retain(|endpoint| endpoint.address != changed.address);
    if !random.one_in(4) {
        slice.endpoints.push(changed);
    }
    slice
}

fn some_endpoint(host: usize, is_v6: bool, random: &mut Random) -> Endpoint {
    let address = match is_v6 {
        true => format!("fd00:244::{host}"),
        false => format!("10.244.0.{host}"),
    };
    let mut endpoint = endpoint(&address);
    if is_local(endpoint.address) {
        endpoint = on_node(endpoint);
    }
    if random.one_in(8) {
        endpoint = hinted(endpoint, "a");
    }
    if random.one_in(8) {
        endpoint.hints.get_or_insert_default().nodes = [objects::NODE.into()].into();
    }
    match random.below(6) {
        0 => unready(endpoint),
        1 => terminating(endpoint),
        _ => endpoint,
    }
}

/// Whether a pod runs on the own node: every second one does.
pub fn is_local(pod: IpAddr) -> bool {
    let last = match pod {
        IpAddr::V4(address) => address.octets()[3],
        IpAddr::V6(address) => address.octets()[15],
    };
    is_pod(pod) && last.is_multiple_of(2)
}

/// Whether an address is one of pods.
pub fn is_pod(address: IpAddr) -> bool {
    address.to_string().starts_with("10.244.") || address.to_string().starts_with("fd00:244:")
}

/// The own Node.
pub fn node(shape: u64) -> Object {
    let random = &mut Random::new(shape);
    let zone = random.pick(&[None, Some("a"), Some("b")]).copied().flatten();
    let cidrs: &[&[&str]] = &[&[], &["10.244.0.0/24"], &["10.244.0.0/23", "fd00:244::/64"]];
    let cidrs = random.pick(cidrs).copied().unwrap_or_default();
    let addresses: &[&[&str]] = &[&["192.0.2.10", "2001:db8::10"], &["192.0.2.11"], &[]];
    let addresses = random.pick(addresses).copied().unwrap_or_default();
    Object::Node(Node {
        addresses: addresses.iter().map(|text| objects::ip(text)).collect(),
        zone: zone.map(Into::into),
        pod_cidrs: cidrs.iter().filter_map(|text| text.parse().ok()).collect(),
        is_leaving: random.one_in(4),
    })
}

/// The ranges of service addresses.
pub fn service_cidr(shape: u64) -> Object {
    let ranges: &[&[&str]] = &[&["10.96.0.0/16"], &["10.96.0.0/12", "fd00:96::/112"], &[]];
    let texts = Random::new(shape).pick(ranges).copied().unwrap_or_default();
    Object::ServiceCidr(texts.iter().filter_map(|text| text.parse().ok()).collect())
}
