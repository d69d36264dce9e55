//! Services: the slim API type to the parsed value (spec 1.2 and 1.3).
//!
//! Called by [`super::objects::read`]. A headless or ExternalName Service, or one that another
//! proxy serves, is nothing to the data plane and no reason to complain.
//! `external` reads what a Service offers besides its cluster IPs, `scheduling` how it is balanced.
//! Invariant: a port or address that cannot be used costs itself, never its siblings.

mod external;
mod scheduling;

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::field::{self, Reasons};
use super::{Object, Parsed, Reason, Service, ServicePort, TrafficPolicy, objects};
use crate::model::net::{Family, PerFamily};

/// How long clients stick where a Service does not say: what the API server would set.
const DEFAULT_AFFINITY_SECONDS: u32 = 10_800;
/// The names of the families in the API.
const FAMILIES: [&str; 2] = ["IPv4", "IPv6"];
/// The longest that the API allows.
const MAX_AFFINITY_SECONDS: u32 = 86_400;

/// Parses a Service.
pub fn parse(object: &objects::Service) -> Parsed {
    if is_ignored(object) {
        return Parsed::default();
    }
    let spec = &object.spec;
    let mut reasons = Reasons(unknown_families(spec).collect());
    let external_policy = external::external_policy(spec, &mut reasons);
    let load_balancer_ips = external::load_balancer_ips(&object.status, &mut reasons);
    let service = Service {
        created: reasons.value_or(created(&object.metadata), None),
        cluster_ips: cluster_ips(spec, &mut reasons),
        ports: ports(spec, &mut reasons),
        affinity_seconds: reasons.value_or(affinity_seconds(spec), Some(DEFAULT_AFFINITY_SECONDS)),
        internal_policy: internal_policy(spec, &mut reasons),
        external_policy,
        external_ips: external::external_ips(spec, &mut reasons),
        source_ranges: external::source_ranges(spec, &load_balancer_ips, &mut reasons),
        load_balancer_ips,
        health_check_port: external::health_check_port(spec, external_policy, &mut reasons),
        scheduling: scheduling::parse(&object.metadata.annotations, &mut reasons),
    };
    let has_address = Family::ALL.iter().any(|family| service.cluster_ips.get(*family).is_some());
    let is_usable = has_address && !service.ports.is_empty();
    let object = is_usable.then_some(Object::Service(service));
    Parsed { object, reasons: reasons.0, ..Parsed::default() }
}

fn is_ignored(object: &objects::Service) -> bool {
    object.metadata.labels.service_proxy_name.is_some()
        || object.spec.r#type.as_deref() == Some("ExternalName")
        || matches!(addresses(&object.spec).next(), None | Some("" | "None"))
}

/// All cluster IPs; manifests may give only the first, which the API server would copy.
fn addresses(spec: &objects::ServiceSpec) -> impl Iterator<Item = &str> {
    let single = spec.cluster_ips.is_empty().then_some(spec.cluster_ip.as_str());
    spec.cluster_ips.iter().map(String::as_str).chain(single)
}

fn cluster_ips(spec: &objects::ServiceSpec, reasons: &mut Reasons) -> PerFamily<Option<IpAddr>> {
    let usable = reasons
        .usable(addresses(spec).enumerate().map(|(index, text)| cluster_ip(spec, index, text)));
    let mut cluster_ips = PerFamily::<Option<IpAddr>>::default();
    for address in usable {
        let slot = cluster_ips.get_mut(Family::of(address));
        match slot {
            None => *slot = Some(address),
            Some(first) => reasons.reject(format!(
                "spec.clusterIPs: {address} is a second address of the family of {first}"
            )),
        }
    }
    cluster_ips
}

/// One cluster IP, which must be of the family that the Service names at the same place.
fn cluster_ip(spec: &objects::ServiceSpec, index: usize, text: &str) -> Result<IpAddr, String> {
    let field = match spec.cluster_ips.is_empty() {
        true => "spec.clusterIP".to_owned(),
        false => format!("spec.clusterIPs[{index}]"),
    };
    let address = field::address(&field, text)?;
    let family = Family::of(address).to_string();
    match spec.ip_families.get(index) {
        // Without families, as in manifests, the addresses speak for themselves.
        None if spec.ip_families.is_empty() => Ok(address),
        None => Err(format!("{field}: {address} has no family in spec.ipFamilies")),
        Some(named) if *named == family || !is_family(named) => Ok(address),
        Some(named) => Err(format!("{field}: {address} is not of the family {named}")),
    }
}

