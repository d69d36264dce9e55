//! Nodes: the slim API type to the parsed value (spec 1.9).
//!
//! Called by [`super::objects::read`]. Invariant: an address or range that cannot be used costs
//! itself; there is always a Node.

use super::field::{self, Reasons};
use super::{Node, Object, Parsed, objects};

/// The cluster autoscaler is about to remove the node.
const LEAVING_TAINT: &str = "ToBeDeletedByClusterAutoscaler";

/// Parses a Node.
pub fn parse(object: &objects::Node) -> Parsed {
    let mut reasons = Reasons::default();
    let mut addresses = Vec::new();
    for wanted in ["InternalIP", "ExternalIP"] {
        let all = object.status.addresses.iter().enumerate();
        addresses.extend(reasons.usable(all.filter(|(_, address)| address.r#type == wanted).map(
            |(i, address)| {
                field::address(format_args!("status.addresses[{i}].address"), &address.address)
            },
        )));
    }
    let pod_cidrs = reasons.usable(
        pod_cidrs(&object.spec)
            .enumerate()
            .map(|(i, text)| field::cidr(format_args!("spec.podCIDRs[{i}]"), text)),
    );
    let is_tainted = object.spec.taints.iter().any(|taint| taint.key == LEAVING_TAINT);
    let node = Node {
        addresses,
        zone: object
            .metadata
            .labels
            .zone
            .as_deref()
            .filter(|zone| !zone.is_empty())
            .map(Into::into),
        pod_cidrs,
        is_leaving: is_tainted || object.metadata.deletion_timestamp.is_some(),
    };
    Parsed { object: Some(Object::Node(node)), reasons: reasons.0, ..Parsed::default() }
}

/// The pod ranges; manifests may give only the first, which the API server would copy.
fn pod_cidrs(spec: &objects::NodeSpec) -> impl Iterator<Item = &str> {
    let is_single = spec.pod_cidrs.is_empty() && !spec.pod_cidr.is_empty();
    let single = is_single.then_some(spec.pod_cidr.as_str());
    spec.pod_cidrs.iter().map(String::as_str).chain(single)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::cluster::Kind;
    use crate::testing::objects::reasons;

    fn parse_object(object: Value) -> (Node, Vec<String>) {
        let parsed = objects::read(Kind::Node, &object.to_string()).unwrap().parsed;
        let reasons = reasons(&parsed).into_iter().map(str::to_owned).collect();
        match parsed.object {
            Some(Object::Node(node)) => (node, reasons),
            other => panic!("not a Node: {other:?}"),
        }
    }

    #[test]
    fn internal_addresses_come_before_external_ones() {
        let address = |kind: &str, text: &str| json!({"type": kind, "address": text});
        let (node, rejected) = parse_object(json!({
            "metadata": {"name": "n", "labels": {"topology.kubernetes.io/zone": "zone-a"}},
            "spec": {"podCIDR": "10.244.1.0/24", "podCIDRs": ["10.244.1.0/24", "fd00:1::/64"]},
            "status": {"addresses": [
                address("ExternalIP", "192.0.2.7"),
                address("Hostname", "n"),
                address("InternalIP", "10.0.0.7"),
                address("InternalIP", "fd00::7"),
                address("InternalIP", "n.example"),
            ]},
        }));
        let addresses: Vec<_> = node.addresses.iter().map(ToString::to_string).collect();
        assert_eq!(addresses, ["10.0.0.7", "fd00::7", "192.0.2.7"]);
        assert_eq!(node.zone.as_deref(), Some("zone-a"));
        let ranges: Vec<_> = node.pod_cidrs.iter().map(ToString::to_string).collect();
        assert_eq!(ranges, ["10.244.1.0/24", "fd00:1::/64"]);
        assert!(!node.is_leaving);
        assert_eq!(rejected, ["status.addresses[4].address: \"n.example\" is not an IP address"]);
    }

    #[test]
    fn the_single_pod_range_counts_where_the_list_is_missing() {
        let (node, _) = parse_object(json!({"metadata": {"name": "n"},
            "spec": {"podCIDR": "10.244.1.9/24"}}));
        assert_eq!(node.pod_cidrs, ["10.244.1.0/24".parse().unwrap()]);
    }

    #[test]
    fn a_node_leaves_when_deleted_or_tainted_for_it() {
        for (object, is_leaving) in [
            (json!({"metadata": {"name": "n"}}), false),
            (json!({"metadata": {"name": "n", "deletionTimestamp": "2026-11-21T03:38:11Z"}}), true),
            (
                json!({"metadata": {"name": "n"}, "spec": {"taints": [
                    {"key": "x", "effect": "NoSchedule"}, {"key": LEAVING_TAINT}]}}),
                true,
            ),
            (json!({"metadata": {"name": "n"}, "spec": {"taints": [{"key": "x"}]}}), false),
        ] {
            assert_eq!(parse_object(object.clone()).0.is_leaving, is_leaving, "{object}");
        }
    }
}
