//! The rows that depend on configuration and host alone: settings, sets, rules, the device.
//!
//! Invariant: no Service appears here, so nothing here changes when Services do.

use std::collections::BTreeMap;

use super::{conntrack, iptables};
use crate::config::Policy;
use crate::model::ipset::SetKey;
use crate::model::net::Family;
use crate::model::observed::Host;
use crate::model::sysctl::{RUN_ESTIMATION, STRICT_ARP, Settings};
use crate::model::tables::Tables;
use ipnet::IpNet;

/// Settings wanted on every node (spec 6.1).
const SETTINGS: [(&str, &str); 4] = [
    // Without it masquerade cannot see what IPVS balanced.
    ("net/ipv4/vs/conntrack", "1"),
    ("net/ipv4/vs/expire_nodest_conn", "1"),
    ("net/ipv4/vs/expire_quiescent_template", "1"),
    ("net/ipv4/ip_forward", "1"),
];

/// Kernel: up to 5.8 a reused source port costs the client one second unless this is off.
const CONN_REUSE_MODE: &str = "net/ipv4/vs/conn_reuse_mode";

/// Whether the kernel gathers counts and rates of each virtual and real server, and since when it
/// can be told.
///
/// Kernel: up to 6.1 it goes over all of them in one soft interrupt every two seconds, during which
/// a processor of the node forwards nothing; live connections, which drains go by, are right all
/// the same.
const ESTIMATION: (&str, (u32, u32)) = (RUN_ESTIMATION, (5, 16));

/// Turns on forwarding between interfaces for IPv6.
///
/// Kernel: an interface whose `accept_ra` is 1 then takes no more router advertisements.
pub const IPV6_FORWARDING: &str = "net/ipv6/conf/all/forwarding";

/// The foundation of a node.
pub fn tables(policy: &Policy, host: &Host, pod_cidrs: &[IpNet]) -> Tables {
    let families = || Family::ALL.into_iter().filter(|family| *host.families.get(*family));
    let ruleset = |family| (family, iptables::ruleset(policy, host, family, pod_cidrs));
    Tables {
        settings: settings(policy, host),
        sets: SetKey::all()
            .filter(|key| *host.families.get(key.family))
            .map(|key| (key, key.id.spec()))
            .collect(),
        rulesets: families().map(ruleset).collect::<BTreeMap<_, _>>(),
        device: families().next().is_some(),
        ..Tables::default()
    }
}

fn settings(policy: &Policy, host: &Host) -> Settings {
    let strict_arp = STRICT_ARP.iter().filter(|_| policy.strict_arp);
    let fixed = SETTINGS.iter().chain(strict_arp);
    let mut settings: Settings =
        fixed.map(|(path, value)| (path.to_string(), value.to_string())).collect();
    settings.extend(conntrack::settings(&policy.conntrack, host));
    settings.extend(conntrack::ipvs(&policy.ipvs_timeouts));
    if host.kernel < (5, 9) {
        settings.insert(CONN_REUSE_MODE.into(), "0".into());
    }
    let (estimation, since) = ESTIMATION;
    if host.kernel >= since {
        settings.insert(estimation.into(), u8::from(policy.ipvs_estimation).to_string());
    }
    if host.families.v6 {
        // Kernel: a forwarding host ignores router advertisements unless accept_ra is 2, and would
        // lose its default route. Order: the plan turns forwarding on last.
        settings.extend(
            host.router_advertised
                .iter()
                .map(|interface| (format!("net/ipv6/conf/{interface}/accept_ra"), "2".to_string())),
        );
        settings.insert(IPV6_FORWARDING.into(), "1".into());
    }
    settings
}
