//! Flags and files: which are taken, and what they come to.

mod files;

use std::ffi::OsString;
use std::time::Duration;

use kube_ipvs_proxy::config::flags::{Parsed, parse};
use kube_ipvs_proxy::config::{Config, DetectLocal, resolve};

use super::case::{Case, case, table};

pub fn cases() -> Vec<Case> {
    let mut cases = table("TestAppendPortIfNeeded", addresses(), check_address);
    cases.extend(table("TestAddressFromDeprecatedFlags", addresses_of_flags(), check_address));
    cases.extend(table("Validation", refused(), check_refused));
    cases.extend(table("Test_checkBadConfig", accepted(), check_accepted));
    cases.extend(table("Test_checkBadIPConfig", other_families(), check_accepted));
    cases.extend([
        case("TestProcessHostnameOverrideFlag/padded", padded_host_name),
        case("TestProcessHostnameOverrideFlag/blank", blank_host_name),
        case("TestProcessV1Alpha1Flags/ipvs-periods", periods),
        case("TestProcessV1Alpha1Flags/iptables-periods", periods_of_another_mode),
        case("TestProcessV1Alpha1Flags/cluster-cidr", cluster_cidrs),
        case("Test_platformApplyDefaults/empty", empty_modes),
        case("Test_platformApplyDefaults/explicit", explicit_modes),
        case("Test_getLocalDetectors/unknown-mode", || {
            check_refused((&["--detect-local-mode=Guess"], "must be one of ClusterCIDR"));
        }),
        case("Defaults/healthz-address-without-port", || {
            check_address(("healthz-bind-address", "127.0.0.1", Some("127.0.0.1:10256")));
        }),
        case("Defaults/metrics-address-without-port", || {
            check_address(("metrics-bind-address", "127.0.0.1", Some("127.0.0.1:10249")));
        }),
        case("Defaults/flags", defaults),
    ]);
    cases.extend(files::cases());
    cases
}

/// What flags come to, or what is said about them.
fn resolved(flags: &[&str]) -> Result<Config, String> {
    let words = ["kube-ipvs-proxy"].iter().chain(flags).map(OsString::from);
    let Parsed::Flags(flags, problems) = parse(words) else { panic!("{flags:?}: syntax") };
    resolve::daemon(&flags.daemon, "node-1", problems).map_err(|problems| problems.to_string())
}

/// What flags that are right come to.
pub fn good(flags: &[&str]) -> Config {
    resolved(flags).unwrap_or_else(|problems| panic!("{flags:?}: {problems}"))
}

