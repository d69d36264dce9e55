//! Which values are taken, and the exact words for those that are not.

use std::ffi::OsString;
use std::net::SocketAddr;

use super::super::flags::{Command, Parsed, parse};
use super::*;
use crate::config::{Conntrack, DetectLocal, NodePortAddresses, layers};
use crate::model::ipvs::SCHEDULERS;
use crate::model::net::PerFamily;

fn resolved(args: &[&str]) -> Result<Config, String> {
    let args = ["kube-ipvs-proxy"].iter().chain(args).map(OsString::from);
    let Parsed::Flags(flags, problems) = parse(args) else { panic!("syntax") };
    daemon(&flags.daemon, "Node-1", problems).map_err(|problems| problems.to_string())
}

fn good(args: &[&str]) -> Config {
    resolved(args).unwrap_or_else(|problems| panic!("{args:?}: {problems}"))
}

const DURATION: &str = "must be a duration that is not negative, such as 500ms, 30s or 1m30s";

#[test]
fn defaults_are_those_of_kube_proxy() {
    let config = good(&[]);
    assert_eq!(&*config.policy.node_name, "node-1");
    assert_eq!(&*config.policy.scheduler, "rr");
    assert_eq!((config.policy.masquerade_all, config.policy.masquerade_bit), (false, 14));
    assert_eq!(config.policy.detect_local, DetectLocal::ClusterCidr(PerFamily::default()));
    let seconds = [config.periods.sync, config.periods.min_sync, config.periods.audit];
    assert_eq!(seconds.map(|period| period.as_secs()), [30, 0, 300]);
    assert_eq!(config.healthz, "0.0.0.0:10256".parse::<SocketAddr>().ok());
    assert_eq!(config.metrics, "127.0.0.1:10249".parse::<SocketAddr>().ok());
    assert_eq!((config.verbosity, config.run), (0, Run::Daemon));
    let (kubeconfig, master, endpoints) = (None, None, EndpointsSource::Auto);
    assert_eq!(config.source, SourceConfig::ApiServer { kubeconfig, master, endpoints });
}

#[test]
fn host_name_is_trimmed_and_lowercased() {
    assert_eq!(&*good(&["--hostname-override= Worker-A "]).policy.node_name, "worker-a");
}

#[test]
fn addresses_get_default_ports() {
    for (given, expected) in [
        ("10.0.0.1", Some("10.0.0.1:10256")),
        ("10.0.0.1:80", Some("10.0.0.1:80")),
        ("::", Some("[::]:10256")),
        ("[::1]", Some("[::1]:10256")),
        ("[::1]:81", Some("[::1]:81")),
        ("", None),
    ] {
        let config = good(&["--healthz-bind-address", given]);
        assert_eq!(config.healthz.map(|address| address.to_string()).as_deref(), expected);
    }
}

#[test]
fn each_way_to_detect_local_traffic_resolves() {
    let ranges = PerFamily {
        v4: Some("10.244.0.0/16".parse().unwrap()),
        v6: Some("fd00::/48".parse().unwrap()),
    };
    for (args, expected) in [
        (&["--cluster-cidr=10.244.3.4/16, fd00::/48"][..], DetectLocal::ClusterCidr(ranges)),
        (&["--detect-local-mode=NodeCIDR"], DetectLocal::NodeCidr),
        (
            &["--detect-local-mode=BridgeInterface", "--pod-bridge-interface=cni0"],
            DetectLocal::BridgeInterface("cni0".into()),
        ),
        (
            &["--detect-local-mode=InterfaceNamePrefix", "--pod-interface-name-prefix=veth"],
            DetectLocal::InterfaceNamePrefix("veth".into()),
        ),
    ] {
        assert_eq!(good(args).policy.detect_local, expected, "{args:?}");
    }
}

#[test]
fn sources_resolve() {
    assert_eq!(good(&["--manifests=dir"]).source, SourceConfig::Manifests("dir".into()));
    let args = ["--kubeconfig=k", "--master=10.0.0.1:8080", "--endpoints-source=endpoints"];
    let expected = SourceConfig::ApiServer {
        kubeconfig: Some("k".into()),
        master: Some("http://10.0.0.1:8080".into()),
        endpoints: EndpointsSource::Endpoints,
    };
    assert_eq!(good(&args).source, expected);
}

#[test]
fn node_port_addresses_are_all_primary_or_ranges() {
    let ranges = ["10.20.30.0/24", "2001:db8::/64"].map(|text| text.parse().unwrap());
    for (given, expected) in [
        ("", NodePortAddresses::All),
        (",", NodePortAddresses::All),
        ("primary", NodePortAddresses::Primary),
        ("10.20.30.51/24, 2001:db8::/64", NodePortAddresses::Cidrs(ranges.to_vec())),
    ] {
        let config = good(&["--nodeport-addresses", given]);
        assert_eq!(config.policy.node_port_addresses, expected, "{given:?}");
    }
    assert_eq!(good(&[]).policy.node_port_addresses, NodePortAddresses::All);
}

