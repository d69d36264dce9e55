//! What decides rows: checks of each flag, and across those that go together.
//!
//! Invariant: as of all of `resolve`, nothing is read but the flags, and every problem is found.

use std::time::Duration;

use ipnet::IpNet;

use super::{LONGEST_INTERFACE, Problem, Resolver, nearest};
use crate::config::flags::{ConntrackFlags, DrainFlags, PolicyFlags, TimeoutFlags};
use crate::config::{
    Conntrack, DetectLocal, DrainTimeouts, IpvsTimeouts, NodePortAddresses, Policy, VipBinding,
    value,
};
use crate::model::ipvs::SCHEDULERS;

const DETECT_LOCAL_MODES: [&str; 4] =
    ["ClusterCIDR", "NodeCIDR", "BridgeInterface", "InterfaceNamePrefix"];

const VIP_BINDINGS: [&str; 2] = ["address", "route"];

/// Most connections that the kernel's setting, a C `int`, can name.
const MOST_CONNECTIONS: u32 = 0x7fff_ffff;

/// Longest that the kernel takes, a C `int` of seconds in its clock ticks.
///
/// Kernel: it refuses what would overflow at 1000 ticks a second.
const LONGEST_IPVS_TIMEOUT: Duration = Duration::from_secs(0x7fff_ffff / 1000);

/// Longest drain: more than a month is a slip, and the sum with the clock must not overflow.
const LONGEST_DRAIN: Duration = Duration::from_secs(720 * 3600);

impl Resolver {
    pub(super) fn policy(&mut self, flags: &PolicyFlags, os_host_name: &str) -> Option<Policy> {
        self.mode(&flags.proxy_mode);
        let node_name = self.node_name(&flags.hostname_override, os_host_name);
        let scheduler = self.choose("ipvs-scheduler", &flags.ipvs_scheduler, &SCHEDULERS, "rr");
        let masquerade_all = self.truth("masquerade-all", &flags.masquerade_all);
        let masquerade_bit = self.masquerade_bit(&flags.iptables_masquerade_bit);
        let detect_local = self.detect_local(flags);
        let service_cidrs = self.ranges("service-cidr", &flags.service_cidr);
        let node_port_addresses = self.node_port_addresses(&flags.nodeport_addresses);
        let vip_binding = self.vip_binding(&flags.vip_binding);
        let strict_arp = self.truth("ipvs-strict-arp", &flags.ipvs_strict_arp);
        let excluded = self.ranges("ipvs-exclude-cidrs", &flags.ipvs_exclude_cidrs);
        let ipvs_timeouts = self.ipvs_timeouts(&flags.timeouts);
        let ipvs_estimation = self.truth("ipvs-estimation", &flags.ipvs_estimation);
        let drain_timeouts = self.drain_timeouts(&flags.drains);
        let conntrack = self.conntrack(&flags.conntrack);
        Some(Policy {
            node_name: node_name?.into(),
            scheduler: scheduler?.into(),
            strict_arp: strict_arp?,
            excluded: excluded?,
            masquerade_all: masquerade_all?,
            masquerade_bit: masquerade_bit?,
            detect_local: detect_local?,
            service_cidrs: service_cidrs?,
            node_port_addresses: node_port_addresses?,
            ipvs_timeouts: ipvs_timeouts?,
            ipvs_estimation: ipvs_estimation?,
            drain_timeouts: drain_timeouts?,
            vip_binding: vip_binding?,
            conntrack: conntrack?,
            removes_leftovers: false,
        })
    }

    fn mode(&mut self, text: &str) {
        if !["", "ipvs"].contains(&text) {
            let complaint = "this program is kube-proxy's ipvs mode only; allowed: ipvs, or empty";
            self.problems.add(Problem {
                name: self.name("proxy-mode"),
                given: Some(text.to_string()),
                complaint: complaint.to_string(),
                nearest: nearest(text, &["ipvs"]).map(String::from),
            });
        }
    }

    fn masquerade_bit(&mut self, text: &str) -> Option<u8> {
        self.take("iptables-masquerade-bit", text, value::number(text, 31))
    }

    fn ranges(&mut self, flag: &'static str, text: &str) -> Option<Vec<IpNet>> {
        self.take(flag, text, value::ranges(text))
    }

    fn node_port_addresses(&mut self, text: &str) -> Option<NodePortAddresses> {
        let flag = "nodeport-addresses";
        value::node_port_addresses(text)
            .map_err(|complaint| {
                let others = text.split(',').map(str::trim).filter(|part| *part != value::PRIMARY);
                let meant = others.filter_map(|part| nearest(part, &[value::PRIMARY])).next();
                self.problems.add(Problem {
                    name: self.name(flag),
                    given: Some(text.to_string()),
                    complaint,
                    nearest: meant.map(String::from),
                });
            })
            .ok()
    }

