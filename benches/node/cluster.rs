//! A cluster of any size, as the JSON that a real API server sends.
//!
//! Every Service has one TCP port and a cluster IP, but for the cluster DNS, which has three. The
//! objects carry what real ones do and a proxy has no use for: managed fields, owners, labels,
//! annotations, references to pods; some 1.4 kB per Service, 4.4 kB per slice of ten endpoints.

use std::fmt::Write;
use std::net::{IpAddr, Ipv4Addr};

use kube_ipvs_proxy::cluster::{Kind, Update, objects};
use kube_ipvs_proxy::config::{
    Conntrack, DetectLocal, DrainTimeouts, IpvsTimeouts, NodePortAddresses, Policy, VipBinding,
};
use kube_ipvs_proxy::model::net::PerFamily;

/// Nodes of the cluster; pods are spread over them evenly.
pub const NODES: usize = 500;
/// The node that the proxy stands on.
pub const NODE: &str = "node-0";
/// The node's own address.
pub const NODE_ADDRESS: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
/// Where the API server listens.
pub const API_PORT: u16 = 6443;
/// Range of pod addresses.
pub const POD_CIDR: &str = "10.128.0.0/9";
/// Range of service addresses.
pub const SERVICE_CIDR: &str = "10.96.0.0/12";
/// Cluster IP of the Service `default/kubernetes`.
pub const API_IP: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 1);
/// Cluster IP of the cluster DNS.
pub const DNS_IP: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 10);
/// Addresses of the pods of the cluster DNS.
pub const DNS_PODS: [Ipv4Addr; 2] = [Ipv4Addr::new(10, 255, 0, 1), Ipv4Addr::new(10, 255, 0, 2)];
/// Port of every ordinary Service.
pub const PORT: u16 = 80;
/// Port of every ordinary pod.
pub const POD_PORT: u16 = 8080;

/// Number of the Service `default/kubernetes`.
pub const API: usize = 0;
/// Number of the Service of the cluster DNS.
pub const DNS: usize = 1;
/// Number of the first ordinary Service.
pub const FIRST: usize = 2;

/// Most endpoints that the control plane puts into one slice.
const SLICE: usize = 100;

/// How large it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cluster {
    /// Services, those of the API server and of the cluster DNS among them.
    pub services: usize,
    /// Endpoints of each ordinary Service, at most as many as fit into one slice.
    pub endpoints: usize,
}

/// An endpoint of an ordinary Service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pod {
    /// Decides address, name and node.
    pub number: usize,
    /// Whether it takes new connections.
    pub is_ready: bool,
    /// Whether it is being deleted.
    pub is_terminating: bool,
}

impl Pod {
    /// A pod that serves.
    pub fn ready(number: usize) -> Self {
        Pod { number, is_ready: true, is_terminating: false }
    }

    /// Its address.
    pub fn address(&self) -> IpAddr {
        let number = u32::try_from(self.number).expect("a pod number") + 1;
        Ipv4Addr::from_bits(Ipv4Addr::new(10, 128, 0, 0).to_bits() + number).into()
    }

    /// Number of its node.
    pub fn node(&self) -> usize {
        self.number % NODES
    }
}

impl Cluster {
    /// Cluster IP of a Service.
    pub fn address(service: usize) -> Ipv4Addr {
        match service {
            API => API_IP,
            DNS => DNS_IP,
            other => {
                let offset = u32::try_from(other).expect("a Service number") + 256;
                Ipv4Addr::from_bits(Ipv4Addr::new(10, 96, 0, 0).to_bits() + offset)
            }
        }
    }

    /// Numbers of the ordinary Services.
    pub fn ordinary(&self) -> std::ops::Range<usize> {
        FIRST..self.services
    }

    /// The pods that an ordinary Service begins with.
    pub fn pods(&self, service: usize) -> Vec<Pod> {
        assert!(self.endpoints <= SLICE, "one slice per Service");
        let first = service * self.endpoints;
        (first..first + self.endpoints).map(Pod::ready).collect()
    }

