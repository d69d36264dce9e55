//! Settings of connection tracking.

use kube_ipvs_proxy::desired::foundation;
use kube_ipvs_proxy::model::observed::Host;
use kube_ipvs_proxy::model::sysctl::Settings;
use kube_ipvs_proxy::plan::step::Step;
use kube_ipvs_proxy::testing::fake_kernel::{FakeKernel, Fault, Faults};
use kube_ipvs_proxy::testing::node::Node;

use super::case::{Case, case, table};
use super::configuration::good;

pub fn cases() -> Vec<Case> {
    let mut cases = table("TestGetConntrackMax", limits(), check_limit);
    cases.extend([
        case("TestGetConntrackMax_Capped", || {
            check_limit((["32768", "131072"], 1 << 16, Some("1048576")));
        }),
        case("TestOptionsComplete/conntrack-zero", || assert_eq!(wanted(&ZEROS, 4), [])),
        case("TestSetupConntrack/nothing", || assert_eq!(wanted(&ZEROS, 4), [])),
        case("TestSetupConntrack/each", each),
        case("TestSetupConntrack/failure", failure),
    ]);
    cases
}

const ZEROS: [&str; 4] = [
    "--conntrack-max-per-core=0",
    "--conntrack-min=0",
    "--conntrack-tcp-timeout-established=0",
    "--conntrack-tcp-timeout-close-wait=0",
];

const PREFIX: &str = "net/netfilter/nf_conntrack_";

fn settings(flags: &[&str], cpus: u32) -> Settings {
    let host = Host { cpus, conntrack_buckets: Some(1024), kernel: (6, 1), ..Host::default() };
    foundation::tables(&good(flags).policy, &host, &[]).settings
}

/// What is asked of connection tracking on a machine with so many CPUs.
fn wanted(flags: &[&str], cpus: u32) -> Vec<(String, String)> {
    let settings = settings(flags, cpus).into_iter();
    let tuned =
        settings.filter_map(|(path, value)| Some((path.strip_prefix(PREFIX)?.into(), value)));
    tuned.collect()
}

/// Values of the two flags, CPUs, and the limit that follows.
type Limit = ([&'static str; 2], u32, Option<&'static str>);

fn limits() -> Vec<(&'static str, Limit)> {
    vec![
        ("unlimited", (["0", "0"], 4, None)),
        ("least-alone", (["0", "3000"], 4, None)),
        ("per-cpu", (["50000", "0"], 4, Some("200000"))),
        ("least", (["1", "3000"], 4, Some("3000"))),
    ]
}

fn check_limit(([per_core, min], cpus, expected): Limit) {
    let flags = [format!("--conntrack-max-per-core={per_core}"), format!("--conntrack-min={min}")];
    let settings = settings(&flags.each_ref().map(String::as_str), cpus);
    let limit = settings.get("net/netfilter/nf_conntrack_max");
    assert_eq!(limit.map(String::as_str), expected);
}

fn each() {
    let flags = [
        "--conntrack-max-per-core=3000",
        "--conntrack-min=0",
        "--conntrack-tcp-timeout-established=5s",
        "--conntrack-tcp-timeout-close-wait=4s",
        "--conntrack-tcp-be-liberal",
        "--conntrack-udp-timeout=10s",
        "--conntrack-udp-timeout-stream=20s",
    ];
    let expected = [
        ("buckets", "1536"),
        ("max", "6000"),
        ("tcp_be_liberal", "1"),
        ("tcp_timeout_close_wait", "4"),
        ("tcp_timeout_established", "5"),
        ("udp_timeout", "10"),
        ("udp_timeout_stream", "20"),
    ];
    assert_eq!(wanted(&flags, 2), expected.map(|(name, value)| (name.into(), value.into())));
}

fn failure() {
    let of_conntrack = |step: &Step| match step {
        Step::Settings(changes) => changes.iter().any(|change| change.key.starts_with(PREFIX)),
        _ => false,
    };
    let faults = Faults::When(of_conntrack, Fault::Refused);
    let kernel = FakeKernel { faults, ..FakeKernel::default() };
    let mut node = Node::with(good(&[]).policy, kernel, []);
    let report = node.sync();
    // The defaults ask for two times; the size is not this host's to set.
    assert_eq!(report.failed.len(), 2, "{report}");
    // All else is set, and what waits for other settings does not wait for these.
    let forwarding = node.kernel.tables.settings.get(foundation::IPV6_FORWARDING);
    assert_eq!(forwarding.map(String::as_str), Some("1"));
}