    fn ipvs_timeouts(&mut self, flags: &TimeoutFlags) -> Option<IpvsTimeouts> {
        let [tcp, tcp_fin, udp] = [
            ("ipvs-tcp-timeout", &flags.ipvs_tcp_timeout),
            ("ipvs-tcpfin-timeout", &flags.ipvs_tcpfin_timeout),
            ("ipvs-udp-timeout", &flags.ipvs_udp_timeout),
        ]
        .map(|(flag, text)| {
            let time = self.take(flag, text, value::duration(text))?;
            if time > LONGEST_IPVS_TIMEOUT {
                let longest = LONGEST_IPVS_TIMEOUT.as_secs();
                self.complain(flag, text, format!("must not be longer than {longest}s"));
            }
            Some(time)
        });
        Some(IpvsTimeouts { tcp: tcp?, tcp_fin: tcp_fin?, udp: udp? })
    }

    fn drain_timeouts(&mut self, flags: &DrainFlags) -> Option<DrainTimeouts> {
        let [known, vanished] = [
            ("drain-timeout", &flags.drain_timeout),
            ("drain-timeout-vanished", &flags.drain_timeout_vanished),
        ]
        .map(|(flag, text)| {
            let time = self.take(flag, text, value::duration(text))?;
            if time > LONGEST_DRAIN {
                self.complain(flag, text, "must not be longer than 720h");
            }
            Some(time)
        });
        Some(DrainTimeouts { known: known?, vanished: vanished? })
    }

    fn conntrack(&mut self, flags: &ConntrackFlags) -> Option<Conntrack> {
        let mut number =
            |flag, text: &str| self.take(flag, text, value::number(text, MOST_CONNECTIONS));
        let max_per_core = number("conntrack-max-per-core", &flags.conntrack_max_per_core);
        let min = number("conntrack-min", &flags.conntrack_min);
        let mut duration = |flag, text: &str| self.take(flag, text, value::duration(text));
        let [tcp_established, tcp_close_wait, udp, udp_stream] = [
            ("conntrack-tcp-timeout-established", &flags.conntrack_tcp_timeout_established),
            ("conntrack-tcp-timeout-close-wait", &flags.conntrack_tcp_timeout_close_wait),
            ("conntrack-udp-timeout", &flags.conntrack_udp_timeout),
            ("conntrack-udp-timeout-stream", &flags.conntrack_udp_timeout_stream),
        ]
        .map(|(flag, text)| duration(flag, text));
        let tcp_be_liberal =
            self.truth("conntrack-tcp-be-liberal", &flags.conntrack_tcp_be_liberal);
        Some(Conntrack {
            max_per_core: max_per_core?,
            min: min?,
            tcp_established: tcp_established?,
            tcp_close_wait: tcp_close_wait?,
            udp: udp?,
            udp_stream: udp_stream?,
            tcp_be_liberal: tcp_be_liberal?,
        })
    }

    fn node_name(&mut self, given: &str, os_host_name: &str) -> Option<String> {
        let chosen = if given.is_empty() { os_host_name } else { given };
        let name = value::node_name(chosen);
        if name.is_none() {
            let complaint = match given.is_empty() {
                true if chosen.trim().is_empty() => "is needed: this machine has no host name",
                true => "is needed: the host name of this machine has a blank in it",
                false => "must be the name of this node, without blanks",
            };
            self.complain("hostname-override", given, complaint);
        }
        name
    }

    fn vip_binding(&mut self, text: &str) -> Option<VipBinding> {
        let is_route = self.choose("vip-binding", text, &VIP_BINDINGS, "address")? == "route";
        Some(if is_route { VipBinding::Route } else { VipBinding::Address })
    }

    fn detect_local(&mut self, flags: &PolicyFlags) -> Option<DetectLocal> {
        let (flag, text) = ("detect-local-mode", &flags.detect_local_mode);
        let bridge = &flags.pod_bridge_interface;
        let prefix = &flags.pod_interface_name_prefix;
        let mode = self.choose(flag, text, &DETECT_LOCAL_MODES, "ClusterCIDR");
        match mode.unwrap_or("ClusterCIDR") {
            "NodeCIDR" => Some(DetectLocal::NodeCidr),
            "BridgeInterface" => {
                let name = value::interface(bridge, LONGEST_INTERFACE);
                let name = self.needed(name, flag, "BridgeInterface");
                self.take("pod-bridge-interface", bridge, name).map(DetectLocal::BridgeInterface)
            }
            "InterfaceNamePrefix" => {
                let name = value::interface(prefix, LONGEST_INTERFACE - 1);
                let name = self.needed(name, flag, "InterfaceNamePrefix");
                let name = self.take("pod-interface-name-prefix", prefix, name);
                name.map(DetectLocal::InterfaceNamePrefix)
            }
            _ => {
                let ranges = value::range_per_family(&flags.cluster_cidr);
                let ranges = self.take("cluster-cidr", &flags.cluster_cidr, ranges);
                mode.and(ranges).map(DetectLocal::ClusterCidr)
            }
        }
    }
}
