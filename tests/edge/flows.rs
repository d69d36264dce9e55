//! UDP flows: those of a listing, what the kernel filters, and what a deletion hits.

use std::collections::BTreeSet;
use std::net::{SocketAddr, UdpSocket};
use std::process::Command;
use std::sync::{PoisonError, RwLock};

use kube_ipvs_proxy::kernel::conntrack::{Client, Filter};
use kube_ipvs_proxy::kernel::{Kernel, LinuxKernel};
use kube_ipvs_proxy::model::conntrack::Flow;
use kube_ipvs_proxy::model::ipvs::ServerKey;
use kube_ipvs_proxy::model::net::Protocol;
use kube_ipvs_proxy::model::observed::Scope;

use crate::Test;
use crate::namespace::command;

pub fn tests() -> impl Iterator<Item = Test> {
    let tests: [Test; 3] = [
        ("the flows to some fronts are listed", the_flows_to_some_fronts_are_listed),
        ("one flow is deleted and no other", one_flow_is_deleted_and_no_other),
        ("what lists them is loaded on demand", what_lists_them_is_loaded_on_demand),
    ];
    tests.into_iter()
}

/// Held to write by the test that unloads the module: meanwhile the kernel refuses every listing
/// with EPROTONOSUPPORT, in all namespaces.
static MODULE: RwLock<()> = RwLock::new(());

/// Addresses and ports that are sent to, two of each in both families.
const DESTINATIONS: [&str; 6] = [
    "127.0.0.10:53",
    "127.0.0.10:54",
    "127.0.0.11:53",
    "[fd00::10]:53",
    "[fd00::10]:54",
    "[fd00::11]:53",
];

fn front(text: &str) -> ServerKey {
    let at: SocketAddr = text.parse().expect("an address and a port");
    ServerKey { address: at.ip(), port: at.port(), protocol: Protocol::Udp }
}

/// Sends a datagram to each destination, with tracking on; the sockets keep their ports.
fn send() -> Vec<UdpSocket> {
    for program in ["iptables", "ip6tables"] {
        let rule = ["-A", "OUTPUT", "-m", "conntrack", "--ctstate", "INVALID", "-j", "DROP"];
        command(program, &rule);
    }
    for address in ["fd00::10/128", "fd00::11/128"] {
        command("ip", &["address", "add", address, "dev", "lo", "nodad"]);
    }
    let send_to = |text: &&str| {
        let to: SocketAddr = text.parse().expect("an address and a port");
        let socket = UdpSocket::bind(SocketAddr::new(to.ip(), 0)).expect("a socket");
        socket.send_to(b"?", to).expect("sent");
        socket
    };
    DESTINATIONS.iter().map(send_to).collect()
}

fn listed(client: &mut Client, texts: &[&str]) -> BTreeSet<Flow> {
    let fronts: BTreeSet<ServerKey> = texts.iter().map(|text| front(text)).collect();
    let filter = Filter::of(&fronts).expect("fronts");
    let flows = client.flows(&filter, |flow| fronts.contains(&flow.front()));
    flows.expect("listed").into_iter().collect()
}

fn destinations(flows: &BTreeSet<Flow>) -> BTreeSet<String> {
    flows.iter().map(|flow| flow.destination.to_string()).collect()
}

fn the_flows_to_some_fronts_are_listed() {
    let _loaded = MODULE.read().unwrap_or_else(PoisonError::into_inner);
    let sockets = send();
    let mut client = Client::open().expect("a socket");
    for texts in [
        &DESTINATIONS[..1],
        &DESTINATIONS[..2],
        &DESTINATIONS[1..3],
        &[DESTINATIONS[0], DESTINATIONS[2]],
        &DESTINATIONS[3..4],
        &DESTINATIONS[3..5],
        &[DESTINATIONS[3], DESTINATIONS[5]],
        &["127.0.0.12:53"],
    ] {
        let flows = listed(&mut client, texts);
        let expected = texts.iter().map(|text| (*text).to_owned());
        let expected = expected.filter(|text| DESTINATIONS.contains(&text.as_str()));
        assert_eq!(destinations(&flows), expected.collect(), "{texts:?}");
    }
    let flow = listed(&mut client, &DESTINATIONS[..1]).pop_first().expect("a flow");
    assert_eq!(flow.client, sockets[0].local_addr().expect("bound"));
    assert_eq!(flow.answerer, flow.destination);
    // What the kernel sends, not what is left of it.
    let filter = Filter::of(&[front(DESTINATIONS[0])].into()).expect("a front");
    assert_eq!(client.flows(&filter, |_| true).expect("listed").len(), 1);
}

fn one_flow_is_deleted_and_no_other() {
    let _loaded = MODULE.read().unwrap_or_else(PoisonError::into_inner);
    let _sockets = send();
    let mut client = Client::open().expect("a socket");
    for texts in [&DESTINATIONS[..3], &DESTINATIONS[3..]] {
        let before = listed(&mut client, texts);
        let flow = *before.first().expect("flows");
        let other = Flow { id: flow.id.wrapping_add(1), ..flow };
        assert_eq!(client.delete([other]), [Ok(())], "as if gone");
        assert_eq!(listed(&mut client, texts), before);
        assert_eq!(client.delete([flow]), [Ok(())]);
        let after: BTreeSet<Flow> =
            before.iter().filter(|there| **there != flow).copied().collect();
        assert_eq!(listed(&mut client, texts), after);
        assert_eq!(client.delete([flow]), [Ok(())], "gone");
    }
    assert_eq!(client.written(), 6);
}

fn what_lists_them_is_loaded_on_demand() {
    let _unloaded = MODULE.write().unwrap_or_else(PoisonError::into_inner);
    let module = "nf_conntrack_netlink";
    // It cannot be unloaded where it is built in.
    let _ = Command::new("modprobe").args(["--remove", module]).output();
    let _sockets = send();
    let mut kernel = LinuxKernel::new().expect("a kernel");
    let fronts = [front(DESTINATIONS[0])].into();
    let observed = kernel.observe(&Scope::Flows(fronts)).expect("observed");
    assert_eq!(observed.flows.len(), 1);
}
