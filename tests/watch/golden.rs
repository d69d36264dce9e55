//! Text of a store, and its comparison with the text that is kept.
//!
//! `UPDATE_GOLDEN=1` rewrites the kept text; the difference is then reviewed like code.

use std::collections::BTreeSet;
use std::fmt::Display;
use std::path::PathBuf;

use kube_ipvs_proxy::cluster::store::Store;
use kube_ipvs_proxy::cluster::{Endpoint, ObjectName, Service, TrafficPolicy, endpoints};
use kube_ipvs_proxy::model::net::Family;

/// One line per thing that a store knows.
pub fn lines(store: &Store) -> BTreeSet<String> {
    let mut lines = BTreeSet::new();
    for (name, service) in store.services() {
        let addresses: Vec<_> = Family::ALL
            .iter()
            .filter_map(|family| service.cluster_ips.get(*family).map(|ip| ip.to_string()))
            .collect();
        let (addresses, policy) = (addresses.join(","), service.internal_policy);
        let (affinity, created) = (service.affinity_seconds, service.created);
        lines.insert(format!(
            "service {name} {addresses} {policy:?} affinity {affinity:?} created {created:?}"
        ));
        for port in &service.ports {
            let (port_name, protocol, number) = (&port.name, port.protocol, port.port);
            lines.insert(format!("service {name} port {number}/{protocol} \"{port_name}\""));
            lines.extend(port.node_port.map(|node_port| {
                format!("service {name} node port {node_port}/{protocol} \"{port_name}\"")
            }));
        }
        lines.extend(external_lines(name, service));
        lines.extend(endpoint_lines(store, name));
    }
    lines.extend(store.node("node1").map(|node| format!("node node1 {node:?}")));
    lines.extend(store.service_cidrs().map(|range| format!("range {range}")));
    lines.extend(
        store.unusable().map(|(kind, name, why)| format!("rejected {kind} {name} {why:?}")),
    );
    lines
}

/// What a Service offers besides cluster IPs and node ports.
fn external_lines(name: &ObjectName, service: &Service) -> Vec<String> {
    let mut lines = Vec::new();
    if service.external_policy != TrafficPolicy::default() {
        lines.push(format!("service {name} external policy {:?}", service.external_policy));
    }
    let port = service.health_check_port;
    lines.extend(port.map(|port| format!("service {name} health check port {port}")));
    let mut add = |what: &str, value: &dyn Display| {
        lines.push(format!("service {name} {what} {value}"));
    };
    service.external_ips.iter().for_each(|ip| add("external IP", ip));
    service.load_balancer_ips.iter().for_each(|ip| add("load-balancer IP", ip));
    service.source_ranges.iter().for_each(|range| add("source range", range));
    lines
}

/// The merged endpoints of a Service, a line each.
pub fn endpoint_lines(store: &Store, service: &ObjectName) -> BTreeSet<String> {
    let mut lines = BTreeSet::new();
    for family in Family::ALL {
        for ((name, protocol), all) in endpoints::merged(store.endpoints_of(service), family) {
            for one in all {
                let (address, port, state) = (one.endpoint.address, one.port, state(one.endpoint));
                lines.insert(format!(
                    "endpoint {service} \"{name}\"/{protocol} {address} {port} {state}"
                ));
            }
        }
    }
    lines
}

fn state(endpoint: &Endpoint) -> String {
    let marks = [
        (endpoint.ready, "ready"),
        (endpoint.serving, "serving"),
        (endpoint.terminating, "terminating"),
    ];
    let marks: Vec<_> = marks.iter().filter(|(is_set, _)| *is_set).map(|(_, mark)| *mark).collect();
    let node = endpoint.node.as_deref().unwrap_or("-");
    let (zones, nodes) = (endpoint.zone_hints().join(","), endpoint.node_hints().join(","));
    format!("[{}] on {node} zones [{zones}] nodes [{nodes}]", marks.join(" "))
}

/// A text that grows by what each step changes.
#[derive(Default)]
pub struct Steps {
    text: String,
    before: BTreeSet<String>,
}

impl Steps {
    /// Adds what became different.
    pub fn add(&mut self, name: &str, now: BTreeSet<String>) {
        self.text.push_str(&format!("== {name}\n"));
        for line in self.before.difference(&now) {
            self.text.push_str(&format!("- {line}\n"));
        }
        for line in now.difference(&self.before) {
            self.text.push_str(&format!("+ {line}\n"));
        }
        self.before = now;
    }

    /// Compares the whole with the text that is kept under this name.
    pub fn check(&self, name: &str) {
        let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/watch/golden").join(name);
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, &self.text).unwrap();
        }
        let kept = std::fs::read_to_string(&path).unwrap_or_default();
        for (number, (kept, found)) in kept.lines().zip(self.text.lines()).enumerate() {
            assert_eq!(found, kept, "{}:{}", path.display(), number + 1);
        }
        assert_eq!(self.text.len(), kept.len(), "{} is not complete", path.display());
    }
}
