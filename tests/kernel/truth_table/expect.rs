//! The table: what each client finds at each kind of address.
//!
//! Written from the Kubernetes API's words on traffic policies and from kube-proxy's masquerade
//! table (spec 5.5, 14.4), not from what the program does. It holds for both families and for TCP,
//! UDP and SCTP alike.
//!
//! - All clients but the endpoint ask at the first node, the one that the rows speak of.
//!   The endpoint asks at its own node, but for node ports, which are the first node's.
//! - Pods are told from other clients by `--cluster-cidr`; the outside has routes to the node.

use Find::{Dropped, Itself, Node, Refused};
use Where::{Elsewhere, Everywhere, Here};

use crate::cluster::AddressKind::{self, ClusterIp, ExternalIp, LoadBalancer, NodePort};

/// What a client finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Find {
    /// An answer; the pod sees the client's own address.
    Itself,
    /// An answer; the pod sees the address of the node that balanced the connection.
    Node,
    /// No answer, and it is told at once.
    Refused,
    /// No answer, and it is told nothing.
    Dropped,
}

/// Where the Service has endpoints, seen from the first node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Where {
    /// One, on the first node.
    Here,
    /// One, on the second node.
    Elsewhere,
    /// One on each; under the local policy only the first node's may answer.
    Everywhere,
}

/// The policy that counts for an address: the internal one for cluster IPs, the external one for
/// all others. The Service under test has the opposite for the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    Cluster,
    Local,
}

/// The clients, in the order of the columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Client {
    /// A pod of the first node.
    Pod,
    /// A process of the first node.
    Node,
    /// A host outside the cluster.
    Outside,
    /// The pod that answers.
    Endpoint,
}

impl Client {
    pub const COLUMNS: [Self; 4] = [Self::Pod, Self::Node, Self::Outside, Self::Endpoint];
}

/// One row: the endpoints, the address, and what each client finds.
pub type Row = (Where, AddressKind, [Find; 4]);

/// Any endpoint may answer. Who comes by an outer address is masqueraded, as the endpoint may be on
/// another node; so is who asks a cluster IP and is no pod, and a pod that meets itself.
#[rustfmt::skip]
pub const CLUSTER: [Row; 8] = [
    //                         a pod   the node  outside  the endpoint
    (Here,      ClusterIp,    [Itself, Node,     Node,    Node]),
    (Here,      NodePort,     [Node,   Node,     Node,    Node]),
    (Here,      ExternalIp,   [Node,   Node,     Node,    Node]),
    (Here,      LoadBalancer, [Node,   Node,     Node,    Node]),
    (Elsewhere, ClusterIp,    [Itself, Node,     Node,    Node]),
    (Elsewhere, NodePort,     [Node,   Node,     Node,    Node]),
    (Elsewhere, ExternalIp,   [Node,   Node,     Node,    Node]),
    (Elsewhere, LoadBalancer, [Node,   Node,     Node,    Node]),
];

/// The node's own endpoint answers, and sees clients from outside as they are.
///
/// By the API, clients in the cluster get the cluster policy at external IPs and load balancers.
/// IPVS has one list of real servers per address: they get the node's own endpoint, too.
#[rustfmt::skip]
pub const LOCAL_WITH_ENDPOINT: [Row; 4] = [
    //                          a pod   the node  outside  the endpoint
    (Everywhere, ClusterIp,    [Itself, Node,     Node,    Node]),
    (Everywhere, NodePort,     [Itself, Node,     Itself,  Node]),
    (Everywhere, ExternalIp,   [Itself, Node,     Itself,  Node]),
    (Everywhere, LoadBalancer, [Itself, Node,     Itself,  Node]),
];

/// A cluster IP is one of a Service without endpoints. By the outer addresses clients in the
/// cluster get to endpoints elsewhere, and clients from outside nowhere.
#[rustfmt::skip]
pub const LOCAL_WITHOUT_ENDPOINT: [Row; 4] = [
    //                         a pod    the node  outside   the endpoint
    (Elsewhere, ClusterIp,    [Refused, Refused,  Refused,  Node]),
    (Elsewhere, NodePort,     [Itself,  Node,     Dropped,  Node]),
    (Elsewhere, ExternalIp,   [Itself,  Node,     Dropped,  Node]),
    (Elsewhere, LoadBalancer, [Itself,  Node,     Dropped,  Node]),
];
