//! Configuration files: which are taken, and what counts besides them.

use std::ffi::OsString;
use std::time::Duration;

use kube_ipvs_proxy::config::file::{self, File};
use kube_ipvs_proxy::config::flags::{Parsed, parse};
use kube_ipvs_proxy::config::layers::{self, Loaded, Note};
use kube_ipvs_proxy::config::problem::Problems;
use kube_ipvs_proxy::reconcile::{self, Ended, Wires};
use kube_ipvs_proxy::serve::metrics;
use kube_ipvs_proxy::telemetry::metrics::Metrics;
use kube_ipvs_proxy::testing::fake_kernel::FakeKernel;
use kube_ipvs_proxy::testing::node::Node;
use kube_ipvs_proxy::testing::objects::{NODE, endpoint, on_node, service, slice_applied};

use super::good;
use crate::case::{Case, case, table};

const HEAD: &str = "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\n";

/// A file in which every section says something.
const FULL: &str = "bindAddress: 9.8.7.6
clientConnection: {acceptContentTypes: abc, burst: 100, kubeconfig: /path, qps: 7}
clusterCIDR: 1.2.3.0/24
configSyncPeriod: 15s
conntrack: {maxPerCore: 2, min: 1, tcpCloseWaitTimeout: 10s, tcpEstablishedTimeout: 20s}
healthzBindAddress: 1.2.3.4:12345
hostnameOverride: foo
iptables: {masqueradeAll: true, masqueradeBit: 17, minSyncPeriod: 10s, syncPeriod: 1m}
ipvs: {minSyncPeriod: 11s, syncPeriod: 61s, excludeCIDRs: [10.20.30.40/16, 'fd00:1::/64']}
metricsBindAddress: 2.3.4.5:23456
oomScoreAdj: 17
portRange: 2-7
detectLocalMode: ClusterCIDR
detectLocal: {bridgeInterface: cbr0, interfaceNamePrefix: veth}
nodePortAddresses: [10.20.30.40/16, 'fd00:1::/64']
";

pub fn cases() -> Vec<Case> {
    let mut cases = table("TestLoadConfigFailures", unreadable(), check_unreadable);
    cases.extend([
        case("TestLoadConfig/iptables", another_mode),
        case("TestLoadConfig/ipvs", full),
        case("TestLoadConfig/bind-addresses", bind_addresses),
        case("TestLoadConfig/unknown-field", unknown_field),
        case("TestLoadConfig/duplicate-field", duplicate_field),
        case("TestProcessHostnameOverrideFlag/empty", host_name_of_the_file),
        case("TestOptionsComplete/logging", logging),
        case("TestOptionsComplete/scheduler-besides-a-file", scheduler),
        case("Defaults/file", defaults),
        case("Validation/bind-address-with-port", bind_address_with_port),
        case("Validation/addresses-without-port", addresses_without_port),
        case("Validation/oom-score", oom_scores),
        case("TestConfigz", configz),
        case("TestConfigChange/file", change),
        case("TestConfigChange/error", end_of_the_source),
    ]);
    cases
}

fn read(text: &str) -> Result<File, String> {
    let (file, problems) = file::read("FILE", text, Problems::default());
    if problems.is_empty() { Ok(file) } else { Err(problems.to_string()) }
}

/// What flags and a file come to.
fn loaded(flags: &[&str], text: &str) -> Result<Loaded, String> {
    let words = ["kube-ipvs-proxy"].iter().chain(flags).map(OsString::from);
    let Parsed::Flags(flags, problems) = parse(words) else { panic!("{flags:?}: syntax") };
    let (file, problems) = file::read("FILE", &format!("{HEAD}{text}"), problems);
    let loaded = layers::load(&flags.given, Some(&file), "node-1", problems);
    loaded.map_err(|problems| problems.to_string())
}

fn unreadable() -> Vec<(&'static str, (String, &'static str))> {
    vec![
        ("garbage", ("this is: {garbage".to_string(), "FILE: ")),
        ("wrong-kind", (HEAD.replace("KubeProxy", "Kubelet"), "must be KubeProxyConfiguration")),
        ("unquoted-address", (format!("{HEAD}bindAddress: ::\n"), "line 3")),
    ]
}

