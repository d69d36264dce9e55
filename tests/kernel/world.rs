//! A small network of namespaces, new for each test.
//!
//! ```text
//!   pods 10.244.1.n ──veth── node 192.0.2.1 ──veth── outside 192.0.2.2 ──veth── pods 10.244.2.n
//!   fd00:244:1::n            2001:db8::1             2001:db8::2           fd00:244:2::n
//!                                                       │ 198.18.0.2
//!                                                     veth
//!                                                       │
//!                      pods 10.244.3.n ──veth── second node 198.18.0.3
//!                      fd00:244:3::n            2001:db8:2::3
//! ```
//!
//! The node stands for the machine under test; the outside for another node and the rest of the
//! world; the second node is there in tests that ask for it. Traffic is routed, never bridged.
//! A node does not forward until someone tells it to.
//! Its default route leads outside, where unknown destinations vanish without an answer.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::time::Duration;

use crate::namespace::Namespace;
use crate::pod_server::PodServer;
use crate::wait;
use crate::whoami::Transport;

/// An address family.
#[derive(Clone, Copy, Debug)]
pub enum Family {
    Ipv4,
    Ipv6,
}

impl Family {
    pub const BOTH: [Self; 2] = [Self::Ipv4, Self::Ipv6];
}

/// Where a pod runs.
#[derive(Clone, Copy)]
pub enum Place {
    /// On the node under test.
    Node,
    /// On the second node.
    SecondNode,
    /// On another node: behind the outside host.
    Outside,
}

/// The network of one test.
pub struct World {
    pub node: Namespace,
    pub outside: Namespace,
    second: Option<Namespace>,
}

/// A pod; its network vanishes with it.
pub struct Pod {
    pub name: String,
    /// The name of the node that it runs on.
    pub node: &'static str,
    pub namespace: Namespace,
    pub ipv4: Ipv4Addr,
    pub ipv6: Ipv6Addr,
}

/// A machine that pods hang on.
struct Host {
    name: &'static str,
    ipv4: Ipv4Addr,
    ipv6: Ipv6Addr,
    /// Third group of its pods' addresses.
    pods: u8,
}

const NODE: Host =
    Host { name: "node-1", ipv4: Ipv4Addr::new(192, 0, 2, 1), ipv6: documentation(0, 1), pods: 1 };
const OUTSIDE: Host = Host {
    name: "elsewhere",
    ipv4: Ipv4Addr::new(192, 0, 2, 2),
    ipv6: documentation(0, 2),
    pods: 2,
};
/// The outside as the second node sees it.
const OUTSIDE_OF_SECOND: Host =
    Host { ipv4: Ipv4Addr::new(198, 18, 0, 2), ipv6: documentation(2, 2), ..OUTSIDE };
const SECOND: Host =
    Host { name: "node-2", ipv4: Ipv4Addr::new(198, 18, 0, 3), ipv6: documentation(2, 3), pods: 3 };

const LINK_LIMIT: Duration = Duration::from_secs(10);
const LINK_ATTEMPT: Duration = Duration::from_millis(200);

/// What every pod takes for its gateway.
const GATEWAY_IPV4: &str = "169.254.1.1";
const GATEWAY_IPV6: &str = "fe80::1";

impl World {
    /// Makes a node and an outside with no way between them.
    pub fn unlinked() -> Self {
        Self { node: Namespace::new(), outside: Namespace::new(), second: None }
    }

    /// Makes the node and the outside, joined by their `eth0`.
    pub fn new() -> Self {
        Self::around(Namespace::new())
    }

    /// Makes the same around a node that is there already.
    pub fn around(node: Namespace) -> Self {
        let world = Self { node, ..Self::unlinked() };
        set_forwarding(&world.outside, "1");
        world.attach(&world.node, &NODE, &OUTSIDE, "eth0");
        world.outside.ip("route add blackhole default\nroute add blackhole ::/0");
        world
    }

    /// Makes the same with a second node, on another link of the outside.
    pub fn with_second_node() -> Self {
        let second = Namespace::new();
        let world = Self { second: Some(second.clone()), ..Self::new() };
        world.attach(&second, &SECOND, &OUTSIDE_OF_SECOND, "eth1");
        world
    }

    /// Joins a node's `eth0` with a device of the outside.
    fn attach(&self, node: &Namespace, host: &Host, outside: &Host, device: &str) {
        let other_end = self.outside.path();
        node.ip(&format!("link add eth0 type veth peer name {device} netns {other_end}"));
        self.outside.ip(&outside.uplink(device, host));
        node.ip(&host.uplink("eth0", outside));
        node.ip(&outside.as_default_route());
        set_forwarding(node, "0");
        wait_for_link(node, outside);
    }

    /// The second node of a world that has one.
    pub fn second_node(&self) -> &Namespace {
        self.second.as_ref().expect("a world with a second node")
    }

    /// The node's own address of either family.
    pub fn node_address(family: Family) -> IpAddr {
        NODE.address(family)
    }

    /// The second node's own address of either family.
    pub fn second_node_address(family: Family) -> IpAddr {
        SECOND.address(family)
    }

    /// The address by which the outside reaches the node.
    pub fn outside_address(family: Family) -> IpAddr {
        OUTSIDE.address(family)
    }

    /// Leads everybody outside who asks for these ranges to the node.
    pub fn route_from_outside(&self, ranges: &[&str]) {
        let route = |range: &&str| {
            let family = if range.contains(':') { Family::Ipv6 } else { Family::Ipv4 };
            format!("route add {range} via {}\n", Self::node_address(family))
        };
        self.outside.ip(&ranges.iter().map(route).collect::<String>());
    }