    /// A pod number that none of the first pods has.
    pub fn new_pod(&self, offset: usize) -> usize {
        self.services * self.endpoints + offset
    }

    /// Virtual servers that the cluster asks for.
    pub fn servers(&self) -> usize {
        // The cluster DNS has two more.
        self.services + 2
    }

    /// Real servers that the cluster asks for.
    pub fn reals(&self) -> usize {
        self.ordinary().len() * self.endpoints + 1 + 3 * DNS_PODS.len()
    }

    /// All Services as JSON, in the order of their names as a list has it.
    pub fn services(&self) -> Vec<String> {
        (0..self.services).map(|number| service(number, 1, "")).collect()
    }

    /// All slices as JSON.
    pub fn slices(&self) -> Vec<String> {
        let own = |number| match number {
            API => api_slice(),
            DNS => dns_slice(),
            other => slice(other, &self.pods(other), 1, ""),
        };
        (0..self.services).map(own).collect()
    }

    /// The first lists, as the updates that a source sends.
    pub fn updates(&self) -> impl Iterator<Item = Update> {
        let of_kind = |kind: Kind, objects: Vec<String>| {
            let applied = objects.into_iter().map(move |json| update(kind, &json));
            [Update::ListStarted(kind)].into_iter().chain(applied).chain([Update::ListDone(kind)])
        };
        of_kind(Kind::Service, self.services())
            .chain(of_kind(Kind::EndpointSlice, self.slices()))
            .chain(of_kind(Kind::Endpoints, Vec::new()))
            .chain(of_kind(Kind::Node, vec![node()]))
            .chain(of_kind(Kind::ServiceCidr, vec![service_cidr()]))
    }
}

/// What an object says, as the update that a source sends.
///
/// # Panics
///
/// If it cannot be read.
pub fn update(kind: Kind, json: &str) -> Update {
    let read = objects::read(kind, json).expect("a readable object");
    Update::Applied(kind, read.name, read.parsed)
}

/// What the flags of the bench mean.
pub fn policy() -> Policy {
    Policy {
        node_name: NODE.into(),
        scheduler: "rr".into(),
        masquerade_all: false,
        masquerade_bit: 14,
        detect_local: DetectLocal::ClusterCidr(PerFamily { v4: POD_CIDR.parse().ok(), v6: None }),
        service_cidrs: Vec::new(),
        node_port_addresses: NodePortAddresses::All,
        strict_arp: false,
        excluded: Vec::new(),
        ipvs_timeouts: IpvsTimeouts::default(),
        drain_timeouts: DrainTimeouts::default(),
        removes_leftovers: false,
        ipvs_estimation: false,
        conntrack: Conntrack::default(),
        vip_binding: VipBinding::Address,
    }
}

/// Namespace and name of a Service.
pub fn name(service: usize) -> (String, String) {
    match service {
        API => ("default".into(), "kubernetes".into()),
        DNS => ("kube-system".into(), "kube-dns".into()),
        other => (format!("team-{:02}", other % 100), format!("service-{other:05}")),
    }
}

