//! Kernel settings: those below `/proc/sys` (spec section 6), and the time-outs of IPVS (spec 2.7).

/// Path below `/proc/sys`, such as `net/ipv4/vs/conntrack`, and the text it holds; the time-outs
/// of IPVS, which no file has, under names of the same form.
pub type Settings = std::collections::BTreeMap<String, String>;

/// Time-outs of IPVS in seconds, as rows are named: TCP, TCP after a FIN, UDP.
pub const IPVS_TIMEOUTS: [&str; 3] =
    ["ipvs/timeout/tcp", "ipvs/timeout/tcpfin", "ipvs/timeout/udp"];

/// Whether IPVS gathers counts and rates of its virtual and real servers.
pub const RUN_ESTIMATION: &str = "net/ipv4/vs/run_estimation";

/// Parity: what `strictARP` stands for, so that no interface answers for a service address.
pub const STRICT_ARP: [(&str, &str); 2] =
    [("net/ipv4/conf/all/arp_ignore", "1"), ("net/ipv4/conf/all/arp_announce", "2")];

/// Whether a setting tunes how connections are remembered or counted, or who answers ARP, so that
/// no Service waits for it.
pub fn is_tuning(path: &str) -> bool {
    path.starts_with("net/netfilter/nf_conntrack_")
        || path == RUN_ESTIMATION
        || IPVS_TIMEOUTS.contains(&path)
        || STRICT_ARP.iter().any(|(strict, _)| *strict == path)
}

/// The name by which `sysctl` knows the setting of a path; a time-out of IPVS, which it does not
/// know, in words.
///
/// Both signs are exchanged, as interfaces such as `eth0.100` have a dot in their names
/// (sysctl.d(5)).
pub fn name(path: &str) -> String {
    if let Some(what) = path.strip_prefix("ipvs/timeout/") {
        return format!("time-out of IPVS for {what}, in seconds");
    }
    let exchanged = path.chars().map(|letter| match letter {
        '/' => '.',
        '.' => '/',
        other => other,
    });
    exchanged.collect()
}

#[cfg(test)]
mod tests {
    #[test]
    fn names_are_those_of_sysctl() {
        assert_eq!(super::name("net/ipv4/vs/conntrack"), "net.ipv4.vs.conntrack");
        let of_an_interface = super::name("net/ipv6/conf/eth0.100/accept_ra");
        assert_eq!(of_an_interface, "net.ipv6.conf.eth0/100.accept_ra");
        let of_ipvs = super::IPVS_TIMEOUTS.map(super::name);
        assert_eq!(of_ipvs[1], "time-out of IPVS for tcpfin, in seconds");
    }
}
