//! Facts about the host, and the settings that are read.
//!
//! Invariant: everything here is of the calling thread's network namespace.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use crate::kernel::Error;
use crate::kernel::iptables::Tools;
use crate::kernel::sysctl::Sysctl;
use crate::model::link::DEVICE;
use crate::model::net::PerFamily;
use crate::model::observed::Host;
use crate::model::sysctl::{RUN_ESTIMATION, Settings};

/// Settings that the daemon may want to set, wherever the kernel has them.
const SETTINGS: [&str; 16] = [
    "net/ipv4/vs/conntrack",
    "net/ipv4/vs/conn_reuse_mode",
    "net/ipv4/vs/expire_nodest_conn",
    "net/ipv4/vs/expire_quiescent_template",
    RUN_ESTIMATION,
    "net/ipv4/ip_forward",
    "net/ipv4/conf/all/arp_ignore",
    "net/ipv4/conf/all/arp_announce",
    CONNTRACK_MAX,
    CONNTRACK_BUCKETS,
    "net/netfilter/nf_conntrack_tcp_timeout_established",
    "net/netfilter/nf_conntrack_tcp_timeout_close_wait",
    "net/netfilter/nf_conntrack_tcp_be_liberal",
    "net/netfilter/nf_conntrack_udp_timeout",
    "net/netfilter/nf_conntrack_udp_timeout_stream",
    IPV6_FORWARDING,
];

const CONNTRACK_MAX: &str = "net/netfilter/nf_conntrack_max";
const CONNTRACK_BUCKETS: &str = "net/netfilter/nf_conntrack_buckets";
const IPV6_FORWARDING: &str = "net/ipv6/conf/all/forwarding";
const IPV6_INTERFACES: &str = "net/ipv6/conf";

/// Interfaces in name only.
const NOT_INTERFACES: [&str; 2] = ["all", "default"];

/// What to do about a kernel without IPv6.
const NO_IPV6: &str = "the kernel has no IPv6: boot without ipv6.disable=1, or CONFIG_IPV6=y";

/// Present where the kernel has IPv6.
const IPV6_ADDRESSES: &str = "/proc/thread-self/net/if_inet6";

/// What the settings hold; those that the kernel lacks are left out.
///
/// Besides the fixed ones: how each interface treats router advertisements.
pub(super) fn settings(sysctl: &Sysctl) -> Result<Settings, Error> {
    let mut names: Vec<String> = SETTINGS.map(str::to_owned).to_vec();
    names.extend(interfaces(sysctl)?.iter().map(|interface| accept_ra(interface)));
    let mut settings = Settings::new();
    for name in names {
        if let Some(value) = sysctl.read(&name)? {
            settings.insert(name, value);
        }
    }
    Ok(settings)
}

/// The facts that the foundation depends on; addresses are read elsewhere.
pub(super) fn facts(sysctl: &Sysctl, tools: &Tools, has_ipv6: bool) -> Result<Host, Error> {
    let release = sysctl.read("kernel/osrelease")?.unwrap_or_default();
    Ok(Host {
        families: PerFamily { v4: true, v6: has_ipv6 },
        kernel: kernel_version(&release),
        random_fully: tools.knows_random_fully(),
        iptables: tools.variant.suffix().to_owned(),
        iptables_version: Some(tools.version),
        router_advertised: router_advertised(sysctl)?,
        cpus: cpus(),
        conntrack_buckets: conntrack_buckets(sysctl)?,
        ..Host::default()
    })
}

/// CPUs of the machine, whether or not this process may use all of them.
fn cpus() -> u32 {
    let listed = fs::read_to_string("/sys/devices/system/cpu/present").unwrap_or_default();
    match count_listed(listed.trim()) {
        Some(cpus) if cpus > 0 => cpus,
        _ => std::thread::available_parallelism().map_or(0, |cpus| cpus.get() as u32),
    }
}

/// How many numbers a list such as `0-3,8` names.
fn count_listed(list: &str) -> Option<u32> {
    let count = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (u32, u32) = (first.parse().ok()?, last.parse().ok()?);
        last.checked_sub(first)?.checked_add(1)
    };
    list.split(',').map(count).sum()
}

/// Buckets of the connection tracking table, where it may be resized.
fn conntrack_buckets(sysctl: &Sysctl) -> Result<Option<u32>, Error> {
    // Kernel: in other network namespaces than the first, both are readable only.
    if !sysctl.is_writable(CONNTRACK_MAX) || !sysctl.is_writable(CONNTRACK_BUCKETS) {
        return Ok(None);
    }
    Ok(sysctl.read(CONNTRACK_BUCKETS)?.and_then(|buckets| buckets.parse().ok()))
}

/// Why addresses of IPv6 cannot be bound to the dummy device, made already or not, and the fix.
pub(super) fn without_ipv6(sysctl: &Sysctl) -> Result<Option<String>, Error> {
    if !Path::new(IPV6_ADDRESSES).exists() {
        return Ok(Some(NO_IPV6.to_owned()));
    }
    let of_device = format!("{IPV6_INTERFACES}/{DEVICE}/disable_ipv6");
    let of_new = format!("{IPV6_INTERFACES}/default/disable_ipv6");
    let here = match sysctl.read(&of_device)? {
        Some(_) => of_device,
        None => of_new,
    };
    for path in [here, format!("{IPV6_INTERFACES}/all/disable_ipv6")] {
        if sysctl.read(&path)?.as_deref() == Some("1") {
            return Ok(Some(format!("{path} is 1: set it to 0")));
        }
    }
    Ok(None)
}

