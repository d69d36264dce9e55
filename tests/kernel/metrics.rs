//! What a scraper reads of a running daemon.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use kube_ipvs_proxy::config::TlsFiles;
use kube_ipvs_proxy::testing::tls::Authority;
use libtest_mimic::Trial;

use crate::cluster::{self, Manifests, SOON, Service};
use crate::wait;
use crate::world::{Place, World};

pub fn tests() -> Vec<Trial> {
    crate::trials![
        metrics_follow_a_change_of_endpoints_from_its_cause,
        metrics_by_https_follow_the_certificate,
    ]
}

const PROGRAMMING: &str = "kubeproxy_network_programming_duration_seconds";
const AWAY: &str = "kubeproxy_sync_proxy_rules_no_local_endpoints_total";

/// One scrape: types by name, values by name and labels.
struct Scrape {
    types: BTreeMap<String, String>,
    values: BTreeMap<String, f64>,
}

impl Scrape {
    fn of(world: &World) -> Self {
        let answer = cluster::ask_metrics_address(world, "/metrics").expect("metrics");
        let (_, text) = answer.split_once("\r\n\r\n").expect("a body");
        assert!(text.ends_with("# EOF\n"), "{text}");
        let pair = |line: &str| {
            line.rsplit_once(' ').map(|(key, value)| (key.to_string(), value.to_string()))
        };
        let types = text.lines().filter_map(|line| pair(line.strip_prefix("# TYPE ")?));
        let values = text.lines().filter(|line| !line.starts_with('#')).filter_map(pair);
        let values = values.map(|(key, value)| (key, value.parse().expect("a number")));
        Scrape { types: types.collect(), values: values.collect() }
    }

    /// Series whose names and labels hold all of these texts.
    fn series(&self, texts: &[&str]) -> Vec<(&str, f64)> {
        let holds = |key: &str| texts.iter().all(|text| key.contains(text));
        let found = self.values.iter().filter(|(key, _)| holds(key));
        found.map(|(key, value)| (key.as_str(), *value)).collect()
    }

    fn value(&self, texts: &[&str]) -> f64 {
        match self.series(texts)[..] {
            [(_, value)] => value,
            ref found => panic!("{texts:?} is {found:?}"),
        }
    }
}

/// Slices that say, as those of a control plane do, that they are caused by a change of now.
fn caused_now(manifest: &str) -> String {
    let now = jiff::Timestamp::now();
    let annotation = format!(
        "  annotations: {{endpoints.kubernetes.io/last-change-trigger-time: \"{now}\"}}\n\
         addressType:"
    );
    manifest.replace("addressType:", &annotation)
}

