//! What a Service offers besides its cluster IPs: further addresses, node ports, who may use them.
//!
//! Called by [`super::parse`]. As in the reference, addresses and node ports count whatever the
//! type of the Service (spec 1.2): an API server keeps them in line with it.
//!
//! The reference folds all of this into one flag, "externally accessible" (spec 1.3.2). The flag
//! sends clients of a cluster IP with internal policy Local to other nodes (W-21), and external
//! IPs raise it even where they are not served (W-49). Here is no such flag: every kind of address
//! keeps to the policy of its own, so what one kind offers cannot change what another does.
//!
//! Invariant: values of both families are kept; whether a family is served is not decided here.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;

use super::field::{self, Reasons};
use super::{Family, ServicePort, TrafficPolicy, objects, policy};
use crate::cluster::Reason;

/// Who may serve clients of the addresses read here.
///
/// A type that has no such clients leaves the policy without a meaning, and `Cluster` stands.
pub fn external_policy(spec: &objects::ServiceSpec, reasons: &mut Reasons) -> TrafficPolicy {
    let named = policy("spec.externalTrafficPolicy", spec.external_traffic_policy.as_deref());
    let named = reasons.value_or(named, TrafficPolicy::Cluster);
    if is_external(spec) { named } else { TrafficPolicy::Cluster }
}

/// Whether the type promises clients from outside the cluster.
fn is_external(spec: &objects::ServiceSpec) -> bool {
    match spec.r#type.as_deref() {
        Some("LoadBalancer" | "NodePort") => true,
        // Addresses that cannot be used count as well: the promise was made.
        None | Some("" | "ClusterIP") => !spec.external_ips.is_empty(),
        Some(_) => false,
    }
}

/// `spec.externalIPs`.
pub fn external_ips(spec: &objects::ServiceSpec, reasons: &mut Reasons) -> Vec<IpAddr> {
    let texts = spec.external_ips.iter().enumerate().filter(|(_, text)| !text.trim().is_empty());
    let addresses =
        texts.map(|(i, text)| field::address(format_args!("spec.externalIPs[{i}]"), text));
    distinct(reasons.usable(addresses))
}

/// The addresses of load balancers that leave it to the nodes to serve them.
pub fn load_balancer_ips(status: &objects::ServiceStatus, reasons: &mut Reasons) -> Vec<IpAddr> {
    let ingress = status.load_balancer.ingress.iter().enumerate();
    let addresses = ingress.filter_map(|(i, one)| ingress_ip(i, one).transpose());
    distinct(reasons.usable(addresses))
}

/// The address of one ingress, unless it has a hostname alone or the balancer proxies by itself.
fn ingress_ip(index: usize, ingress: &objects::Ingress) -> Result<Option<IpAddr>, String> {
    let field = format!("status.loadBalancer.ingress[{index}]");
    match (ingress.ip.as_str(), ingress.ip_mode.as_deref()) {
        ("", _) | (_, Some("Proxy")) => Ok(None),
        (text, None | Some("VIP")) => field::address(format_args!("{field}.ip"), text).map(Some),
        (_, Some(other)) => Err(field::unknown_name(
            format_args!("{field}.ipMode"),
            other,
            &["VIP", "Proxy"],
            "the address is not served",
        )),
    }
}

/// Who may use the load-balancer addresses, which these are, and these alone (W-29).
pub fn source_ranges(
    spec: &objects::ServiceSpec,
    addresses: &[IpAddr],
    reasons: &mut Reasons,
) -> Vec<IpNet> {
    let field = "spec.loadBalancerSourceRanges";
    let texts = &spec.load_balancer_source_ranges;
    let range = |(i, text): (usize, &String)| field::cidr(format_args!("{field}[{i}]"), text);
    let left_out = |reason| format!("{reason}; it is left out");
    let ranges = texts.iter().enumerate().map(|text| range(text).map_err(left_out));
    let mut ranges = distinct(reasons.usable(ranges));
    for of in left_open(texts, &ranges, addresses) {
        // As in the reference; closing the addresses would cost more than the ranges.
        let reason = format!(
            "{field}: without a usable {of}range, the {of}addresses of the load balancer let \
             everybody in; write one such as 10.0.0.0/8 or fd00::/8"
        );
        reasons.0.push(Reason::Defaulted(reason));
    }
    let is_open =
        |family| ranges.iter().any(|range| family_of(range) == family && range.prefix_len() == 0);
    let open: Vec<Family> = Family::ALL.into_iter().filter(|family| is_open(*family)).collect();
    ranges.retain(|range| !open.contains(&family_of(range)));
    ranges
}

/// Of which families no range can be used, in words, although some were to be, or although there
/// are addresses.
fn left_open(texts: &[String], ranges: &[IpNet], addresses: &[IpAddr]) -> Vec<&'static str> {
    if ranges.is_empty() {
        return Vec::from_iter((!texts.is_empty()).then_some(""));
    }
    // What looks like neither family is told to be left out, as all of these are.
    let [v4, v6] = [(Family::V4, '.', "IPv4 "), (Family::V6, ':', "IPv6 ")];
    let is_open = |(family, mark, _): &(Family, char, _)| {
        let is_left_out = |text: &String| text.contains(*mark) && field::cidr("", text).is_err();
        let is_meant = texts.iter().any(is_left_out)
            || addresses.iter().any(|address| Family::of(*address) == *family);
        is_meant && ranges.iter().all(|range| family_of(range) != *family)
    };
    [v4, v6].into_iter().filter(is_open).map(|(.., words)| words).collect()
}

fn family_of(range: &IpNet) -> Family {
    Family::of(range.addr())
}

/// Where a load balancer asks this node for local endpoints; only then does the answer matter.
///
/// Without a number there is none: an API server would allocate one.
pub fn health_check_port(
    spec: &objects::ServiceSpec,
    policy: TrafficPolicy,
    reasons: &mut Reasons,
) -> Option<u16> {
    let is_asked = spec.r#type.as_deref() == Some("LoadBalancer") && policy == TrafficPolicy::Local;
    if !is_asked {
        return None;
    }
    match spec.health_check_node_port {
        None | Some(0) => None,
        number => reasons.part(field::port("spec.healthCheckNodePort", number)),
    }
}

/// The node port of one port; 0 is how Go writers may leave it out.
pub fn node_port(index: usize, port: &objects::ServicePort) -> Result<Option<u16>, String> {
    match port.node_port {
        None | Some(0) => Ok(None),
        number => field::port(format_args!("spec.ports[{index}].nodePort"), number).map(Some),
    }
}

/// Leaves each node port to the first port that claims it.
pub fn keep_first_node_ports(ports: &mut [ServicePort], reasons: &mut Reasons) {
    let mut claimed = BTreeSet::new();
    for port in ports {
        let Some(number) = port.node_port else { continue };
        if !claimed.insert((port.protocol, number)) {
            let protocol = port.protocol;
            reasons.reject(format!("spec.ports: node port {number}/{protocol} is there twice"));
            port.node_port = None;
        }
    }
}

/// Each value once, in order.
fn distinct<T: Copy + Ord>(values: Vec<T>) -> Vec<T> {
    let mut seen = BTreeSet::new();
    values.into_iter().filter(|value| seen.insert(*value)).collect()
}

#[cfg(test)]
mod tests;