#[test]
fn connection_tracking_resolves() {
    let hours = |hours: u64| Duration::from_secs(3600 * hours);
    let defaults = Conntrack {
        max_per_core: 32768,
        min: 131_072,
        tcp_established: hours(24),
        tcp_close_wait: hours(1),
        ..Conntrack::default()
    };
    let zeros = [
        "--conntrack-max-per-core=0",
        "--conntrack-min=0",
        "--conntrack-tcp-timeout-established=0",
        "--conntrack-tcp-timeout-close-wait=0s",
    ];
    let udp = ["--conntrack-udp-timeout=30s", "--conntrack-udp-timeout-stream=3m"];
    let seconds = Duration::from_secs;
    let of_udp = Conntrack { udp: seconds(30), udp_stream: seconds(180), ..defaults.clone() };
    let liberal = Conntrack { tcp_be_liberal: true, ..defaults.clone() };
    for (args, expected) in [
        (&[][..], defaults),
        (&zeros, Conntrack::default()),
        (&udp, of_udp),
        (&["--conntrack-tcp-be-liberal"], liberal),
    ] {
        assert_eq!(good(args).policy.conntrack, expected, "{args:?}");
    }
}

#[test]
fn other_values_resolve() {
    assert_eq!(&*good(&["--ipvs-scheduler="]).policy.scheduler, "rr");
    for name in SCHEDULERS {
        assert_eq!(&*good(&["--ipvs-scheduler", name]).policy.scheduler, name);
    }
    assert_eq!(
        [good(&[]), good(&["--ipvs-strict-arp"])].map(|c| c.policy.strict_arp),
        [false, true]
    );
    let excluded = good(&["--ipvs-exclude-cidrs=192.0.2.0/24,fd00::/64"]).policy.excluded;
    assert_eq!(excluded.len(), 2);
    assert!(good(&["--masquerade-all=T", "--proxy-mode=ipvs"]).policy.masquerade_all);
    assert_eq!(good(&["--service-cidr=10.96.0.0/12,fd01::/108"]).policy.service_cidrs.len(), 2);
    assert_eq!(good(&["--ipvs-sync-period=1m30s"]).periods.sync.as_secs(), 90);
    assert_eq!(good(&["--ipvs-min-sync-period=0"]).periods.min_sync.as_secs(), 0);
    assert_eq!((good(&["--once"]).run, good(&["--cleanup=true"]).run), (Run::Once, Run::Cleanup));
}

#[test]
fn bad_addresses_of_node_ports_are_named() {
    const RANGES: &str = "is not a range such as 10.244.0.0/16 or fd00::/64; allowed are ranges, \
                          or primary alone";
    const ALONE: &str = "primary must stand alone; allowed is it, or ranges";
    for (given, complaint) in [
        ("primary,10.0.0.0/8", ALONE.to_string()),
        ("10.0.0.0/8,primary", ALONE.to_string()),
        ("::0", format!("::0 {RANGES}")),
        ("10.20.30.40", format!("10.20.30.40 {RANGES}")),
        ("10.0.0.0/8,2001:db8:xyz/64", format!("2001:db8:xyz/64 {RANGES}")),
        ("10.0.0.0/8,pimary", format!("pimary {RANGES}; did you mean primary?")),
    ] {
        let arg = format!("--nodeport-addresses={given}");
        assert_eq!(resolved(&[&arg]), Err(format!("{arg}: {complaint}")));
    }
}

#[test]
fn bad_values_are_named_with_what_is_allowed() {
    const ADDRESS: &str =
        "must be IP, IP:PORT or [IPv6]:PORT with a port from 1 to 65535, or empty";
    for (arg, complaint) in [
        ("--iptables-masquerade-bit=32", "must be a whole number from 0 to 31"),
        ("--iptables-masquerade-bit=-1", "must be a whole number from 0 to 31"),
        ("--v=loud", "must be a whole number from 0 to 10"),
        ("--masquerade-all=yes", "must be true or false"),
        ("--once=2", "must be true or false"),
        (
            "--proxy-mode=iptables",
            "this program is kube-proxy's ipvs mode only; allowed: ipvs, or empty",
        ),
        ("--hostname-override=  ", "must be the name of this node, without blanks"),
        ("--hostname-override=worker a", "must be the name of this node, without blanks"),
        (
            "--ipvs-scheduler=source",
            "must be one of rr, wrr, lc, wlc, lblc, lblcr, sh, dh, sed, nq, fo, ovf, mh, twos",
        ),
        (
            "--detect-local-mode=clustercidr",
            "must be one of ClusterCIDR, NodeCIDR, BridgeInterface, InterfaceNamePrefix; \
             did you mean ClusterCIDR?",
        ),
        (
            "--endpoints-source=endpointslice",
            "must be one of auto, endpointslices, endpoints; did you mean endpointslices?",
        ),
        (
            "--cluster-cidr=10.0.0.0/33",
            "10.0.0.0/33 is not a range such as 10.244.0.0/16 or fd00::/64",
        ),
        (
            "--cluster-cidr=10.0.0.0/8,11.0.0.0/8",
            "names two IPv4 ranges; allowed is one per family",
        ),
        ("--service-cidr=10.96.0.1", "10.96.0.1 is not a range such as 10.244.0.0/16 or fd00::/64"),
        ("--ipvs-sync-period=30", DURATION),
        ("--ipvs-sync-period=-30s", DURATION),
        ("--ipvs-sync-period=5s-3s", DURATION),
        ("--ipvs-sync-period=", DURATION),
        ("--ipvs-sync-period=99999999999999999999h", DURATION),
        ("--ipvs-sync-period=0s", "must be longer than 0"),
        ("--audit-period=0s", "must be longer than 0"),
        ("--ipvs-min-sync-period=31s", "must not be longer than --ipvs-sync-period=30s"),
        ("--healthz-bind-address=localhost:10256", ADDRESS),
        ("--healthz-bind-address=0.0.0.0:0", ADDRESS),
        ("--metrics-bind-address=:10249", ADDRESS),
        ("--metrics-bind-address=0.0.0.0:10256", "is --healthz-bind-address too"),
        ("--master=ftp://a", "must be a URL such as https://10.0.0.1:6443"),
    ] {
        assert_eq!(resolved(&[arg]), Err(format!("{arg}: {complaint}")), "{arg}");
    }
}