/// A Service as JSON; `note` is the value of an annotation.
pub fn service(number: usize, version: u64, note: &str) -> String {
    let (namespace, name) = name(number);
    let address = Cluster::address(number);
    let port = |name: &str, protocol: &str, port: u16| {
        format!(
            r#"{{"name":"{name}","protocol":"{protocol}","port":{port},"targetPort":"{name}"}}"#
        )
    };
    let ports = match number {
        API => port("https", "TCP", 443),
        DNS => [port("dns", "UDP", 53), port("dns-tcp", "TCP", 53), port("metrics", "TCP", 9153)]
            .join(","),
        _ => port("http", "TCP", PORT),
    };
    format!(
        r#"{{"kind":"Service","apiVersion":"v1","metadata":{{"name":"{name}","namespace":"{namespace}",{identity},"labels":{{"app.kubernetes.io/component":"server","app.kubernetes.io/instance":"{name}","app.kubernetes.io/managed-by":"Helm","app.kubernetes.io/name":"{name}","app.kubernetes.io/version":"1.27.3","helm.sh/chart":"{name}-4.11.2"}},"annotations":{{"meta.helm.sh/release-name":"{name}","meta.helm.sh/release-namespace":"{namespace}","example.com/note":"{note}"}},"managedFields":[{{"manager":"helm","operation":"Update","apiVersion":"v1","time":"2026-11-21T03:38:11Z","fieldsType":"FieldsV1","fieldsV1":{{"f:metadata":{{"f:annotations":{{".":{{}},"f:meta.helm.sh/release-name":{{}},"f:meta.helm.sh/release-namespace":{{}}}},"f:labels":{{".":{{}},"f:app.kubernetes.io/component":{{}},"f:app.kubernetes.io/instance":{{}},"f:app.kubernetes.io/managed-by":{{}},"f:app.kubernetes.io/name":{{}},"f:app.kubernetes.io/version":{{}},"f:helm.sh/chart":{{}}}}}},"f:spec":{{"f:internalTrafficPolicy":{{}},"f:ports":{{".":{{}},"k:{{\"port\":80,\"protocol\":\"TCP\"}}":{{".":{{}},"f:name":{{}},"f:port":{{}},"f:protocol":{{}},"f:targetPort":{{}}}}}},"f:selector":{{}},"f:sessionAffinity":{{}},"f:type":{{}}}}}}}}]}},"spec":{{"ports":[{ports}],"selector":{{"app.kubernetes.io/instance":"{name}","app.kubernetes.io/name":"{name}"}},"clusterIP":"{address}","clusterIPs":["{address}"],"type":"ClusterIP","sessionAffinity":"None","ipFamilies":["IPv4"],"ipFamilyPolicy":"SingleStack","internalTrafficPolicy":"Cluster"}},"status":{{"loadBalancer":{{}}}}}}"#,
        identity = identity(number, version),
    )
}

