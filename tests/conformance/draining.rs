//! Real servers that lose their endpoint, with and without connections.

use std::sync::Arc;

use kube_ipvs_proxy::cluster::Update;
use kube_ipvs_proxy::model::ipvs::Connections;
use kube_ipvs_proxy::testing::node::Node;
use kube_ipvs_proxy::testing::objects::{front, real, service};

use super::case::{Case, case, table};
use super::state::{programmed, servers, slice, slice_deleted};

pub fn cases() -> Vec<Case> {
    let mut cases = table("Test_GracefulDeleteRS", drains(), check);
    cases.push(case("Test_GracefulDeleteRS/unknown-real-server", unknown_real_server));
    cases
}

/// A protocol, active and other connections, and the server afterwards.
type Drain = (&'static str, [u32; 2], &'static str);

fn drains() -> Vec<(&'static str, Drain)> {
    const DRAINS: &str = "tcp 1.1.1.1:80 -> 10.0.0.1:80 (weight 0)";
    vec![
        ("idle", ("tcp", [0, 0], "tcp 1.1.1.1:80 ->")),
        ("active-connections", ("tcp", [10, 0], DRAINS)),
        ("inactive-connections", ("tcp", [0, 10], DRAINS)),
        ("udp", ("udp", [10, 10], "udp 1.1.1.1:80 ->")),
    ]
}

fn serving(protocol: &str) -> (Node, String) {
    let port = format!("{protocol} 80");
    let web: Update = service("ns/svc", &["1.1.1.1"], &[&port]).applied();
    let node = programmed(&[], [web, slice("ns/svc", &port, "10.0.0.1")]);
    (node, format!("{protocol} 1.1.1.1:80"))
}

/// The endpoint vanishes; a first look at the connections comes after two seconds.
fn check((protocol, [active, inactive], expected): Drain) {
    let (mut node, key) = serving(protocol);
    let key = (front(&key), real("10.0.0.1:80"));
    node.kernel.connections.insert(key, Connections { active, inactive });
    node.tell([slice_deleted("ns/svc")]);
    node.sync();
    let weight = node.kernel.tables.servers[&key.0].reals.get(&key.1).map(|real| real.weight);
    assert_ne!(weight, Some(1), "new connections go nowhere from the first moment");
    node.wait(2);
    node.sync();
    assert_eq!(servers(&node), [expected]);
}

/// Another program took it away before.
fn unknown_real_server() {
    let (mut node, key) = serving("tcp");
    let server = node.kernel.tables.servers.get_mut(&front(&key)).unwrap();
    Arc::make_mut(server).reals.clear();
    node.tell([slice_deleted("ns/svc")]);
    for _ in 0..3 {
        node.sync();
        node.wait(10);
    }
    assert!(node.sync().is_complete());
    assert_eq!(servers(&node), ["tcp 1.1.1.1:80 ->"]);
}
