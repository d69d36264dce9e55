//! A small network of namespaces, new for each test.
//!
//! ```text
//!   pods 10.244.1.n ──veth── node 192.0.2.1 ──veth── outside 192.0.2.2 ──veth── pods 10.244.2.n
//!   fd00:244:1::n            2001:db8::1             2001:db8::2           fd00:244:2::n
//! ```
//!
//! The node stands for the machine under test; the outside for another node and the rest of the
//! world. Traffic is routed, never bridged. The node does not forward until someone tells it to.
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
    /// On another node: behind the outside host.
    Outside,
}

/// The network of one test.
pub struct World {
    pub node: Namespace,
    pub outside: Namespace,
}

/// A pod; its network vanishes with it.
pub struct Pod {
    pub name: String,
    pub namespace: Namespace,
    pub ipv4: Ipv4Addr,
    pub ipv6: Ipv6Addr,
}

/// A machine that pods hang on.
struct Host {
    ipv4: Ipv4Addr,
    ipv6: Ipv6Addr,
    /// Third group of its pods' addresses.
    pods: u8,
}

const NODE: Host = Host { ipv4: Ipv4Addr::new(192, 0, 2, 1), ipv6: documentation(1), pods: 1 };
const OUTSIDE: Host = Host { ipv4: Ipv4Addr::new(192, 0, 2, 2), ipv6: documentation(2), pods: 2 };

const LINK_LIMIT: Duration = Duration::from_secs(10);
const LINK_ATTEMPT: Duration = Duration::from_millis(200);

/// What every pod takes for its gateway.
const GATEWAY_IPV4: &str = "169.254.1.1";
const GATEWAY_IPV6: &str = "fe80::1";

impl World {
    /// Makes the node and the outside, joined by their `eth0`.
    pub fn new() -> Self {
        let world = Self { node: Namespace::new(), outside: Namespace::new() };
        let other_end = world.outside.path();
        world.node.ip(&format!("link add eth0 type veth peer name eth0 netns {other_end}"));
        world.outside.ip(&OUTSIDE.uplink(&NODE));
        world.outside.ip("route add blackhole default\nroute add blackhole ::/0");
        world.node.ip(&NODE.uplink(&OUTSIDE));
        world.node.ip(&OUTSIDE.as_default_route());
        set_forwarding(&world.outside, "1");
        set_forwarding(&world.node, "0");
        wait_for_link(&world.node, &OUTSIDE);
        world
    }

    /// The node's own address of either family.
    pub fn node_address(family: Family) -> IpAddr {
        NODE.address(family)
    }

    /// Lets the node forward, in tests without the daemon.
    pub fn forward(&self) {
        set_forwarding(&self.node, "1");
    }

    /// Makes a pod; `number` is the last group of its addresses.
    pub fn pod(&self, name: &str, place: Place, number: u8) -> Pod {
        let (host, host_namespace) = match place {
            Place::Node => (&NODE, &self.node),
            Place::Outside => (&OUTSIDE, &self.outside),
        };
        let pod = Pod {
            name: name.into(),
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
        PodServer::start(&self.namespace, &self.name, transport, port)
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
    fn uplink(&self, other: &Host) -> String {
        let Self { ipv4, ipv6, .. } = self;
        format!(
            "link set lo up\n\
             link set eth0 up\n\
             address add {ipv4}/24 dev eth0\n\
             address add {ipv6}/64 dev eth0\n\
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

const fn documentation(host: u16) -> Ipv6Addr {
    Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, host)
}

fn set_forwarding(namespace: &Namespace, value: &str) {
    namespace.sysctl("net/ipv4/ip_forward", value);
    namespace.sysctl("net/ipv6/conf/all/forwarding", value);
}
