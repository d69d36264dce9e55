//! The addresses and ranges that rows depend on, by configuration, cluster and host.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;

use super::Engine;
use crate::desired::node_ports;
use crate::model::net::Family;

impl Engine {
    /// Where programs listen that are to answer on the node's addresses: on those that node ports
    /// are open on, or on the unspecified one of a family without a restriction.
    pub fn listening(&self) -> BTreeSet<IpAddr> {
        let choice = &self.policy.node_port_addresses;
        let is_free = |ip: &IpAddr| node_ports::takes_all(choice, Family::of(*ip));
        let chosen = self.node_addresses.iter().copied().filter(|ip| !is_free(ip));
        let families = Family::ALL.into_iter().filter(|family| *self.host.families.get(*family));
        chosen.chain(families.map(Family::unspecified).filter(is_free)).collect()
    }

    /// The addresses on which node ports answer.
    pub(super) fn node_addresses(&self) -> BTreeSet<IpAddr> {
        let known = self.node.as_ref().map_or(&[][..], |node| &node.addresses);
        let of_family = |family| {
            let choice = &self.policy.node_port_addresses;
            node_ports::addresses(choice, family, &self.host.addresses, known)
        };
        Family::ALL.into_iter().flat_map(of_family).collect()
    }

    /// Ranges of service addresses, configured or learnt.
    pub(super) fn service_cidrs(&self) -> Vec<IpNet> {
        let configured = &self.policy.service_cidrs;
        let cidrs: Vec<IpNet> = match configured.is_empty() {
            true => self.store.service_cidrs().copied().collect(),
            false => configured.clone(),
        };
        let is_usable = |cidr: &IpNet| *self.host.families.get(Family::of(cidr.addr()));
        cidrs.into_iter().filter(is_usable).collect()
    }
}
