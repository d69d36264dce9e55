//! Routes that make service addresses local, beside addresses and routes of others.

use std::net::IpAddr;

use kube_ipvs_proxy::kernel::link;
use kube_ipvs_proxy::kernel::route::{Client, Placed};
use kube_ipvs_proxy::model::link::{DEVICE, Route};
use nix::errno::Errno;

use crate::Test;
use crate::namespace::command;

pub fn tests() -> impl Iterator<Item = Test> {
    let tests: [Test; 3] = [
        ("routes read back", routes_read_back),
        ("routes of others are neither told nor deleted", routes_of_others_stay),
        ("a route outlives the last address", a_route_outlives_the_last_address),
    ];
    tests.into_iter()
}

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn route(address: &str, source: Option<&str>) -> Placed {
    (ip(address), Route { source: source.map(ip) })
}

/// A client in a namespace with addresses to choose from.
fn client() -> Client {
    command("ip", &["link", "set", "lo", "up"]);
    for address in ["192.0.2.1/32", "192.0.2.2/32", "2001:db8::1/128", "2001:db8::2/128"] {
        command("ip", &["address", "add", address, "dev", "lo"]);
    }
    Client::open().expect("a socket")
}

fn all_well(outcomes: &[Result<(), kube_ipvs_proxy::kernel::netlink::Error>]) {
    assert!(outcomes.iter().all(Result::is_ok), "{outcomes:?}");
}

fn routes_read_back() {
    let mut client = client();
    let routes = [route("10.96.0.1", Some("192.0.2.1")), route("fd00::1", Some("2001:db8::1"))];
    all_well(&client.add(&routes));
    assert_eq!(client.list(), Ok(routes.to_vec()));
    for outcome in client.add(&routes) {
        assert!(outcome.is_err_and(|error| error.is_refusal(Errno::EEXIST)));
    }
    for sources in [[Some("192.0.2.2"), Some("2001:db8::2")], [None, None]] {
        let replaced = [route("10.96.0.1", sources[0]), route("fd00::1", sources[1])];
        all_well(&client.replace(&replaced));
        assert_eq!(client.list(), Ok(replaced.to_vec()));
    }
    for outcome in client.add(&[route("10.96.0.2", Some("192.0.2.99"))]) {
        assert!(outcome.is_err_and(|error| error.is_refusal(Errno::EINVAL)));
    }
    let addresses = routes.map(|(address, _)| address);
    all_well(&client.delete(&addresses));
    assert_eq!(client.list(), Ok(vec![]));
    for outcome in client.delete(&addresses) {
        assert!(outcome.is_err_and(|error| error.is_refusal(Errno::ESRCH)));
    }
}

fn routes_of_others_stay() {
    let mut client = client();
    for words in ["proto 98 metric 73", "proto 73 metric 74"] {
        let words = words.split(' ');
        let to: Vec<&str> = "route append local 10.96.0.1 dev lo table local".split(' ').collect();
        command("ip", &to.into_iter().chain(words).collect::<Vec<_>>());
    }
    assert_eq!(client.list(), Ok(vec![]));
    for outcome in client.delete(&[ip("10.96.0.1")]) {
        assert!(outcome.is_err_and(|error| error.is_refusal(Errno::ESRCH)));
    }
}

/// Kernel: with the last IPv4 address of a device go all routes by it.
fn a_route_outlives_the_last_address() {
    let mut client = client();
    let mut links = link::Client::open().expect("a socket");
    links.create_dummy(DEVICE).expect("a device");
    let device = links.find(DEVICE).expect("an answer").expect("the device");
    let routes = [route("10.96.0.1", Some("192.0.2.1")), route("fd00::1", Some("2001:db8::1"))];
    let addresses = routes.map(|(address, _)| address);
    all_well(&links.add_addresses(&device, &addresses));
    all_well(&client.add(&routes));
    all_well(&links.delete_addresses(&device, &addresses));
    assert_eq!(client.list(), Ok(routes.to_vec()));
    all_well(&links.add_addresses(&device, &addresses));
    all_well(&client.delete(&addresses));
    let all = links.addresses().expect("listed").into_iter();
    assert_eq!(all.filter(|(index, _)| *index == device.index).count(), 2);
}