/// A flag, its value, and the address that is served; none if it is refused.
type Address = (&'static str, &'static str, Option<&'static str>);

fn addresses() -> Vec<(&'static str, Address)> {
    const HEALTHZ: &str = "healthz-bind-address";
    vec![
        ("ipv4-with-port", (HEALTHZ, "0.0.0.0:12345", Some("0.0.0.0:12345"))),
        ("ipv6-with-port", (HEALTHZ, "[::]:12345", Some("[::]:12345"))),
        ("ipv4", (HEALTHZ, "9.8.7.6", Some("9.8.7.6:10256"))),
        ("ipv6", (HEALTHZ, "fd00:1::5", Some("[fd00:1::5]:10256"))),
        ("ipv6-in-brackets", (HEALTHZ, "[fd00:1::5]", Some("[fd00:1::5]:10256"))),
    ]
}

fn addresses_of_flags() -> Vec<(&'static str, Address)> {
    const METRICS: &str = "metrics-bind-address";
    vec![
        ("with-port", (METRICS, "1.2.3.4:12345", Some("1.2.3.4:12345"))),
        ("without-port", (METRICS, "1.2.3.4", Some("1.2.3.4:10249"))),
        ("ipv6-in-brackets", (METRICS, "[fd00:1::5]", Some("[fd00:1::5]:10249"))),
    ]
}

fn check_address((flag, value, expected): Address) {
    let config = resolved(&[&format!("--{flag}={value}")]).ok();
    let served = config.and_then(|config| match flag {
        "healthz-bind-address" => config.healthz,
        _ => config.metrics,
    });
    assert_eq!(served.map(|address| address.to_string()).as_deref(), expected);
}

/// Flags, and words of what is said about them.
type Refused = (&'static [&'static str], &'static str);

fn refused() -> Vec<(&'static str, Refused)> {
    const PRIMARY: &str = "primary must stand alone";
    const NO_RANGE: &str = "is not a range such as";
    const PORT: &str = "with a port from 1 to 65535";
    vec![
        (
            "sync-period-below-minimum",
            (
                &["--ipvs-sync-period=1s", "--ipvs-min-sync-period=5s"],
                "--ipvs-min-sync-period=5s: must not be longer than --ipvs-sync-period=1s",
            ),
        ),
        (
            "sync-period-negative",
            (&["--ipvs-sync-period=-1s"], "must be a duration that is not negative"),
        ),
        ("sync-period-zero", (&["--ipvs-sync-period=0s"], "must be longer than 0")),
        ("mode-of-another-system", (&["--proxy-mode=kernelspace"], "ipvs mode only")),
        ("masquerade-bit", (&["--iptables-masquerade-bit=-10"], "whole number from 0 to 31")),
        ("healthz-port-0", (&["--healthz-bind-address=127.0.0.1:0"], PORT)),
        ("healthz-port-65536", (&["--healthz-bind-address=127.0.0.1:65536"], PORT)),
        ("metrics-port-0", (&["--metrics-bind-address=127.0.0.1:0"], PORT)),
        ("metrics-port-65536", (&["--metrics-bind-address=127.0.0.1:65536"], PORT)),
        ("primary-before-a-range", (&["--nodeport-addresses=primary,127.0.0.1/32"], PRIMARY)),
        ("primary-after-a-range", (&["--nodeport-addresses=127.0.0.1/32,primary"], PRIMARY)),
        ("node-ports-on-unspecified-ipv6", (&["--nodeport-addresses=::0"], NO_RANGE)),
        ("node-ports-on-an-address", (&["--nodeport-addresses=10.20.30.40"], NO_RANGE)),
        ("node-ports-on-no-range", (&["--nodeport-addresses=2001:db8:xyz/64"], NO_RANGE)),
        (
            "three-cluster-cidrs",
            (&["--cluster-cidr=10.0.0.0/8,fd00::/8,11.0.0.0/8"], "allowed is one per family"),
        ),
    ]
}

fn check_refused((flags, words): Refused) {
    let problems = resolved(flags).expect_err("flags that are wrong");
    assert!(problems.contains(words), "{problems}");
}

fn accepted() -> Vec<(&'static str, &'static [&'static str])> {
    const DUAL: &str = "--cluster-cidr=10.0.0.0/8,fd00::/8";
    vec![
        ("single-stack", &["--cluster-cidr=10.0.0.0/8", "--nodeport-addresses=192.168.0.0/24"]),
        ("dual-stack", &[DUAL, "--nodeport-addresses=192.168.0.0/24,fd01::/64"]),
        ("no-node-port-addresses", &[DUAL]),
        ("dual-stack-one-family-of-node-ports", &[DUAL, "--nodeport-addresses=192.168.0.0/24"]),
        (
            "node-ports-of-the-other-family",
            &["--cluster-cidr=10.0.0.0/8", "--nodeport-addresses=fd01::/64"],
        ),
    ]
}

fn other_families() -> Vec<(&'static str, &'static [&'static str])> {
    vec![
        ("cluster-cidr", &["--cluster-cidr=fd00::/8"]),
        ("exclude-cidrs", &["--cluster-cidr=10.0.0.0/8", "--ipvs-exclude-cidrs=fd00::/8"]),
        ("metrics-address", &["--metrics-bind-address=[fd00::1]:10249"]),
        ("unspecified-addresses", &["--healthz-bind-address=[::]:1", "--metrics-bind-address=::"]),
    ]
}

fn check_accepted(flags: &'static [&'static str]) {
    drop(good(flags));
}

fn padded_host_name() {
    assert_eq!(&*good(&["--hostname-override=  bar "]).policy.node_name, "bar");
}

fn blank_host_name() {
    check_refused((&["--hostname-override=   "], "must be the name of this node, without blanks"));
}

fn periods() {
    let flags = ["--ipvs-sync-period=36s", "--ipvs-min-sync-period=7s"];
    let periods = good(&flags).periods;
    assert_eq!([periods.sync, periods.min_sync].map(|p| p.as_secs()), [36, 7]);
}

fn periods_of_another_mode() {
    let flags = ["--iptables-sync-period=36s", "--iptables-min-sync-period=7s"];
    assert_eq!(good(&flags), good(&[]));
}

fn cluster_cidrs() {
    let DetectLocal::ClusterCidr(cidrs) =
        good(&["--cluster-cidr=10.0.0.0/8,fd00::/64"]).policy.detect_local
    else {
        panic!("another mode");
    };
    assert_eq!(cidrs.v4, "10.0.0.0/8".parse().ok());
    assert_eq!(cidrs.v6, "fd00::/64".parse().ok());
}

fn empty_modes() {
    let policy = good(&["--proxy-mode=", "--detect-local-mode="]).policy;
    assert!(matches!(policy.detect_local, DetectLocal::ClusterCidr(_)));
}

fn explicit_modes() {
    let policy = good(&["--proxy-mode=ipvs", "--detect-local-mode=NodeCIDR"]).policy;
    assert_eq!(policy.detect_local, DetectLocal::NodeCidr);
}

fn defaults() {
    let config = good(&[]);
    assert_eq!(config.healthz.unwrap().to_string(), "0.0.0.0:10256");
    assert_eq!(config.metrics.unwrap().to_string(), "127.0.0.1:10249");
    assert_eq!(config.periods.sync, Duration::from_secs(30));
    assert_eq!((&*config.policy.scheduler, config.policy.masquerade_bit), ("rr", 14));
    assert!(!config.policy.masquerade_all);
}