/// Interfaces that would stop taking router advertisements once forwarding is turned on.
fn router_advertised(sysctl: &Sysctl) -> Result<BTreeSet<String>, Error> {
    let mut advertised = BTreeSet::new();
    if sysctl.read(IPV6_FORWARDING)?.as_deref() != Some("0") {
        return Ok(advertised);
    }
    for interface in interfaces(sysctl)? {
        let is_ours_or_local = interface == "lo" || interface == DEVICE;
        if !is_ours_or_local && sysctl.read(&accept_ra(&interface))?.as_deref() == Some("1") {
            advertised.insert(interface);
        }
    }
    Ok(advertised)
}

fn interfaces(sysctl: &Sysctl) -> Result<Vec<String>, Error> {
    let mut names = sysctl.names(IPV6_INTERFACES)?;
    names.retain(|name| !NOT_INTERFACES.contains(&name.as_str()));
    Ok(names)
}

fn accept_ra(interface: &str) -> String {
    format!("{IPV6_INTERFACES}/{interface}/accept_ra")
}

/// The first two numbers of a release such as `6.1.0-18-amd64`.
fn kernel_version(release: &str) -> (u32, u32) {
    let mut numbers = release.split(|letter: char| !letter.is_ascii_digit()).map(str::parse);
    let mut next = || numbers.next().and_then(Result::ok).unwrap_or(0);
    (next(), next())
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    /// A directory of its own that looks like `/proc/sys`.
    fn tree(name: &str, settings: &[(&str, &str)]) -> PathBuf {
        let root = std::env::temp_dir().join(format!("host-{name}-{}", std::process::id()));
        for (path, value) in settings {
            let path = root.join(path);
            fs::create_dir_all(path.parent().expect("below the root")).expect("a directory");
            fs::write(path, value).expect("a file");
        }
        root
    }

    #[test]
    fn reads_kernel_versions() {
        for (release, expected) in [
            ("6.1.0-18-amd64", (6, 1)),
            ("5.15.153+", (5, 15)),
            ("6.18-rc1", (6, 18)),
            ("unknown", (0, 0)),
        ] {
            assert_eq!(kernel_version(release), expected, "{release}");
        }
    }

    #[test]
    fn counts_cpus() {
        for (list, expected) in
            [("0", Some(1)), ("0-3", Some(4)), ("0-3,8,10-11", Some(7)), ("", None), ("3-0", None)]
        {
            assert_eq!(count_listed(list), expected, "{list}");
        }
    }

    #[test]
    fn reads_fixed_settings_and_those_of_interfaces() {
        let root = tree(
            "settings",
            &[
                ("net/ipv4/ip_forward", "1\n"),
                ("net/ipv6/conf/eth0.100/accept_ra", "1\n"),
                ("net/ipv6/conf/all/accept_ra", "0\n"),
            ],
        );
        let found = settings(&Sysctl::below(&root)).expect("readable");
        let expected = [("net/ipv4/ip_forward", "1"), ("net/ipv6/conf/eth0.100/accept_ra", "1")];
        assert_eq!(found, expected.map(|(path, value)| (path.to_owned(), value.to_owned())).into());
        fs::remove_dir_all(root).expect("ours");
    }

    #[test]
    fn says_which_setting_turns_ipv6_off() {
        for (name, settings, expected) in [
            ("on", &[("all", "0\n"), ("default", "0\n")][..], None),
            ("all", &[("all", "1\n"), ("default", "0\n")], Some("all")),
            ("new", &[("all", "0\n"), ("default", "1\n")], Some("default")),
            ("device", &[("default", "0\n"), (DEVICE, "1\n")], Some(DEVICE)),
            ("device-on", &[("default", "1\n"), (DEVICE, "0\n")], None),
        ] {
            let path = |interface: &str| format!("{IPV6_INTERFACES}/{interface}/disable_ipv6");
            let files: Vec<_> = settings.iter().map(|(file, text)| (path(file), *text)).collect();
            let files: Vec<_> = files.iter().map(|(file, text)| (file.as_str(), *text)).collect();
            let root = tree(name, &files);
            let found = without_ipv6(&Sysctl::below(&root)).expect("readable");
            let expected = expected.map(|file| format!("{} is 1: set it to 0", path(file)));
            // A machine without IPv6 says so before it looks at settings.
            let has_ipv6 = Path::new(IPV6_ADDRESSES).exists();
            assert_eq!(found, if has_ipv6 { expected } else { Some(NO_IPV6.to_owned()) }, "{name}");
            fs::remove_dir_all(root).expect("ours");
        }
    }

    #[test]
    fn finds_interfaces_that_depend_on_router_advertisements() {
        let mut files = vec![
            (IPV6_FORWARDING, "0\n"),
            ("net/ipv6/conf/all/accept_ra", "1\n"),
            ("net/ipv6/conf/lo/accept_ra", "1\n"),
            ("net/ipv6/conf/eth0/accept_ra", "1\n"),
            ("net/ipv6/conf/eth1/accept_ra", "2\n"),
        ];
        let root = tree("advertised", &files);
        let found = router_advertised(&Sysctl::below(&root)).expect("readable");
        assert_eq!(found, BTreeSet::from(["eth0".to_owned()]));
        files[0].1 = "1\n";
        let root = tree("advertised", &files);
        let found = router_advertised(&Sysctl::below(&root)).expect("readable");
        assert_eq!(found, BTreeSet::new());
        fs::remove_dir_all(root).expect("ours");
    }
}