fn check_unreadable((text, words): (String, &'static str)) {
    let problems = read(&text).expect_err("a file that is wrong");
    assert!(problems.contains(words), "{problems}");
}

fn another_mode() {
    let text = format!("{FULL}mode: iptables\n");
    assert!(read(&format!("{HEAD}{text}")).is_ok());
    let problems = loaded(&[], &text).unwrap_err();
    assert!(problems.starts_with("mode=iptables in FILE: "), "{problems}");
    assert_eq!(problems.lines().count(), 1);
}

fn full() {
    let config = loaded(&[], &format!("{FULL}mode: ipvs\n")).unwrap().config;
    assert_eq!([config.periods.sync, config.periods.min_sync].map(|p| p.as_secs()), [61, 11]);
    assert_eq!((&*config.policy.node_name, config.policy.masquerade_bit), ("foo", 17));
    assert_eq!((config.policy.conntrack.max_per_core, config.oom_score), (2, 17));
    assert_eq!(config.policy.conntrack.tcp_established, Duration::from_secs(20));
    assert_eq!(config.policy.excluded.len(), 2);
    assert_eq!(config.metrics.unwrap().to_string(), "2.3.4.5:23456");
}

fn bind_addresses() {
    for (written, read_as) in [
        ("0.0.0.0", "0.0.0.0"),
        ("9.8.7.6", "9.8.7.6"),
        ("\"::\"", "::"),
        ("\"[::]\"", "[::]"),
        ("::0", "::0"),
        ("2001:db8::1", "2001:db8::1"),
    ] {
        let file = read(&format!("{HEAD}bindAddress: {written}\n")).unwrap();
        assert_eq!(file.values["bind-address"].text, read_as);
    }
}

fn unknown_field() {
    let loaded = loaded(&[], "mode: ipvs\nfoo: bar\n").unwrap();
    assert_eq!(loaded.notes, [Note::Oddity("foo: no such field".into())]);
}

fn duplicate_field() {
    let loaded = loaded(&[], "mode: iptables\nmode: ipvs\n").unwrap();
    let expected = "line 4: mode is there twice; the last one counts";
    assert_eq!(loaded.notes, [Note::Oddity(expected.into())]);
}

fn host_name_of_the_file() {
    let loaded = loaded(&["--hostname-override="], "hostnameOverride: foo\n").unwrap();
    assert_eq!(&*loaded.config.policy.node_name, "foo");
}

fn logging() {
    let file = "logging: {verbosity: 2, format: json}\n";
    for (flags, expected) in [(&[][..], 2), (&["-v=4"], 4)] {
        let loaded = loaded(flags, file).unwrap();
        assert_eq!(loaded.config.verbosity, expected);
        assert_eq!(loaded.effective.pointer("/logging/format").unwrap(), "json");
    }
}

fn scheduler() {
    let loaded = loaded(&["--ipvs-scheduler=lc"], "mode: ipvs\nipvs: {scheduler: sh}\n").unwrap();
    assert_eq!(&*loaded.config.policy.scheduler, "sh");
    assert_eq!(loaded.notes, [Note::Overridden(vec!["--ipvs-scheduler".into()])]);
}

fn defaults() {
    let loaded = loaded(&[], "").unwrap();
    assert_eq!(loaded.config, good(&[]));
    for (path, expected) in [
        ("/ipvs/syncPeriod", serde_json::json!("30s")),
        ("/ipvs/minSyncPeriod", serde_json::json!("0s")),
        ("/iptables/masqueradeBit", serde_json::json!(14)),
        ("/conntrack/maxPerCore", serde_json::json!(32768)),
        ("/conntrack/min", serde_json::json!(131_072)),
        ("/conntrack/tcpEstablishedTimeout", serde_json::json!("24h")),
        ("/oomScoreAdj", serde_json::json!(-999)),
        ("/clientConnection/qps", serde_json::json!(5)),
        ("/healthzBindAddress", serde_json::json!("0.0.0.0:10256")),
        ("/metricsBindAddress", serde_json::json!("127.0.0.1:10249")),
        ("/nodePortAddresses", serde_json::Value::Null),
    ] {
        assert_eq!(loaded.effective.pointer(path), Some(&expected), "{path}");
    }
}

fn bind_address_with_port() {
    let problems = loaded(&[], "bindAddress: 10.10.12.11:2000\n").unwrap_err();
    let expected = "bindAddress=10.10.12.11:2000 in FILE: must be an IP address without a port";
    assert!(problems.starts_with(expected), "{problems}");
}

fn addresses_without_port() {
    let file = "healthzBindAddress: 0.0.0.0\nmetricsBindAddress: 127.0.0.1\n";
    let config = loaded(&[], file).unwrap().config;
    assert_eq!(config.healthz.unwrap().to_string(), "0.0.0.0:10256");
    assert_eq!(config.metrics.unwrap().to_string(), "127.0.0.1:10249");
}

fn configz() {
    let loaded = loaded(&[], "mode: ipvs\nipvs: {scheduler: sh}\n").unwrap();
    let answer = metrics::answer("/configz", &Metrics::new(), &loaded.effective);
    let told: serde_json::Value = serde_json::from_str(&answer.body).unwrap();
    assert_eq!(told.as_object().unwrap().keys().collect::<Vec<_>>(), ["kubeproxy.config.k8s.io"]);
    let told = &told["kubeproxy.config.k8s.io"];
    assert_eq!(told["kind"], "KubeProxyConfiguration");
    assert_eq!(told["apiVersion"], "kubeproxy.config.k8s.io/v1alpha1");
    assert_eq!(told["ipvs"]["scheduler"], "sh");
}

/// What another configuration comes to is what a start with it comes to.
fn change() {
    let file = "ipvs: {scheduler: sh}\niptables: {masqueradeBit: 9, masqueradeAll: true}\n";
    let config = loaded(&[], &format!("hostnameOverride: {NODE}\n{file}")).unwrap().config;
    let objects = || {
        let pod = on_node(endpoint("10.244.0.1"));
        let web = service("default/web", &["10.96.0.1"], &["tcp 80"]);
        [web.applied(), slice_applied("default/web", &["tcp 8080"], &[pod])]
    };
    let mut node = Node::new(objects());
    node.sync();
    node.engine.reconfigure(config.policy.clone(), config.periods, node.now);
    node.sync();
    let mut fresh = Node::with(config.policy, FakeKernel::default(), objects());
    fresh.sync();
    assert_eq!(node.kernel.tables, fresh.kernel.tables);
}

fn end_of_the_source() {
    let (wires, _) = Wires::new(Metrics::new());
    let ended = reconcile::run(Node::new([]).engine, FakeKernel::default(), wires);
    assert_eq!(ended.unwrap(), Ended::SourceGone);
}

fn oom_scores() {
    for score in ["-1001", "1001"] {
        let problems = loaded(&[], &format!("oomScoreAdj: {score}\n")).unwrap_err();
        let expected = "must be a whole number from -1000 to 1000";
        assert_eq!(problems, format!("oomScoreAdj={score} in FILE: {expected}"));
    }
}