    /// Lets the nodes answer every refused packet; their kernels would leave out most.
    pub fn refuse_without_limit(&self) {
        for node in [&self.node].into_iter().chain(&self.second) {
            for path in ["net/ipv4/icmp_ratelimit", "net/ipv6/icmp/ratelimit"] {
                node.sysctl(path, "0");
            }
        }
    }

    /// Lets the node forward, in tests without the daemon.
    pub fn forward(&self) {
        set_forwarding(&self.node, "1");
    }

    /// Makes a pod; `number` is the last group of its addresses.
    pub fn pod(&self, name: &str, place: Place, number: u8) -> Pod {
        let (host, host_namespace) = match place {
            Place::Node => (&NODE, &self.node),
            Place::SecondNode => (&SECOND, self.second_node()),
            Place::Outside => (&OUTSIDE, &self.outside),
        };
        let pod = Pod {
            name: name.into(),
            node: host.name,
            namespace: Namespace::new(),
            ipv4: Ipv4Addr::new(10, 244, host.pods, number),
            ipv6: Ipv6Addr::new(0xfd00, 0x244, host.pods.into(), 0, 0, 0, 0, number.into()),
        };
        host_namespace.ip(&host.link_to(&pod, &format!("pod{number}")));
        pod.namespace.ip(&pod.links());
        wait_for_link(&pod.namespace, host);
        pod
    }
}

impl Pod {
    /// The pod's address of either family.
    pub fn address(&self, family: Family) -> IpAddr {
        match family {
            Family::Ipv4 => self.ipv4.into(),
            Family::Ipv6 => self.ipv6.into(),
        }
    }

    /// Starts a server that tells who it is, on both families.
    pub fn serve(&self, transport: Transport, port: u16) -> PodServer {
        let each = [self.ipv4.into(), self.ipv6.into()];
        let places = match transport {
            Transport::Tcp | Transport::Udp => &[Ipv6Addr::UNSPECIFIED.into()][..],
            // SCTP names all addresses that it listens at to the client, which then tries them
            // past the Service, at its port, and is reset there.
            Transport::Sctp => &each,
        };
        let places: Vec<_> = places.iter().map(|ip: &IpAddr| SocketAddr::new(*ip, port)).collect();
        PodServer::start(&self.namespace, &self.name, transport, &places)
    }

    /// `ip` lines for the pod's own side.
    fn links(&self) -> String {
        let Self { ipv4, ipv6, .. } = self;
        format!(
            "link set lo up\n\
             link set eth0 up\n\
             address add {ipv4}/32 dev eth0\n\
             address add {ipv6}/128 dev eth0\n\
             route add default via {GATEWAY_IPV4} dev eth0 onlink\n\
             route add default via {GATEWAY_IPV6} dev eth0\n"
        )
    }
}

impl Host {
    fn address(&self, family: Family) -> IpAddr {
        match family {
            Family::Ipv4 => self.ipv4.into(),
            Family::Ipv6 => self.ipv6.into(),
        }
    }

    /// `ip` lines for the link to the other host and the way to its pods.
    fn uplink(&self, device: &str, other: &Host) -> String {
        let Self { ipv4, ipv6, .. } = self;
        format!(
            "link set lo up\n\
             link set {device} up\n\
             address add {ipv4}/24 dev {device}\n\
             address add {ipv6}/64 dev {device}\n\
             route add 10.244.{pods}.0/24 via {via_ipv4}\n\
             route add fd00:244:{pods}::/64 via {via_ipv6}\n",
            pods = other.pods,
            via_ipv4 = other.ipv4,
            via_ipv6 = other.ipv6,
        )
    }

    fn as_default_route(&self) -> String {
        format!("route add default via {}\nroute add default via {}\n", self.ipv4, self.ipv6)
    }

    /// `ip` lines for the host's side of a pod's link.
    fn link_to(&self, pod: &Pod, device: &str) -> String {
        let Self { ipv4, ipv6, .. } = self;
        format!(
            "link add {device} type veth peer name eth0 netns {namespace}\n\
             link set {device} up\n\
             address add {GATEWAY_IPV4}/32 dev {device} scope link\n\
             address add {GATEWAY_IPV6}/64 dev {device}\n\
             route add {pod_ipv4}/32 dev {device} src {ipv4}\n\
             route add {pod_ipv6}/128 dev {device} src {ipv6}\n",
            namespace = pod.namespace.path(),
            pod_ipv4 = pod.ipv4,
            pod_ipv6 = pod.ipv6,
        )
    }
}

/// Returns once packets get to the host and back, in both families.
///
/// Kernel: what is sent over IPv6 in the first moments of a new device can get lost, and is sent
/// again only a second later.
fn wait_for_link(from: &Namespace, host: &Host) {
    for family in Family::BOTH {
        let closed_port = SocketAddr::new(host.address(family), 1);
        wait::until("a link", LINK_LIMIT, || from.run(|| is_refused(closed_port)));
    }
}

fn is_refused(to: SocketAddr) -> bool {
    let attempt = TcpStream::connect_timeout(&to, LINK_ATTEMPT);
    attempt.is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
}

const fn documentation(link: u16, host: u16) -> Ipv6Addr {
    Ipv6Addr::new(0x2001, 0xdb8, link, 0, 0, 0, 0, host)
}

fn set_forwarding(namespace: &Namespace, value: &str) {
    namespace.sysctl("net/ipv4/ip_forward", value);
    namespace.sysctl("net/ipv6/conf/all/forwarding", value);
}
