//! Which endpoints this node may use (spec 1.7).
//!
//! Invariant: hints and conditions decide, nothing else; a Service is never left without
//! endpoints because hints are missing or stale.

use crate::cluster::endpoints::PortEndpoint;
use crate::cluster::{Endpoint, TrafficPolicy};
use crate::model::ipvs::RealKey;

/// The endpoints of one port, ascending by address and port.
pub type Endpoints<'a> = [PortEndpoint<'a>];

/// Where this node stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place<'a> {
    /// Its name.
    pub node: &'a str,
    /// Its zone, if it has one.
    pub zone: Option<&'a str>,
}

/// The endpoints that new connections under a policy may go to, ascending.
pub fn usable(endpoints: &Endpoints<'_>, policy: TrafficPolicy, place: Place<'_>) -> Vec<RealKey> {
    match policy {
        TrafficPolicy::Cluster => cluster_wide(endpoints, place),
        TrafficPolicy::Local => on_this_node(endpoints, place),
    }
}

/// Whether there are endpoints to use, and none of them on this node.
pub fn are_all_elsewhere(endpoints: &Endpoints<'_>, place: Place<'_>) -> bool {
    let mut usable =
        endpoints.iter().map(|found| found.endpoint).filter(|e| is_usable(e)).peekable();
    usable.peek().is_some() && usable.all(|endpoint| !is_local(endpoint, place))
}

/// Whether an endpoint may be used by somebody.
pub fn is_usable(endpoint: &Endpoint) -> bool {
    endpoint.ready || is_last_resort(endpoint)
}

/// Whether an endpoint runs on this node.
pub fn is_local(endpoint: &Endpoint, place: Place<'_>) -> bool {
    endpoint.node.as_deref() == Some(place.node)
}

fn cluster_wide(endpoints: &Endpoints<'_>, place: Place<'_>) -> Vec<RealKey> {
    let known = endpoints.iter().map(|found| found.endpoint);
    let ready: Vec<&Endpoint> = known.filter(|endpoint| endpoint.ready).collect();
    let nearness = Nearness::of(&ready, place);
    let chosen = keys(endpoints, |e| e.ready && nearness.allows(e, place));
    match chosen.is_empty() {
        false => chosen,
        true => keys(endpoints, is_last_resort),
    }
}

fn on_this_node(endpoints: &Endpoints<'_>, place: Place<'_>) -> Vec<RealKey> {
    let ready = keys(endpoints, |e| e.ready && is_local(e, place));
    match ready.is_empty() {
        false => ready,
        true => keys(endpoints, |e| is_last_resort(e) && is_local(e, place)),
    }
}

/// An endpoint to use when none is ready: it is leaving but still answers.
fn is_last_resort(endpoint: &Endpoint) -> bool {
    endpoint.serving && endpoint.terminating
}

fn keys(endpoints: &Endpoints<'_>, wanted: impl Fn(&Endpoint) -> bool) -> Vec<RealKey> {
    endpoints.iter().filter(|found| wanted(found.endpoint)).map(real).collect()
}

/// The real server that an endpoint is.
pub fn real(found: &PortEndpoint<'_>) -> RealKey {
    RealKey { address: found.endpoint.address, port: found.port }
}

/// How near an endpoint has to be, judged by the hints of all ready ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Nearness {
    SameNode,
    SameZone,
    Anywhere,
}

impl Nearness {
    fn of(ready: &[&Endpoint], place: Place<'_>) -> Self {
        let node_hinted = !ready.is_empty() && ready.iter().all(|e| !e.node_hints().is_empty());
        if node_hinted && ready.iter().any(|e| Nearness::SameNode.allows(e, place)) {
            return Nearness::SameNode;
        }
        let zone_hinted = !ready.is_empty() && ready.iter().all(|e| !e.zone_hints().is_empty());
        if zone_hinted && ready.iter().any(|e| Nearness::SameZone.allows(e, place)) {
            return Nearness::SameZone;
        }
        Nearness::Anywhere
    }

    fn allows(self, endpoint: &Endpoint, place: Place<'_>) -> bool {
        match self {
            Nearness::SameNode => endpoint.node_hints().iter().any(|node| **node == *place.node),
            Nearness::SameZone => {
                endpoint.zone_hints().iter().any(|zone| Some(&**zone) == place.zone)
            }
            Nearness::Anywhere => true,
        }
    }
}

#[cfg(test)]
mod tests;
