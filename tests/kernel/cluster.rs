//! A cluster of one node under test: a world, a folder of manifests, and the daemon that reads it.

use std::fmt::Write as _;
use std::fs;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::binding;
use crate::daemon::Daemon;
use crate::namespace::Namespace;
use crate::wait;
use crate::whoami::Transport;
use crate::world::{Family, Pod, World};

/// The ranges and addresses of every test.
pub const SERVICE_CIDRS: &str = "10.254.0.0/16,fd00:254::/112";
const CLUSTER_CIDRS: &str = "10.244.0.0/16,fd00:244::/32";
const HEALTHZ: &str = "127.0.0.1:10256";
const METRICS: &str = "127.0.0.1:10249";

/// Port of every Service, unless a test says otherwise, and of every pod.
pub const PORT: u16 = 80;
pub const POD_PORT: u16 = 8080;

/// How long the daemon may take to do what it was told; the lab is slow, and tests share it.
pub const SOON: Duration = Duration::from_secs(40);

/// The node's name as endpoints give it.
pub const NODE: &str = "node-1";
const SECOND_NODE: &str = "node-2";

/// A folder of manifests, gone when dropped.
pub struct Manifests {
    folder: PathBuf,
}

impl Manifests {
    pub fn new() -> Self {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("manifests-{}-{number}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        fs::create_dir(&folder).expect("a folder for manifests");
        let manifests = Self { folder };
        manifests.put("nodes.yaml", &nodes());
        manifests
    }

    pub fn path(&self) -> &str {
        self.folder.to_str().expect("a path of ASCII")
    }

    /// Writes a file at once: a reader sees the old text or the new, never half.
    pub fn put(&self, name: &str, text: &str) {
        let hidden = self.folder.join(format!(".{name}.new"));
        fs::write(&hidden, text).expect("a manifest to write");
        fs::rename(&hidden, self.folder.join(name)).expect("a manifest to put in place");
    }

    pub fn remove(&self, name: &str) {
        fs::remove_file(self.folder.join(name)).expect("a manifest to remove");
    }
}

impl Drop for Manifests {
    fn drop(&mut self) {
        // What is left lies in the folder for temporary files.
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// A Service of the tests, as a manifest.
#[derive(Clone)]
pub struct Service<'a> {
    pub name: &'a str,
    /// Last group of all its addresses.
    pub number: u8,
    pub port: u16,
    pub transports: &'a [Transport],
    pub pods: &'a [&'a Pod],
    /// Whether it has addresses of every kind, not only cluster IPs.
    pub is_exposed: bool,
    /// More lines of its spec.
    pub spec: &'a str,
}

/// The kinds of addresses that a Service can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AddressKind {
    ClusterIp,
    NodePort,
    ExternalIp,
    LoadBalancer,
}

impl AddressKind {
    pub const ALL: [Self; 4] =
        [Self::ClusterIp, Self::NodePort, Self::ExternalIp, Self::LoadBalancer];
}

/// The ranges that all service addresses of the tests lie in.
pub const SERVICE_RANGES: [&str; 6] = [
    "10.254.10.0/24",
    "198.51.100.0/24",
    "203.0.113.0/24",
    "fd00:254::/112",
    "2001:db8:ee::/112",
    "2001:db8:1b::/112",
];

