//! On which addresses of the node its node ports are open (spec 2.4).
//!
//! Invariant: only addresses of the host itself count; a service address on our device is not
//! one of them, whatever ranges say (W-14).

use std::collections::BTreeSet;
use std::net::IpAddr;

use crate::config::NodePortAddresses;
use crate::model::net::Family;

/// The addresses of a family that node ports are open on.
///
/// `host` has the addresses of the host, `node` those of its Node object, the best first.
pub fn addresses(
    choice: &NodePortAddresses,
    family: Family,
    host: &BTreeSet<IpAddr>,
    node: &[IpAddr],
) -> BTreeSet<IpAddr> {
    let takes_all = takes_all(choice, family);
    let primary = primary(family, node);
    let is_chosen = |ip: &IpAddr| match choice {
        NodePortAddresses::All => takes_all,
        NodePortAddresses::Primary => primary == Some(*ip),
        NodePortAddresses::Cidrs(cidrs) => takes_all || cidrs.iter().any(|cidr| cidr.contains(ip)),
    };
    host.iter().filter(|ip| Family::of(**ip) == family && is_chosen(ip)).copied().collect()
}

/// Whether every address of a family is chosen, those to come included.
///
/// Parity: ranges of one family only leave the other unrestricted.
pub fn takes_all(choice: &NodePortAddresses, family: Family) -> bool {
    match choice {
        NodePortAddresses::All => true,
        // W-24: while no address of the family is known, its node ports are open nowhere.
        NodePortAddresses::Primary => false,
        NodePortAddresses::Cidrs(cidrs) => {
            let mut of_family = cidrs.iter().filter(|c| Family::of(c.addr()) == family).peekable();
            of_family.peek().is_none() || of_family.any(|cidr| cidr.prefix_len() == 0)
        }
    }
}

/// The address by which the cluster knows the node in a family.
fn primary(family: Family, node: &[IpAddr]) -> Option<IpAddr> {
    node.iter().copied().find(|ip| Family::of(*ip) == family)
}

#[cfg(test)]
mod tests;
