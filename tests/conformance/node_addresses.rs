//! Addresses of the host, and those among them that node ports are open on.

use std::collections::BTreeSet;
use std::net::IpAddr;

use kube_ipvs_proxy::desired::node_ports;
use kube_ipvs_proxy::kernel::addresses;
use kube_ipvs_proxy::model::link::DEVICE;
use kube_ipvs_proxy::model::net::Family::{self, V4, V6};
use kube_ipvs_proxy::testing::objects::ip;

use super::case::{Case, case, table};
use super::configuration;

pub fn cases() -> Vec<Case> {
    let mut cases = table("TestGetNodeIPs", interfaces(), check_interfaces);
    cases.extend(table("util/TestGetNodeIPs", ranges(), check_ranges));
    cases.push(case("TestAddressSet", only_reachable_addresses_count));
    cases.extend(table("TestIsZeroCIDR", zero_ranges(), check_zero_range));
    cases
}

/// Devices with their addresses, separated by blanks, and the host's addresses of a family.
type Interfaces = (Family, &'static [&'static str], &'static str);

fn interfaces() -> Vec<(&'static str, Interfaces)> {
    const LO: &str = "lo 127.0.0.1";
    const TUNNEL: &str = "encap7 10.20.30.31 2000:: fe80::200:ff:fe01:1";
    vec![
        ("0", (V4, &["eth0 1.2.3.4", LO], "1.2.3.4")),
        ("1", (V4, &[LO], "")),
        ("2", (V4, &[], "")),
        (
            "3",
            (
                V4,
                &[
                    "encap0 10.20.30.40 fe80::200:ff:fe01:1",
                    "lo 127.0.0.1 ::1",
                    "docker0 172.17.0.1",
                ],
                "10.20.30.40 172.17.0.1",
            ),
        ),
        (
            "4",
            (
                V4,
                &["encaps9 10.20.30.40", LO, "encap7 1000:: 10.20.30.31"],
                "10.20.30.31 10.20.30.40",
            ),
        ),
        ("5", (V4, &["kube-ipvs0 2000:: 1.2.3.4", LO, "encap7 1000:: 10.20.30.31"], "10.20.30.31")),
        ("6", (V4, &["kube-ipvs0 1.2.3.4 2.3.4.5", LO], "")),
        ("7", (V4, &["kube-ipvs0 1.2.3.4 2.3.4.5"], "")),
        ("8", (V4, &["kube-ipvs0 1.2.3.4 2.3.4.5", "eth5 3.4.5.6", LO], "3.4.5.6")),
        ("9", (V4, &["ipvs0 1.2.3.4", LO, "encap7 10.20.30.31"], "1.2.3.4 10.20.30.31")),
        ("10", (V6, &["ipvs0 1.2.3.4 1000::", LO, TUNNEL], "1000:: 2000::")),
        (
            "11",
            (
                V6,
                &["ipvs0 1.2.3.4 1000::", LO, TUNNEL, "kube-ipvs0 1.2.3.4 2.3.4.5 2000::"],
                "1000:: 2000::",
            ),
        ),
    ]
}

fn check_interfaces((family, devices, expected): Interfaces) {
    let mut all = Vec::new();
    let mut own_device = None;
    for (number, device) in (1..).zip(devices) {
        let mut words = device.split(' ');
        if words.next() == Some(DEVICE) {
            own_device = Some(number);
        }
        all.extend(words.map(|text| (number, ip(text))));
    }
    let found = addresses::of_host(all, own_device);
    assert_eq!(text(found.into_iter().filter(|ip| Family::of(*ip) == family)), expected);
}

fn text(addresses: impl IntoIterator<Item = IpAddr>) -> String {
    let addresses: BTreeSet<IpAddr> = addresses.into_iter().collect();
    addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
}

