//! What the kernel holds, in the words of the ordinary tools.

use crate::namespace::Namespace;
use crate::world::Family;

/// Virtual and real servers as `ipvsadm --save`.
pub fn servers(namespace: &Namespace) -> String {
    namespace.output("ipvsadm", &["--save", "--numeric"])
}

/// Whether there is a virtual server, named as `ipvsadm` does: `-t 10.254.10.128:80`.
pub fn has_server(namespace: &Namespace, name: &str) -> bool {
    servers(namespace).lines().any(|line| line.starts_with(&format!("-A {name} ")))
}

/// The real servers behind a virtual server that take new connections, in order.
pub fn live_reals(namespace: &Namespace, name: &str) -> Vec<String> {
    let start = format!("-a {name} -r ");
    let servers = servers(namespace);
    let reals = servers.lines().filter_map(|line| line.strip_prefix(&start));
    let live = reals.filter(|real| !real.ends_with(" -w 0"));
    let mut live: Vec<String> =
        live.filter_map(|real| Some(real.split_once(' ')?.0.into())).collect();
    live.sort();
    live
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

/// Devices with their addresses as `ip address`, one line each; addresses that are bound by a
/// route follow in the same form.
pub fn addresses(namespace: &Namespace) -> String {
    let routed = routes(namespace).into_iter().map(|route| {
        let address = route.split(' ').nth(1).unwrap_or_default();
        let (family, prefix) = if address.contains(':') { ("inet6", 128) } else { ("inet", 32) };
        format!("0: kube-ipvs0    {family} {address}/{prefix} by {route}\n")
    });
    namespace.output("ip", &["-oneline", "address"]) + &routed.collect::<String>()
}

/// The routes of the daemon, of both families, as `ip route`.
pub fn routes(namespace: &Namespace) -> Vec<String> {
    let of_family = |family| {
        let arguments = [family, "route", "show", "table", "local", "proto", "73"];
        let listing = namespace.output("ip", &arguments);
        listing.lines().map(|line| line.trim_end().to_owned()).collect::<Vec<_>>()
    };
    ["-4", "-6"].into_iter().flat_map(of_family).collect()
}

/// Everything above, but for counters and for what differs from one reading to the next.
pub fn everything(namespace: &Namespace) -> String {
    let rules = Family::BOTH.map(|family| comparable_rules(namespace, family)).concat();
    let (servers, sets) = (servers(namespace), sets(namespace));
    let addresses = addresses(namespace);
    let addresses = addresses.lines().filter(|line| !line.contains("fe80::"));
    let lines =
        [sorted(servers.lines()), sorted(sets.lines()), rules.lines().collect(), sorted(addresses)];
    lines.concat().join("\n")
}

/// Rules without counters and comments.
pub fn comparable_rules(namespace: &Namespace, family: Family) -> String {
    let rules = rules(namespace, family);
    let lines = rules.lines().filter(|line| !line.starts_with('#'));
    lines.map(|line| format!("{}\n", without_counters(line))).collect()
}

/// Asserts that two readings of everything agree, and tells the lines that do not.
pub fn assert_same(found: &str, expected: &str, when: &str) {
    let only = |text: &str, other: &str, sign: &str| -> String {
        let missing = text.lines().filter(|line| !other.lines().any(|known| known == *line));
        missing.map(|line| format!("{sign} {line}\n")).collect()
    };
    let differences = only(expected, found, "-") + &only(found, expected, "+");
    assert!(found == expected, "{when}, lines in another order or:\n{differences}");
}

fn sorted<'a>(lines: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let mut lines: Vec<_> = lines.collect();
    lines.sort_unstable();
    lines
}

/// `:INPUT ACCEPT [12:720]` without the numbers.
fn without_counters(line: &str) -> &str {
    line.split(" [").next().unwrap_or(line)
}
