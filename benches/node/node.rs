//! A node: a network namespace with what the API server and the cluster DNS need to answer.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::process::Command;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use kube_ipvs_proxy::kernel::ipvs;

use crate::cluster::{API_IP, Cluster, DNS_IP, DNS_PODS, NODE_ADDRESS};
use crate::namespace::Namespace;

/// How long one question may go unanswered.
const PATIENCE: Duration = Duration::from_millis(250);
/// Between two questions.
const PAUSE: Duration = Duration::from_millis(10);

/// Runs a closure on a new node.
///
/// What it leaves in the kernel is gone when this returns. Kernel: the table of virtual servers
/// is one for all namespaces, so what is left in one slows the others.
pub fn on_new_node<T: Send>(inside: impl FnOnce() -> T + Send) -> T {
    let namespace = Namespace::new();
    namespace.ip(&links());
    namespace.run(|| {
        for address in DNS_PODS {
            echo(address);
        }
        let result = inside();
        // Each fails only where the case left nothing.
        for command in ["ipvsadm -C", "ip link delete kube-ipvs0"] {
            let _ = Command::new("sh").args(["-c", command]).output();
        }
        result
    })
}

fn links() -> String {
    let [first, second] = DNS_PODS;
    format!(
        "link set lo up\n\
         link add eth0 type dummy\n\
         link set eth0 up\n\
         address add {NODE_ADDRESS}/24 dev eth0\n\
         address add {first}/32 dev eth0\n\
         address add {second}/32 dev eth0\n"
    )
}

/// What the cluster DNS is here: it says what it was asked.
fn echo(address: Ipv4Addr) {
    let socket = UdpSocket::bind((address, 53)).expect("a free port");
    thread::spawn(move || {
        let mut bytes = [0; 512];
        while let Ok((length, from)) = socket.recv_from(&mut bytes) {
            // Whoever does not wait for the answer does without.
            let _ = socket.send_to(&bytes[..length], from);
        }
    });
}

/// Begins to ask the API server by its Service; tells when it answered first, if it did.
pub fn first_api_answer(limit: Duration) -> JoinHandle<Option<Instant>> {
    thread::spawn(move || first(limit, ask_api))
}

/// Begins to ask the cluster DNS by its Service.
pub fn first_dns_answer(limit: Duration) -> JoinHandle<Option<Instant>> {
    thread::spawn(move || first(limit, ask_dns))
}

fn first(limit: Duration, ask: fn() -> Option<()>) -> Option<Instant> {
    let start = Instant::now();
    while start.elapsed() < limit {
        if ask().is_some() {
            return Some(Instant::now());
        }
        thread::sleep(PAUSE);
    }
    None
}

fn ask_api() -> Option<()> {
    let address = SocketAddr::from((API_IP, 443));
    let mut socket = TcpStream::connect_timeout(&address, PATIENCE).ok()?;
    socket.set_read_timeout(Some(PATIENCE)).ok()?;
    socket.write_all(b"GET /healthz HTTP/1.1\r\nhost: kubernetes\r\n\r\n").ok()?;
    let mut answer = [0; 12];
    socket.read_exact(&mut answer).ok()?;
    (&answer == b"HTTP/1.1 200").then_some(())
}

fn ask_dns() -> Option<()> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
    socket.set_read_timeout(Some(PATIENCE)).ok()?;
    socket.connect((DNS_IP, 53)).ok()?;
    socket.send(b"who").ok()?;
    let mut answer = [0; 3];
    socket.recv(&mut answer).ok()?;
    (&answer == b"who").then_some(())
}

/// What the kernel holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Held {
    servers: usize,
    reals: usize,
    /// Addresses that are local by the proxy's device.
    addresses: usize,
}

impl Held {
    /// What a cluster asks for.
    pub fn by(cluster: &Cluster) -> Self {
        let Cluster { services: addresses, .. } = *cluster;
        Held { servers: cluster.servers(), reals: cluster.reals(), addresses }
    }

    /// What there is now; real servers count if they take connections.
    pub fn now() -> Self {
        let listing = ipvs::proc::read().expect("the listing");
        let live = listing.iter().flat_map(|(_, reals)| reals).filter(|real| real.weight > 0);
        let routes = "ip -4 route show table local type local dev kube-ipvs0";
        let routes = Command::new("sh").args(["-c", routes]).output().expect("ip");
        let addresses = String::from_utf8_lossy(&routes.stdout).lines().count();
        Held { servers: listing.len(), reals: live.count(), addresses }
    }
}

/// Fronts that the filter lets pass.
pub fn passes() -> usize {
    let listing = Command::new("ipset").args(["list", "-t", "KUBE-IPVS-PASS"]).output();
    let text = String::from_utf8(listing.expect("ipset").stdout).expect("text");
    let number = text.lines().find_map(|line| line.strip_prefix("Number of entries: "));
    number.and_then(|number| number.parse().ok()).unwrap_or(0)
}

/// Time for one read of `/proc/net/ip_vs`.
pub fn time_listing() -> Duration {
    let start = Instant::now();
    std::fs::read(ipvs::proc::PATH).expect("the listing");
    start.elapsed()
}
