//! The addresses and ranges that rows depend on, by configuration, cluster and host.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;

use super::Engine;
use crate::config::VipBinding;
use crate::desired::node_ports;
use crate::model::link::Binding;
use crate::model::net::{Family, PerFamily};

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

    /// How service addresses are bound; the source of routes is the node's address, first of all
    /// that the cluster knows it by, if the host has it.
    pub(super) fn bindings(&self) -> PerFamily<Binding> {
        let known = self.node.as_ref().map_or(&[][..], |node| &node.addresses);
        let source = |family| {
            let is_usable =
                |ip: &IpAddr| Family::of(*ip) == family && self.host.addresses.contains(ip);
            known.iter().copied().find(is_usable)
        };
        let binding = |family| match self.policy.vip_binding {
            VipBinding::Address => Binding::ADDRESS,
            VipBinding::Route => Binding::route(source(family)),
        };
        PerFamily { v4: binding(Family::V4), v6: binding(Family::V6) }
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
