//! Clusters in few words, and what a node programs for them, in short lines.

use kube_ipvs_proxy::cluster::{Endpoint, Kind, Object, Update};
use kube_ipvs_proxy::config::{DetectLocal, Policy};
use kube_ipvs_proxy::model::iptables::TableName;
use kube_ipvs_proxy::model::net::{Family, PerFamily};
use kube_ipvs_proxy::model::tables::Tables;
use kube_ipvs_proxy::testing::fake_kernel::FakeKernel;
use kube_ipvs_proxy::testing::node::Node;
use kube_ipvs_proxy::testing::objects::{self, applied, endpoint, ip, name, on_node};

/// Nothing tells pods from other clients, as in the tests of the reference.
pub fn policy() -> Policy {
    Policy { detect_local: DetectLocal::ClusterCidr(PerFamily::default()), ..objects::policy() }
}

/// A node whose host has these addresses, after its first sync.
pub fn programmed(host: &[&str], updates: impl IntoIterator<Item = Update>) -> Node {
    programmed_by(policy(), host, updates)
}

/// The same with another policy.
pub fn programmed_by(
    policy: Policy,
    host: &[&str],
    updates: impl IntoIterator<Item = Update>,
) -> Node {
    let mut kernel = FakeKernel::default();
    kernel.host.addresses = host.iter().map(|text| ip(text)).collect();
    synced(Node::with(policy, kernel, updates))
}

/// The node after a sync in which nothing failed.
pub fn synced(mut node: Node) -> Node {
    let report = node.sync();
    assert!(report.is_complete(), "{report:?}");
    node
}

/// Something happens in the cluster, and all drains end.
pub fn tell(node: &mut Node, updates: impl IntoIterator<Item = Update>) {
    node.tell(updates);
    for _ in 0..2 {
        let report = node.sync();
        assert!(report.is_complete(), "{report:?}");
        node.wait(10);
    }
}

/// Endpoints, `10.0.1.1 local, 10.0.1.2, 10.0.1.3 leaving`: ready and elsewhere unless said.
///
/// `unready` neither takes connections nor answers, `leaving` terminates and still answers,
/// `dead` terminates and does not.
pub fn endpoints(text: &str) -> Vec<Endpoint> {
    text.split(", ").map(one_endpoint).collect()
}

fn one_endpoint(text: &str) -> Endpoint {
    let mut words = text.split(' ');
    let mut found = endpoint(words.next().unwrap_or_default());
    for word in words {
        match word {
            "local" => found = on_node(found),
            "unready" => found = objects::unready(found),
            "leaving" => found = objects::terminating(found),
            "dead" => found = objects::terminating(objects::unready(found)),
            other => panic!("no such state of an endpoint: {other}"),
        }
    }
    found
}

/// The slice of a Service with one port.
pub fn slice(service: &str, port: &str, text: &str) -> Update {
    objects::slice_applied(service, &[port], &endpoints(text))
}

/// A slice of a Service under a name of its own.
pub fn slice_named(slice: &str, service: &str, port: &str, text: &str) -> Update {
    let object = objects::slice(service, &[port], &endpoints(text));
    applied(Kind::EndpointSlice, name(slice), Object::EndpointSlice(object))
}

/// The slice of a Service goes.
pub fn slice_deleted(service: &str) -> Update {
    Update::Deleted(Kind::EndpointSlice, name(&format!("{service}-slice")))
}

/// A Service goes.
pub fn service_deleted(service: &str) -> Update {
    Update::Deleted(Kind::Service, name(service))
}

/// Virtual servers with their real servers, `tcp 10.0.0.1:80 -> 10.1.0.1:80 10.1.0.2:80`.
pub fn servers(node: &Node) -> Vec<String> {
    server_lines(&node.kernel.tables)
}

/// The same of any tables.
pub fn server_lines(tables: &Tables) -> Vec<String> {
    let lines = tables.servers.iter().map(|(key, server)| {
        let reals = server.reals.iter().map(|(real, value)| match value.weight {
            1 => format!(" {real}"),
            weight => format!(" {real} (weight {weight})"),
        });
        format!("{key} ->{}", reals.collect::<String>())
    });
    lines.collect()
}

/// The entries of a set, in order, separated by blanks.
pub fn members(node: &Node, set: &str) -> String {
    let entries = node.kernel.tables.entries.iter().filter(|entry| entry.key().name() == set);
    entries.map(|entry| entry.member.to_string()).collect::<Vec<_>>().join(" ")
}

/// The addresses on the device, in order, separated by blanks.
pub fn addresses(node: &Node) -> String {
    let addresses = node.kernel.tables.addresses.keys();
    addresses.map(ToString::to_string).collect::<Vec<_>>().join(" ")
}

/// The rules of a chain as they are.
pub fn chain(node: &Node, family: Family, table: TableName, chain: &str) -> Vec<String> {
    let ruleset = &node.kernel.tables.rulesets[&family];
    ruleset.table(table).chains.get(chain).cloned().unwrap_or_default()
}

/// The rules of a chain, each as the source or set that it asks for, and its target.
pub fn rules(node: &Node, table: TableName, name: &str) -> Vec<String> {
    chain(node, Family::V4, table, name).iter().map(|rule| in_short(rule)).collect()
}

fn in_short(rule: &str) -> String {
    let words: Vec<&str> = rule.split(' ').collect();
    let pairs = words.windows(2).enumerate();
    let asked = pairs.filter_map(|(index, pair)| match pair {
        ["-s" | "--match-set", value] if index == 0 || words[index - 1] != "!" => Some(*value),
        ["-j", target] => Some(*target),
        _ => None,
    });
    asked.collect::<Vec<_>>().join(" ")
}

/// The rules of the reference are there, in its order; ours may stand between them.
pub fn assert_in_order(found: &[String], expected: &[&str]) {
    let mut rest = found.iter();
    for rule in expected {
        assert!(rest.any(|line| line == rule), "{rule} is not where it should be in {found:#?}");
    }
}