fn metrics_follow_a_change_of_endpoints_from_its_cause() {
    let world = World::new();
    let here = world.pod("here", Place::Node, 3);
    let away = world.pod("away", Place::Outside, 4);
    let spec = "  internalTrafficPolicy: Local\n";
    let [both, one] = [vec![&here, &away], vec![&away]];
    let manifest = |pods| Service { spec, ..Service::new("web", 128, pods) }.manifest();
    let manifests = Manifests::new();
    manifests.put("web.yaml", &caused_now(&manifest(&both)));
    let _daemon = cluster::start(&world, &manifests, &[]);

    let first = Scrape::of(&world);
    assert_eq!(first.types[AWAY], "gauge");
    assert_eq!(first.series(&[PROGRAMMING]), [], "what was there before is not measured");
    let gauges = first.series(&[AWAY]);
    assert_eq!(gauges.iter().map(|(_, value)| value).sum::<f64>(), 0.0, "{gauges:?}");
    assert_eq!(gauges.len(), 4, "{gauges:?}");

    manifests.put("web.yaml", &caused_now(&manifest(&one)));
    let is_away = |scrape: &Scrape| scrape.value(&[AWAY, "internal", "IPv4"]) > 0.0;
    wait::until("the change", SOON, || is_away(&Scrape::of(&world)));
    let second = Scrape::of(&world);
    assert_eq!(second.types[PROGRAMMING], "histogram");
    for (name, kind) in &first.types {
        assert_eq!(second.types.get(name), Some(kind), "{name}");
    }
    for family in ["IPv4", "IPv6"] {
        assert_eq!(second.value(&[AWAY, "internal", family]), 1.0);
        assert_eq!(second.value(&[AWAY, "external", family]), 0.0);
        let of = |part: &str| second.value(&[&format!("{PROGRAMMING}_{part}"), family]);
        assert_eq!(of("count"), 1.0);
        let sum = of("sum");
        assert!(sum > 0.0 && sum < SOON.as_secs_f64(), "{sum} s");
    }

    // The same endpoints once more, whatever is said to have caused that.
    manifests.put("web.yaml", &caused_now(&manifest(&one)));
    manifests.put("more.yaml", &Service::new("more", 129, &one).manifest());
    let services = "kubeproxy_sync_proxy_rules_service_changes_total";
    let before = second.value(&[services]);
    wait::until("another Service", SOON, || Scrape::of(&world).value(&[services]) > before);
    cluster::wait_for_syncs(&world, 1);
    let third = Scrape::of(&world);
    assert_eq!(third.series(&[PROGRAMMING]), second.series(&[PROGRAMMING]));
    for (key, before) in &second.values {
        let name = key.split('{').next().unwrap_or_default();
        if name.strip_suffix("_total").is_some_and(|base| third.types.contains_key(base)) {
            assert!(third.values[key] >= *before, "{key}: {before}, then {}", third.values[key]);
        }
    }
}

fn metrics_by_https_follow_the_certificate() {
    let (ours, renewed) = (Authority::new("metrics"), Authority::new("metrics-renewed"));
    let files = ours.issue("node");
    let flag = |name: &str, path: &Path| format!("--metrics-{name}={}", path.display());
    let flags = [
        flag("tls-cert-file", &files.certificate),
        flag("tls-private-key-file", &files.private_key),
        flag("client-ca-file", &ours.file("ca.crt")),
    ];
    let (world, manifests) = (World::new(), Manifests::new());
    let _daemon = cluster::start(&world, &manifests, &flags.each_ref().map(String::as_str));
    let prometheus = ours.issue("prometheus");
    let is_served = |authority| scrape(&world, authority, Some(&prometheus)).is_ok();
    wait::until("metrics by HTTPS", SOON, || is_served(&ours));
    let refused = scrape(&world, &ours, None).expect_err("a client without a certificate");
    assert!(refused.contains("certificate required"), "{refused}");
    let plain = cluster::ask_metrics_address(&world, "/metrics").expect("an answer");
    assert!(plain.ends_with("Client sent an HTTP request to an HTTPS server.\n"), "{plain}");

    let new = renewed.issue("node");
    for (new, old) in [(new.certificate, files.certificate), (new.private_key, files.private_key)] {
        fs::rename(new, old).expect("a file to replace");
    }
    wait::until("the new certificate", SOON, || is_served(&renewed));
    assert!(!is_served(&ours));
}

/// What `curl` makes of the metrics, trusting an authority, or why it makes nothing of them.
fn scrape(
    world: &World,
    authority: &Authority,
    client: Option<&TlsFiles>,
) -> Result<String, String> {
    let mut command = Command::new("curl");
    command.args(["--silent", "--show-error", "--fail", "--cacert"]);
    command.arg(authority.file("ca.crt"));
    if let Some(TlsFiles { certificate, private_key, .. }) = client {
        command.arg("--cert").arg(certificate).arg("--key").arg(private_key);
    }
    command.arg("https://127.0.0.1:10249/metrics");
    let output = world.node.run(|| command.output()).expect("curl is there");
    match output.status.success() {
        true => Ok(String::from_utf8(output.stdout).expect("text")),
        false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
    }
}