/// A value of `--nodeport-addresses`, the host's addresses, and what is chosen per family.
///
/// `(all)` before the chosen says that addresses to come are chosen, too.
type Ranges = (&'static str, &'static str, [&'static str; 2]);

fn ranges() -> Vec<(&'static str, Ranges)> {
    const TWO_V4: &str = "10.20.30.51 100.200.201.1";
    const BOTH: &str = "1.2.3.4 2001:db8::1 127.0.0.1 ::1";
    vec![
        ("one-range", ("10.20.30.0/24", TWO_V4, ["10.20.30.51", "(all)"])),
        ("every-ipv4", ("0.0.0.0/0", "10.20.30.51 127.0.0.1", ["(all) 10.20.30.51", "(all)"])),
        (
            "ipv6-range-and-loopback",
            ("2001:db8::/64,::1/128", "2001:db8::1 ::1", ["(all)", "2001:db8::1"]),
        ),
        ("every-ipv6", ("::/0", "2001:db8::1 ::1", ["(all)", "(all) 2001:db8::1"])),
        ("loopback-address", ("127.0.0.1/32", "10.20.30.51 127.0.0.1", ["", "(all)"])),
        ("loopback-range", ("127.0.0.0/8", "127.0.1.1", ["", "(all)"])),
        (
            "two-ranges",
            ("10.20.30.0/24,100.200.201.0/24", TWO_V4, ["10.20.30.51 100.200.201.1", "(all)"]),
        ),
        (
            "two-ranges-elsewhere",
            ("10.20.30.0/24,100.200.201.0/24", "192.168.1.2 127.0.0.1", ["", "(all)"]),
        ),
        ("none-on-ipv4", ("", "192.168.1.2 127.0.0.1", ["(all) 192.168.1.2", "(all)"])),
        ("none-on-ipv6", ("", "2001:db8::1 ::1", ["(all)", "(all) 2001:db8::1"])),
        ("range-and-every-ipv4", ("1.2.3.0/24,0.0.0.0/0", "1.2.3.4", ["(all) 1.2.3.4", "(all)"])),
        (
            "every-ipv4-and-ranges",
            ("0.0.0.0/0,1.2.3.0/24,2001:db8::1/128", BOTH, ["(all) 1.2.3.4", "2001:db8::1"]),
        ),
        (
            "every-ipv6-and-ranges",
            ("::/0,1.2.3.0/24,2001:db8::1/128", BOTH, ["1.2.3.4", "(all) 2001:db8::1"]),
        ),
    ]
}

fn check_ranges((flag, host, expected): Ranges) {
    let flag = format!("--nodeport-addresses={flag}");
    let choice = configuration::good(&[&flag]).policy.node_port_addresses;
    let host = addresses::of_host(host.split(' ').map(|text| (1, ip(text))), None);
    for (family, expected) in Family::ALL.into_iter().zip(expected) {
        let mut found = String::new();
        if node_ports::takes_all(&choice, family) {
            found.push_str("(all) ");
        }
        found.push_str(&text(node_ports::addresses(&choice, family, &host, &[])));
        assert_eq!(found.trim_end(), expected, "{family}");
    }
}

fn only_reachable_addresses_count() {
    let all = ["10.0.0.1", "127.0.0.1", "169.254.7.7", "fd00::1", "fe80::1", "::1"];
    let found = addresses::of_host(all.map(|text| (1, ip(text))), None);
    assert_eq!(text(found), "10.0.0.1 169.254.7.7 fd00::1");
}

/// Ranges of node addresses, and the families of which they take every address.
fn zero_ranges() -> Vec<(&'static str, (&'static str, [bool; 2]))> {
    vec![
        ("every-ipv4", ("0.0.0.0/0,fd00::/64", [true, false])),
        ("every-ipv6", ("10.0.0.0/8,::/0", [false, true])),
        ("ipv4-range", ("172.10.0.0/16,fd00::/64", [false, false])),
        ("unspecified-ipv6-address", ("10.0.0.0/8,::/128", [false, false])),
        ("empty", ("", [true, true])),
    ]
}

fn check_zero_range((flag, expected): (&str, [bool; 2])) {
    let flag = format!("--nodeport-addresses={flag}");
    let choice = configuration::good(&[&flag]).policy.node_port_addresses;
    assert_eq!(Family::ALL.map(|family| node_ports::takes_all(&choice, family)), expected);
}