/// The slice of an ordinary Service as JSON; `note` is the value of an annotation.
pub fn slice(number: usize, pods: &[Pod], version: u64, note: &str) -> String {
    let (namespace, _) = name(number);
    let endpoints: Vec<String> = pods.iter().map(|pod| endpoint(&namespace, pod)).collect();
    let ports = format!(r#"{{"name":"http","protocol":"TCP","port":{POD_PORT}}}"#);
    slice_around(number, version, note, &endpoints.join(","), &ports)
}

fn api_slice() -> String {
    let endpoint = format!(r#"{{"addresses":["{NODE_ADDRESS}"],"conditions":{{"ready":true}}}}"#);
    let port = format!(r#"{{"name":"https","protocol":"TCP","port":{API_PORT}}}"#);
    slice_around(API, 1, "", &endpoint, &port)
}

fn dns_slice() -> String {
    let endpoints = DNS_PODS.map(|address| {
        format!(r#"{{"addresses":["{address}"],"conditions":{{"ready":true,"serving":true,"terminating":false}},"nodeName":"{NODE}"}}"#)
    });
    let ports = r#"{"name":"dns","protocol":"UDP","port":53},{"name":"dns-tcp","protocol":"TCP","port":53},{"name":"metrics","protocol":"TCP","port":9153}"#;
    slice_around(DNS, 1, "", &endpoints.join(","), ports)
}

fn slice_around(number: usize, version: u64, note: &str, endpoints: &str, ports: &str) -> String {
    let (namespace, name) = name(number);
    let uid = uid(number);
    format!(
        r#"{{"kind":"EndpointSlice","apiVersion":"discovery.k8s.io/v1","metadata":{{"name":"{name}-x7k2p","generateName":"{name}-","namespace":"{namespace}",{identity},"generation":{version},"labels":{{"app.kubernetes.io/component":"server","app.kubernetes.io/instance":"{name}","app.kubernetes.io/managed-by":"Helm","app.kubernetes.io/name":"{name}","endpointslice.kubernetes.io/managed-by":"endpointslice-controller.k8s.io","helm.sh/chart":"{name}-4.11.2","kubernetes.io/service-name":"{name}"}},"annotations":{{"endpoints.kubernetes.io/last-change-trigger-time":"2026-11-21T03:38:11Z","example.com/note":"{note}"}},"ownerReferences":[{{"apiVersion":"v1","kind":"Service","name":"{name}","uid":"{uid}","controller":true,"blockOwnerDeletion":true}}],"managedFields":[{{"manager":"kube-controller-manager","operation":"Update","apiVersion":"discovery.k8s.io/v1","time":"2026-11-21T03:38:11Z","fieldsType":"FieldsV1","fieldsV1":{{"f:addressType":{{}},"f:endpoints":{{}},"f:metadata":{{"f:annotations":{{".":{{}},"f:endpoints.kubernetes.io/last-change-trigger-time":{{}}}},"f:generateName":{{}},"f:labels":{{".":{{}},"f:endpointslice.kubernetes.io/managed-by":{{}},"f:kubernetes.io/service-name":{{}}}},"f:ownerReferences":{{".":{{}},"k:{{\"uid\":\"{uid}\"}}":{{}}}}}},"f:ports":{{}}}}}}]}},"addressType":"IPv4","endpoints":[{endpoints}],"ports":[{ports}]}}"#,
        identity = identity(number, version),
    )
}

fn endpoint(namespace: &str, pod: &Pod) -> String {
    let Pod { number, is_ready, is_terminating } = *pod;
    let (address, node, zone) = (pod.address(), pod.node(), pod.node() % 3);
    let is_serving = is_ready || is_terminating;
    format!(
        r#"{{"addresses":["{address}"],"conditions":{{"ready":{is_ready},"serving":{is_serving},"terminating":{is_terminating}}},"targetRef":{{"kind":"Pod","namespace":"{namespace}","name":"pod-7d9f8b6c5-{number:07}","uid":"{uid}"}},"nodeName":"node-{node}","zone":"zone-{zone}"}}"#,
        uid = uid(number),
    )
}

/// The Node that the proxy stands on, as JSON.
pub fn node() -> String {
    format!(
        r#"{{"kind":"Node","apiVersion":"v1","metadata":{{"name":"{NODE}","uid":"{uid}","resourceVersion":"1","creationTimestamp":"2026-11-21T03:38:11Z","labels":{{"kubernetes.io/hostname":"{NODE}","topology.kubernetes.io/zone":"zone-0"}}}},"spec":{{"podCIDR":"10.128.0.0/24","podCIDRs":["10.128.0.0/24"]}},"status":{{"addresses":[{{"type":"InternalIP","address":"{NODE_ADDRESS}"}},{{"type":"Hostname","address":"{NODE}"}}],"conditions":[{{"type":"Ready","status":"True","lastHeartbeatTime":null,"lastTransitionTime":null}}]}}}}"#,
        uid = uid(0),
    )
}

/// The range of service addresses as JSON.
pub fn service_cidr() -> String {
    format!(
        r#"{{"kind":"ServiceCIDR","apiVersion":"networking.k8s.io/v1","metadata":{{"name":"kubernetes","uid":"{uid}","resourceVersion":"1","creationTimestamp":"2026-11-21T03:38:06Z"}},"spec":{{"cidrs":["{SERVICE_CIDR}"]}},"status":{{"conditions":[{{"type":"Ready","status":"True","lastTransitionTime":"2026-11-21T03:38:06Z","message":"","reason":""}}]}}}}"#,
        uid = uid(0),
    )
}

/// The fields by which the control plane tells objects and their versions apart.
fn identity(number: usize, version: u64) -> String {
    let mut text = String::new();
    let uid = uid(number);
    // Writing into a String cannot fail.
    let _ = write!(
        text,
        r#""uid":"{uid}","resourceVersion":"{version}","creationTimestamp":"2026-11-21T03:38:11Z""#
    );
    text
}

fn uid(number: usize) -> String {
    format!("a16d3922-179f-466f-b320-{number:012x}")
}