#[test]
fn bad_values_of_connection_tracking_are_named() {
    const NUMBER: &str = "must be a whole number from 0 to 2147483647";
    for (arg, complaint) in [
        ("--conntrack-max-per-core=-1", NUMBER),
        ("--conntrack-min=2147483648", NUMBER),
        ("--conntrack-tcp-timeout-established=-1s", DURATION),
        ("--conntrack-tcp-timeout-close-wait=60", DURATION),
        ("--conntrack-udp-timeout=", DURATION),
        ("--conntrack-udp-timeout-stream=long", DURATION),
        ("--conntrack-tcp-be-liberal=maybe", "must be true or false"),
    ] {
        assert_eq!(resolved(&[arg]), Err(format!("{arg}: {complaint}")), "{arg}");
    }
}

#[test]
fn values_that_do_not_fit_each_other_are_named() {
    let interface = |longest: u8, mode: &str| {
        format!(
            "must be an interface name: 1 to {longest} letters, digits, dots or dashes; \
             --detect-local-mode={mode} needs it"
        )
    };
    for (args, complaint) in [
        (
            &["--detect-local-mode=BridgeInterface"][..],
            format!("--pod-bridge-interface=: {}", interface(15, "BridgeInterface")),
        ),
        (
            &["--detect-local-mode=InterfaceNamePrefix", "--pod-interface-name-prefix=a b"],
            format!("--pod-interface-name-prefix=a b: {}", interface(14, "InterfaceNamePrefix")),
        ),
        (
            &["--manifests=d", "--kubeconfig=k", "--master=http://m"],
            "--kubeconfig=k: objects come from --manifests; allowed is one of the two\n\
             --master=http://m: objects come from --manifests; allowed is one of the two"
                .to_string(),
        ),
        (
            &["--manifests=d", "--endpoints-source=endpoints"],
            "--endpoints-source=endpoints: is of no use with --manifests, where both kinds are read"
                .to_string(),
        ),
        (&["--once", "--cleanup"], "--once=true: cannot go with --cleanup".to_string()),
    ] {
        assert_eq!(resolved(args), Err(complaint), "{args:?}");
    }
}

#[test]
fn all_problems_are_told_at_once() {
    let args = ["--frob", "--ipvs-scheduler=rrr", "--iptables-masquerade-bit=99", "--v=x"];
    let expected = "--frob: no such flag\n\
        --ipvs-scheduler=rrr: must be one of rr, wrr, lc, wlc, lblc, lblcr, sh, dh, sed, nq, \
        fo, ovf, mh, twos; did you mean rr?\n\
        --iptables-masquerade-bit=99: must be a whole number from 0 to 31\n\
        --v=x: must be a whole number from 0 to 10";
    assert_eq!(resolved(&args), Err(expected.to_string()));
}

#[test]
fn a_machine_without_a_name_needs_the_flag() {
    let Parsed::Flags(flags, problems) = parse(["kube-ipvs-proxy"].map(OsString::from)) else {
        panic!("syntax")
    };
    let problems = daemon(&flags.daemon, " ", problems).unwrap_err();
    let expected = "--hostname-override=: is needed: this machine has no host name";
    assert_eq!(problems.to_string(), expected);
}

#[test]
fn render_needs_a_folder() {
    let Parsed::Flags(flags, problems) = parse(["kube-ipvs-proxy", "render"].map(OsString::from))
    else {
        panic!("syntax")
    };
    let Some(Command::Render(flags)) = flags.command else { panic!("no render") };
    let problems = layers::render(&flags, None, "node", problems).unwrap_err();
    assert_eq!(problems.to_string(), "--manifests=: must name the folder to render");
}