fn is_family(name: &str) -> bool {
    FAMILIES.contains(&name)
}

/// Families by names that are none, in whose place the addresses speak for themselves.
fn unknown_families(spec: &objects::ServiceSpec) -> impl Iterator<Item = Reason> {
    let unknown = spec.ip_families.iter().enumerate().filter(|(_, name)| !is_family(name));
    unknown.map(|(index, name)| {
        let (field, instead) =
            (format!("spec.ipFamilies[{index}]"), "the family of the address is used");
        Reason::Defaulted(field::unknown_name(&field, name, &FAMILIES, instead))
    })
}

fn ports(spec: &objects::ServiceSpec, reasons: &mut Reasons) -> Vec<ServicePort> {
    let mut ports = Vec::new();
    for (index, port) in spec.ports.iter().enumerate() {
        let port = service_port(index, port, reasons);
        ports.extend(reasons.part(port));
    }
    let mut fronts = BTreeSet::new();
    let mut keep_first = |port: &ServicePort| {
        let is_first = fronts.insert((port.protocol, port.port));
        if !is_first {
            let (number, protocol) = (port.port, port.protocol);
            reasons.reject(format!("spec.ports: {number}/{protocol} is there twice"));
        }
        is_first
    };
    ports.retain(|port| keep_first(port));
    external::keep_first_node_ports(&mut ports, reasons);
    ports
}

fn service_port(
    index: usize,
    port: &objects::ServicePort,
    reasons: &mut Reasons,
) -> Result<ServicePort, String> {
    Ok(ServicePort {
        name: port.name.as_str().into(),
        protocol: field::protocol(
            format_args!("spec.ports[{index}].protocol"),
            port.protocol.as_deref(),
        )?,
        port: field::port(format_args!("spec.ports[{index}].port"), port.port)?,
        // A node port that cannot be used is no reason to lose the port on the service address.
        node_port: reasons.part(external::node_port(index, port)).flatten(),
    })
}

fn affinity_seconds(spec: &objects::ServiceSpec) -> Result<Option<u32>, String> {
    if spec.session_affinity.as_deref() != Some("ClientIP") {
        return Ok(None);
    }
    let config = spec.session_affinity_config.as_ref().and_then(|all| all.client_ip.as_ref());
    let Some(seconds) = config.and_then(|config| config.timeout_seconds) else {
        return Ok(Some(DEFAULT_AFFINITY_SECONDS));
    };
    match u32::try_from(seconds) {
        Ok(seconds @ 1..=MAX_AFFINITY_SECONDS) => Ok(Some(seconds)),
        _ => Err(format!(
            "spec.sessionAffinityConfig.clientIP.timeoutSeconds: {seconds} is not between 1 and \
             {MAX_AFFINITY_SECONDS}; {DEFAULT_AFFINITY_SECONDS} is used"
        )),
    }
}

fn internal_policy(spec: &objects::ServiceSpec, reasons: &mut Reasons) -> TrafficPolicy {
    let named = policy("spec.internalTrafficPolicy", spec.internal_traffic_policy.as_deref());
    reasons.value_or(named, TrafficPolicy::Cluster)
}

/// A traffic policy by its exact API name; absence, which Go may write as no text, is `Cluster`.
fn policy(field: &str, name: Option<&str>) -> Result<TrafficPolicy, String> {
    match name {
        None | Some("" | "Cluster") => Ok(TrafficPolicy::Cluster),
        Some("Local") => Ok(TrafficPolicy::Local),
        Some(other) => {
            Err(field::unknown_name(field, other, &["Cluster", "Local"], "Cluster is used"))
        }
    }
}

fn created(metadata: &objects::Metadata) -> Result<Option<i64>, String> {
    let Some(text) = metadata.creation_timestamp.as_deref() else {
        return Ok(None);
    };
    let created = text.parse::<jiff::Timestamp>();
    created.map(|time| Some(time.as_second())).map_err(|_| {
        format!(
            "metadata.creationTimestamp: \"{text}\" is not an RFC 3339 time; the Service \
                 counts as the oldest"
        )
    })
}

#[cfg(test)]
mod tests;
