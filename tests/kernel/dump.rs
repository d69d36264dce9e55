//! What the kernel holds, in the words of the ordinary tools.

#![allow(dead_code, reason = "the first daemon tests use the rest")]

use crate::namespace::Namespace;
use crate::world::Family;

/// Virtual and real servers as `ipvsadm --save`.
pub fn servers(namespace: &Namespace) -> String {
    namespace.output("ipvsadm", &["--save", "--numeric"])
}

/// Sets as `ipset save`.
pub fn sets(namespace: &Namespace) -> String {
    namespace.output("ipset", &["save"])
}

/// Rules as `iptables-save`.
pub fn rules(namespace: &Namespace, family: Family) -> String {
    match family {
        Family::Ipv4 => namespace.output("iptables-save", &[]),
        Family::Ipv6 => namespace.output("ip6tables-save", &[]),
    }
}

/// Devices with their addresses as `ip address`, one line each.
pub fn addresses(namespace: &Namespace) -> String {
    namespace.output("ip", &["-oneline", "address"])
}

/// Tracked connections as `conntrack -L`.
pub fn flows(namespace: &Namespace, family: Family) -> String {
    let family = match family {
        Family::Ipv4 => "ipv4",
        Family::Ipv6 => "ipv6",
    };
    namespace.output("conntrack", &["-L", "-f", family])
}
