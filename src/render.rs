//! Tables as text, in the syntax of the tools that list them on a host.
//!
//! The `render` subcommand prints it and the golden tests compare it.
//! Invariant: equal tables give equal text, sorted throughout.

use std::net::{IpAddr, SocketAddr};

use crate::model::ipset::{SetKey, SetSpec};
use crate::model::iptables::{Rules, Ruleset, TableName};
use crate::model::ipvs::{Forwarding, RealKey, RealServer, Server, ServerKey};
use crate::model::link::{DEVICE, ROUTE_DEVICE, ROUTE_METRIC, ROUTE_PROTOCOL, Route};
use crate::model::net::{Family, Protocol};
use crate::model::tables::Tables;

/// The built-in chains, in the order in which the tool prints them.
const BUILT_IN: [&str; 5] = ["PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"];

/// All tables as text, section by section.
pub fn text(tables: &Tables) -> String {
    let mut sections = vec![
        section("virtual servers (ipvsadm-save -n)", servers(tables)),
        section("sets (ipset save)", sets(tables)),
    ];
    for (family, ruleset) in &tables.rulesets {
        let tool = match family {
            Family::V4 => "iptables-save",
            Family::V6 => "ip6tables-save",
        };
        sections.push(section(&format!("{family} rules ({tool})"), rules(ruleset)));
    }
    sections.push(section(&format!("addresses on {DEVICE} (ip address)"), addresses(tables)));
    let routes = routes(tables);
    if !routes.is_empty() {
        sections.push(section("routes (ip route show table local)", routes));
    }
    sections.push(section("settings below /proc/sys", settings(tables)));
    sections.join("\n")
}

fn section(title: &str, lines: Vec<String>) -> String {
    let lines: String = lines.into_iter().map(|line| line + "\n").collect();
    format!("# {title}\n{lines}")
}

fn servers(tables: &Tables) -> Vec<String> {
    let lines = tables.servers.iter().flat_map(|(key, server)| {
        let reals = server.reals.iter().map(|(real, value)| real_line(key, real, value));
        [server_line(key, server)].into_iter().chain(reals)
    });
    lines.collect()
}

fn server_line(key: &ServerKey, server: &Server) -> String {
    let config = &server.config;
    let mut line = format!("-A {} -s {}", virtual_address(key), config.scheduler);
    if let Some(seconds) = config.persistence {
        line.push_str(&format!(" -p {seconds}"));
    }
    let flags = flag_names(&config.scheduler, config.scheduler_flags);
    if !flags.is_empty() {
        line.push_str(&format!(" -b {}", flags.join(",")));
    }
    line
}

fn real_line(key: &ServerKey, real: &RealKey, value: &RealServer) -> String {
    let method = match value.forwarding {
        Forwarding::Masquerade => "-m",
        Forwarding::Tunnel => "-i",
        Forwarding::Direct | Forwarding::Local | Forwarding::Bypass => "-g",
    };
    format!("-a {} -r {real} {method} -w {}", virtual_address(key), value.weight)
}

/// A virtual server as `ipvsadm` takes it.
pub(crate) fn virtual_address(key: &ServerKey) -> String {
    let option = match key.protocol {
        Protocol::Tcp => "-t",
        Protocol::Udp => "-u",
        Protocol::Sctp => "--sctp-service",
    };
    format!("{option} {}", SocketAddr::new(key.address, key.port))
}

/// The tool's names of scheduler flags; two schedulers have their own.
fn flag_names(scheduler: &str, flags: u32) -> Vec<&'static str> {
    let names = match scheduler {
        "mh" => ["mh-fallback", "mh-port", "flag-3"],
        "sh" => ["sh-fallback", "sh-port", "flag-3"],
        _ => ["flag-1", "flag-2", "flag-3"],
    };
    let bits = [0x8, 0x10, 0x20];
    bits.into_iter().zip(names).filter(|(bit, _)| flags & bit != 0).map(|(_, name)| name).collect()
}

fn sets(tables: &Tables) -> Vec<String> {
    let lines = tables.sets.iter().flat_map(|(key, spec)| {
        let members = tables.entries.of(*key).iter();
        [creation(*key, *spec)].into_iter().chain(members.map(move |it| format!("add {key} {it}")))
    });
    lines.collect()
}

fn creation(key: SetKey, spec: SetSpec) -> String {
    let options = match spec.maxelem.zip(spec.hashsize()) {
        Some((maxelem, hashsize)) => {
            let family = family_word(key.family);
            format!("family {family} hashsize {hashsize} maxelem {maxelem}")
        }
        None => "range 0-65535".to_string(),
    };
    format!("create {key} {} {options}", spec.kind.name())
}

fn family_word(family: Family) -> &'static str {
    match family {
        Family::V4 => "inet",
        Family::V6 => "inet6",
    }
}

fn rules(ruleset: &Ruleset) -> Vec<String> {
    ruleset.tables.iter().flat_map(|(table, rules)| table_lines(*table, rules)).collect()
}

fn table_lines(table: TableName, rules: &Rules) -> Vec<String> {
    let declared = rules.chains.keys().map(|chain| format!(":{chain} - [0:0]"));
    let jumps = BUILT_IN.into_iter().filter_map(|chain| rules.jumps.get_key_value(chain));
    let filled = jumps.chain(&rules.chains);
    let added = filled
        .flat_map(|(chain, lines)| lines.iter().map(move |line| format!("-A {chain} {line}")));
    [format!("*{}", table.name())]
        .into_iter()
        .chain(declared)
        .chain(added)
        .chain(["COMMIT".to_string()])
        .collect()
}

fn addresses(tables: &Tables) -> Vec<String> {
    let line = |address: &IpAddr| match Family::of(*address) {
        Family::V4 => format!("inet {address}/32"),
        // They are bound so that nothing takes them for a source address.
        Family::V6 => format!("inet6 {address}/128 preferred_lft 0sec"),
    };
    let bound = tables.addresses.iter().filter(|(_, binding)| binding.address);
    bound.map(|(address, _)| line(address)).collect()
}

fn routes(tables: &Tables) -> Vec<String> {
    let line = |address: &IpAddr, route: Route| {
        let source = route.source.map(|source| format!(" src {source}")).unwrap_or_default();
        let scope = match Family::of(*address) {
            Family::V4 => " scope host",
            Family::V6 => "",
        };
        format!(
            "local {address} dev {ROUTE_DEVICE} proto {ROUTE_PROTOCOL}{scope}{source} \
             metric {ROUTE_METRIC}"
        )
    };
    let routes = tables.addresses.iter().filter_map(|(ip, binding)| Some((ip, binding.route?)));
    routes.map(|(address, route)| line(address, route)).collect()
}

fn settings(tables: &Tables) -> Vec<String> {
    tables.settings.iter().map(|(path, value)| format!("{path} = {value}")).collect()
}