impl<'a> Service<'a> {
    /// A TCP Service on port 80.
    pub fn new(name: &'a str, number: u8, pods: &'a [&'a Pod]) -> Self {
        let transports = &[Transport::Tcp];
        Self { name, number, port: PORT, transports, pods, is_exposed: false, spec: "" }
    }

    /// Where clients find it.
    pub fn front(&self, family: Family) -> SocketAddr {
        self.front_of(AddressKind::ClusterIp, family)
    }

    /// Where clients find it by an address of this kind; node ports are those of the first node.
    pub fn front_of(&self, kind: AddressKind, family: Family) -> SocketAddr {
        let outer = |ipv4: [u8; 3], ipv6| -> IpAddr {
            let [a, b, c] = ipv4;
            match family {
                Family::Ipv4 => Ipv4Addr::new(a, b, c, self.number).into(),
                Family::Ipv6 => {
                    Ipv6Addr::new(0x2001, 0xdb8, ipv6, 0, 0, 0, 0, self.number.into()).into()
                }
            }
        };
        let (address, port) = match kind {
            AddressKind::ClusterIp => (service_address(family, self.number), self.port),
            AddressKind::NodePort => (World::node_address(family), self.node_port()),
            AddressKind::ExternalIp => (outer([198, 51, 100], 0xee), self.port),
            AddressKind::LoadBalancer => (outer([203, 0, 113], 0x1b), self.port),
        };
        SocketAddr::new(address, port)
    }

    fn node_port(&self) -> u16 {
        30_000 + u16::from(self.number)
    }

    /// The Service and one slice per family.
    pub fn manifest(&self) -> String {
        self.without_slices() + &self.slices(self.name)
    }

    /// The Service alone.
    pub fn without_slices(&self) -> String {
        let Self { name, number, port, spec, .. } = self;
        let [v4, v6] = Family::BOTH.map(|family| service_address(family, *number));
        let mut text = format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\nspec:\n  \
             clusterIP: {v4}\n  clusterIPs: [\"{v4}\", \"{v6}\"]\n  ipFamilies: [IPv4, IPv6]\n\
             {exposure}{spec}  ports:\n",
            exposure = if self.is_exposed { self.exposure() } else { String::new() },
        );
        for transport in self.transports {
            let protocol = protocol(*transport);
            let _ = write!(text, "    - {{name: {transport:?}, protocol: {protocol}, port: {port}");
            if self.is_exposed {
                let _ = write!(text, ", nodePort: {}", self.node_port());
            }
            text += "}\n";
        }
        if self.is_exposed {
            let [v4, v6] = self.addresses(AddressKind::LoadBalancer);
            let _ = writeln!(
                text,
                "status: {{loadBalancer: {{ingress: [{{ip: \"{v4}\"}}, {{ip: \"{v6}\"}}]}}}}"
            );
        }
        text
    }

    /// Lines of the spec that ask for every kind of address.
    fn exposure(&self) -> String {
        let [v4, v6] = self.addresses(AddressKind::ExternalIp);
        let mut text = format!("  type: LoadBalancer\n  externalIPs: [\"{v4}\", \"{v6}\"]\n");
        if self.spec.contains("externalTrafficPolicy: Local") {
            let _ = writeln!(text, "  healthCheckNodePort: {}", self.health_port());
        }
        text
    }

    /// Where the node tells load balancers how many endpoints it has, under the local policy.
    pub fn health_port(&self) -> u16 {
        31_000 + u16::from(self.number)
    }

    fn addresses(&self, kind: AddressKind) -> [IpAddr; 2] {
        Family::BOTH.map(|family| self.front_of(kind, family).ip())
    }

    /// One slice of this name for each family.
    pub fn slices(&self, name: &str) -> String {
        Family::BOTH.map(|family| self.slice(name, family)).concat()
    }

    fn slice(&self, slice: &str, family: Family) -> String {
        let (kind, suffix) = match family {
            Family::Ipv4 => ("IPv4", "v4"),
            Family::Ipv6 => ("IPv6", "v6"),
        };
        let name = self.name;
        let mut text = format!(
            "---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata:\n  \
             name: {slice}-{suffix}\n  labels: {{kubernetes.io/service-name: {name}}}\n\
             addressType: {kind}\nports:\n"
        );
        for transport in self.transports {
            let protocol = protocol(*transport);
            let _ = writeln!(
                text,
                "  - {{name: {transport:?}, protocol: {protocol}, port: {POD_PORT}}}"
            );
        }
        text += "endpoints:\n";
        for pod in self.pods {
            let (node, address) = (pod.node, pod.address(family));
            let _ = writeln!(text, "  - {{addresses: [\"{address}\"], nodeName: {node}}}");
        }
        if self.pods.is_empty() {
            text = text.replace("endpoints:\n", "endpoints: []\n");
        }
        text
    }
}

/// The service address of either family that ends in the number.
pub fn service_address(family: Family, number: u8) -> IpAddr {
    match family {
        Family::Ipv4 => Ipv4Addr::new(10, 254, 10, number).into(),
        Family::Ipv6 => Ipv6Addr::new(0xfd00, 0x254, 0, 0, 0, 0, 0, number.into()).into(),
    }
}

/// The nodes as the cluster knows them.
fn nodes() -> String {
    let node = |name, address: fn(Family) -> IpAddr| {
        node_manifest(name, &Family::BOTH.map(|family| address(family).to_string()))
    };
    node(NODE, World::node_address) + &node(SECOND_NODE, World::second_node_address)
}

/// A node that the cluster knows by these addresses.
pub fn node_manifest(name: &str, addresses: &[String]) -> String {
    let address = |address: &String| format!("{{type: InternalIP, address: '{address}'}}");
    let addresses: Vec<String> = addresses.iter().map(address).collect();
    format!(
        "---\napiVersion: v1\nkind: Node\nmetadata: {{name: {name}}}\n\
         status: {{addresses: [{}]}}\n",
        addresses.join(", ")
    )
}

/// The daemon's flags in every test; those that are given again later count.
fn flags() -> Vec<String> {
    vec![
        format!("--hostname-override={NODE}"),
        format!("--cluster-cidr={CLUSTER_CIDRS}"),
        format!("--service-cidr={SERVICE_CIDRS}"),
        format!("--healthz-bind-address={HEALTHZ}"),
        format!("--metrics-bind-address={METRICS}"),
        // Folders are the tests' own; only those that say so keep anything.
        "--state-dir=".into(),
        format!("--vip-binding={}", binding::current()),
        "--v=2".into(),
    ]
}

/// Starts the daemon and waits until it is ready.
pub fn start(world: &World, manifests: &Manifests, more: &[&str]) -> Daemon {
    let daemon = launch(world, manifests, more);
    wait_until_ready(world, &daemon);
    daemon
}

/// Starts the daemon without waiting.
pub fn launch(world: &World, manifests: &Manifests, more: &[&str]) -> Daemon {
    let source = format!("--manifests={}", manifests.path());
    launch_on(world, &[&[source.as_str()], more].concat())
}

/// Starts the daemon on the source that the flags name, without waiting.
pub fn launch_on(world: &World, source: &[&str]) -> Daemon {
    launch_in(&world.node, source)
}

/// Starts the daemon of a node, which further flags may name, without waiting.
pub fn launch_in(node: &Namespace, more: &[&str]) -> Daemon {
    let flags = flags();
    let arguments: Vec<&str> = flags.iter().map(String::as_str).chain(more.to_vec()).collect();
    Daemon::start(node, &arguments)
}

/// Waits for the first complete sync.
pub fn wait_until_ready(world: &World, daemon: &Daemon) {
    wait_until_ready_in(&world.node, daemon);
}

/// Waits for the first complete sync of a node's daemon.
pub fn wait_until_ready_in(node: &Namespace, daemon: &Daemon) {
    let is_in_time = wait::holds_within(SOON, || health_in(node, "/readyz") == Some(200));
    assert!(is_in_time, "not ready within {SOON:?}:\n{}", daemon.log());
}

/// Status of the answer to a question after the daemon's health, if there is an answer.
pub fn health(world: &World, path: &str) -> Option<u16> {
    health_in(&world.node, path)
}

fn health_in(node: &Namespace, path: &str) -> Option<u16> {
    get(node, HEALTHZ, path)?.split(' ').nth(1)?.parse().ok()
}

/// Waits until so many more syncs have ended.
pub fn wait_for_syncs(world: &World, more: u32) {
    let syncs = || metric(world, "kubeproxy_sync_proxy_rules_duration_seconds_count");
    let wanted = syncs() + f64::from(more);
    wait::until(&format!("{more} more syncs"), SOON, || syncs() >= wanted);
}

/// Runs `--cleanup` to its end.
pub fn clean_up(world: &World) {
    clean_up_with(world, &[]);
}

/// The same with more flags.
pub fn clean_up_with(world: &World, more: &[&str]) {
    let mut daemon = Daemon::start(&world.node, &[&["--cleanup"], more].concat());
    let status = daemon.wait_for_end(SOON);
    assert!(status.success(), "--cleanup: {status}\n{}", daemon.log());
}

/// The sum over all series of a metric.
pub fn metric(world: &World, name: &str) -> f64 {
    let text = get(&world.node, METRICS, "/metrics").expect("metrics");
    let series = text
        .lines()
        .filter(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with([' ', '{'])));
    let values: Vec<f64> = series
        .map(|line| line.rsplit(' ').next().and_then(|value| value.parse().ok()).expect("a number"))
        .collect();
    assert!(!values.is_empty(), "no metric {name} in\n{text}");
    values.iter().sum()
}

/// What the daemon's metrics address answers, head and body.
pub fn ask_metrics_address(world: &World, path: &str) -> Option<String> {
    get(&world.node, METRICS, path)
}

fn get(namespace: &Namespace, server: &str, path: &str) -> Option<String> {
    namespace.run(|| {
        let mut stream = TcpStream::connect(server).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
        let request = format!("GET {path} HTTP/1.1\r\nHost: node\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        Some(answer)
    })
}

fn protocol(transport: Transport) -> &'static str {
    match transport {
        Transport::Tcp => "TCP",
        Transport::Udp => "UDP",
        Transport::Sctp => "SCTP",
    }
}
