//! Rows of one Service, and the sum over Services that meet.

use super::service::Facts;
use super::*;
use crate::cluster::{Endpoint, EndpointSlice};
use crate::config::Policy;
use crate::model::ipvs::VirtualServer;
use crate::model::net::PerFamily;
use crate::testing::objects::{self, *};

fn rows_on(policy: &Policy, builder: ServiceBuilder, slices: &[EndpointSlice]) -> ServiceRows {
    rows_of_node(policy, builder, slices, &[])
}

/// Rows on a node with these addresses.
fn rows_of_node(
    policy: &Policy,
    builder: ServiceBuilder,
    slices: &[EndpointSlice],
    addresses: &[&str],
) -> ServiceRows {
    let addresses: BTreeSet<IpAddr> = addresses.iter().map(|text| ip(text)).collect();
    let facts = Facts {
        policy,
        zone: Some("a"),
        families: PerFamily { v4: true, v6: true },
        host_addresses: &addresses,
        node_addresses: &addresses,
        lacking: &BTreeSet::new(),
    };
    let slices: Vec<&EndpointSlice> = slices.iter().collect();
    service::rows(&name("default/web"), &builder.build(), &slices, facts)
}

fn rows(builder: ServiceBuilder, slices: &[EndpointSlice]) -> ServiceRows {
    rows_on(&objects::policy(), builder, slices)
}

fn web() -> ServiceBuilder {
    objects::service("default/web", &["10.96.0.1"], &["tcp 80"])
}

fn slice_of(endpoints: &[Endpoint]) -> EndpointSlice {
    objects::slice("default/web", &["tcp 8080"], endpoints)
}

fn reals(rows: &ServiceRows, key: &str) -> Vec<String> {
    rows.fronts[&front(key)].server.reals.keys().map(ToString::to_string).collect()
}

fn entries(rows: &ServiceRows, key: &str) -> Vec<String> {
    let mut texts: Vec<_> =
        rows.fronts[&front(key)].entries.iter().map(ToString::to_string).collect();
    texts.sort();
    texts
}

#[test]
fn a_front_has_its_server_entries_and_address() {
    let rows = rows(web().affinity(600), &[slice_of(&[on_node(endpoint("10.244.0.1"))])]);
    assert_eq!(
        entries(&rows, "tcp 10.96.0.1:80"),
        [
            "KUBE-CLUSTER-IP 10.96.0.1,tcp:80",
            "KUBE-IPVS-IPS 10.96.0.1",
            "KUBE-IPVS-PASS 10.96.0.1,tcp:80",
            "KUBE-IPVS-SERVERS 10.96.0.1,tcp:80",
            "KUBE-LOOP-BACK 10.244.0.1,tcp:8080,10.244.0.1",
        ]
    );
    let front = &rows.fronts[&front("tcp 10.96.0.1:80")];
    assert_eq!(front.address, Some(ip("10.96.0.1")));
    assert_eq!(front.server.config.persistence, Some(600));
    assert_eq!(front.server.config.scheduler_flags, 0);
}

#[test]
fn a_front_without_usable_endpoints_is_there_but_nothing_passes() {
    let local = on_node(unready(endpoint("10.244.0.1")));
    let rows = rows(web(), &[slice_of(&[local])]);
    let entries = entries(&rows, "tcp 10.96.0.1:80");
    assert!(!entries.iter().any(|entry| entry.contains("PASS")), "{entries:?}");
    // Parity: whatever its state, a local endpoint may reach itself.
    assert!(entries.iter().any(|entry| entry.contains("LOOP-BACK")), "{entries:?}");
    assert_eq!(*rows.fronts[&front("tcp 10.96.0.1:80")].leaving, [real("10.244.0.1:8080")]);
}

#[test]
fn ports_find_endpoints_by_name_and_protocol_in_every_slice() {
    let service =
        objects::service("default/web", &["10.96.0.1"], &["dns udp 53", "dns-tcp tcp 53"]);
    let pod = |address| [endpoint(address)];
    let slices = [
        objects::slice("default/web", &["dns udp 5353", "dns-tcp tcp 5354"], &pod("10.244.0.1")),
        objects::slice("default/web", &["dns udp 5355"], &pod("10.244.0.2")),
        objects::slice("default/web", &["dns tcp 1"], &pod("10.244.0.3")),
        objects::slice("default/web", &["dns udp 5353"], &pod("fd00::1")),
    ];
    let rows = rows(service, &slices);
    assert_eq!(reals(&rows, "udp 10.96.0.1:53"), ["10.244.0.1:5353", "10.244.0.2:5355"]);
    assert_eq!(reals(&rows, "tcp 10.96.0.1:53"), ["10.244.0.1:5354"]);
}

#[test]
fn families_do_not_mix_and_a_missing_one_asks_for_nothing() {
    let dual = || objects::service("default/web", &["10.96.0.1", "fd00:96::1"], &["tcp 80"]);
    let slices = [slice_of(&[endpoint("10.244.0.1")]), slice_of(&[endpoint("fd00:244::1")])];
    let both = rows(dual(), &slices);
    assert_eq!(reals(&both, "tcp 10.96.0.1:80"), ["10.244.0.1:8080"]);
    assert_eq!(reals(&both, "tcp [fd00:96::1]:80"), ["[fd00:244::1]:8080"]);

    let policy = objects::policy();
    let nowhere = BTreeSet::new();
    let facts = Facts {
        policy: &policy,
        zone: None,
        families: PerFamily { v4: true, v6: false },
        host_addresses: &nowhere,
        node_addresses: &nowhere,
        lacking: &BTreeSet::new(),
    };
    let slices: Vec<_> = slices.iter().collect();
    let v4_only = service::rows(&name("default/web"), &dual().build(), &slices, facts);
    assert_eq!(v4_only.fronts.keys().collect::<Vec<_>>(), [&front("tcp 10.96.0.1:80")]);
}

#[test]
fn the_maglev_scheduler_hashes_ports_too() {
    let policy = Policy { scheduler: "mh".into(), ..objects::policy() };
    let rows = rows_on(&policy, web(), &[]);
    let config = &rows.fronts[&front("tcp 10.96.0.1:80")].server.config;
    assert_eq!((&*config.scheduler, config.scheduler_flags), ("mh", 0x10));
}

#[test]
fn only_hints_make_a_service_depend_on_the_zone() {
    assert!(!rows(web(), &[slice_of(&[endpoint("10.244.0.1")])]).uses_zone);
    assert!(rows(web(), &[slice_of(&[hinted(endpoint("10.244.0.1"), "a")])]).uses_zone);
}

/// A Service of a name and age on a front, with one pod of its own.
fn claim(text: &str, created: Option<i64>, pod: &str) -> (ObjectName, Option<ServiceRows>) {
    let mut rows = rows(web(), &[slice_of(&[on_node(endpoint(pod))])]);
    rows.rank = Rank { created, name: name(text) };
    (name(text), Some(rows))
}

#[test]
fn the_older_claim_wins_whatever_the_order_of_events() {
    let claims = [
        claim("b/old", Some(1), "10.244.0.1"),
        claim("a/young", Some(2), "10.244.0.2"),
        claim("a/first-by-name", Some(2), "10.244.0.3"),
    ];
    for order in [[0, 1, 2], [2, 1, 0], [1, 0, 2]] {
        let mut desired = Desired::default();
        for index in order {
            let (name, rows) = &claims[index];
            desired.replace(name, rows.clone());
        }
        let mut winners = Vec::new();
        for leaving in ["b/old", "a/first-by-name", "a/young"] {
            let server = &desired.tables().servers[&front("tcp 10.96.0.1:80")];
            winners.extend(server.reals.keys().map(ToString::to_string));
            desired.replace(&name(leaving), None);
        }
        assert_eq!(winners, ["10.244.0.1:8080", "10.244.0.3:8080", "10.244.0.2:8080"]);
        assert_eq!(*desired.tables(), Tables::default(), "nothing is left of anyone");
    }
}

#[test]
fn the_losers_are_rejected_with_the_name_of_the_winner() {
    let mut desired = Desired::default();
    let claims = [("b/old", 1, "10.244.0.1"), ("a/young", 2, "::1"), ("c/old", 1, "10.244.0.2")];
    for (name, created, endpoint) in claims {
        let (name, rows) = claim(name, Some(created), endpoint);
        desired.replace(&name, rows);
    }
    let rejected = desired.rejected().into_iter();
    let reasons: Vec<_> = rejected.map(|rejected| (rejected.object, rejected.reason)).collect();
    let front = "tcp 10.96.0.1:80 belongs to";
    let expected = [
        (name("c/old"), format!("{front} b/old, which is as old, and comes first by name")),
        (name("a/young"), format!("{front} the older Service b/old")),
    ];
    assert_eq!(reasons, expected);
}

#[test]
fn rows_that_services_share_stay_until_the_last_user_goes() {
    let service = |text: &str, port: &str| {
        let builder = objects::service(text, &["10.96.0.1"], &[port]);
        let pods = [on_node(endpoint("10.244.0.1"))];
        let mut rows = rows(builder, &[objects::slice(text, &["tcp 8080"], &pods)]);
        rows.rank.name = name(text);
        rows
    };
    let mut desired = Desired::default();
    desired.replace(&name("default/a"), Some(service("default/a", "tcp 80")));
    desired.replace(&name("default/b"), Some(service("default/b", "tcp 81")));
    let shared = |desired: &Desired| {
        let tables = desired.tables();
        let hairpins = tables.entries.iter().filter(|entry| entry.set == SetId::LoopBack).count();
        (tables.addresses.len(), hairpins)
    };
    assert_eq!(shared(&desired), (1, 1));
    let touched = desired.replace(&name("default/a"), None);
    assert_eq!(shared(&desired), (1, 1));
    assert!(touched.addresses.is_empty(), "somebody else uses it");
    let touched = desired.replace(&name("default/b"), None);
    assert!(touched.addresses.contains(&ip("10.96.0.1")));
    assert_eq!(shared(&desired), (0, 0));
}

#[test]
fn a_change_touches_what_it_alters_and_an_equal_value_nothing() {
    let mut desired = Desired::default();
    let rows = |pod| rows(web(), &[slice_of(&[endpoint(pod)])]);
    desired.replace(&name("default/web"), Some(rows("10.244.0.1")));
    assert!(desired.replace(&name("default/web"), Some(rows("10.244.0.1"))) == Touched::default());
    let touched = desired.replace(&name("default/web"), Some(rows("10.244.0.2")));
    assert_eq!(touched.servers.into_iter().collect::<Vec<_>>(), [front("tcp 10.96.0.1:80")]);
    assert!(touched.entries.is_empty() && touched.addresses.is_empty());
    assert!(desired.replace(&name("default/none"), None) == Touched::default());
}

#[test]
fn service_ranges_are_entries_of_their_own() {
    let mut desired = Desired::default();
    let nets = |texts: &[&str]| texts.iter().map(|t| t.parse().unwrap()).collect::<Vec<IpNet>>();
    let touched = desired.set_service_cidrs(&nets(&["10.96.0.7/12", "fd00::/112"]));
    assert_eq!(touched.entries.len(), 2);
    let touched = desired.set_service_cidrs(&nets(&["10.96.0.0/12"]));
    let texts: Vec<_> = touched.entries.iter().map(ToString::to_string).collect();
    assert_eq!(texts, ["KUBE-6-SERVICE-CIDR fd00::/112"]);
}

/// The worked example of the reference's behaviour: spec appendix B, the Service `web`.
#[test]
fn a_load_balancer_with_local_policy_is_programmed_at_every_address() {
    let service = objects::service("default/web", &["10.96.0.1"], &["tcp 80:30080"])
        .external_local()
        .load_balancer_ips(&["203.0.113.7"])
        .health_check_port(31000)
        .affinity(600);
    let slices = [slice_of(&[
        on_node(endpoint("10.244.1.5")),
        endpoint("10.244.2.6"),
        on_node(terminating(endpoint("10.244.1.7"))),
    ])];
    let rows = rows_of_node(&objects::policy(), service, &slices, &["192.0.2.10", "169.254.10.1"]);
    assert_eq!(reals(&rows, "tcp 10.96.0.1:80"), ["10.244.1.5:8080", "10.244.2.6:8080"]);
    for key in ["tcp 203.0.113.7:80", "tcp 192.0.2.10:30080", "tcp 169.254.10.1:30080"] {
        assert_eq!(reals(&rows, key), ["10.244.1.5:8080"], "{key}");
        assert_eq!(rows.fronts[&front(key)].server.config.persistence, Some(600), "{key}");
    }
    assert_eq!(rows.fronts.keys().count(), 4);
    let entries: BTreeSet<String> =
        rows.fronts.values().flat_map(|front| &front.entries).map(ToString::to_string).collect();
    for entry in [
        "KUBE-LOAD-BALANCER 203.0.113.7,tcp:80",
        "KUBE-LOAD-BALANCER-LOCAL 203.0.113.7,tcp:80",
        "KUBE-NODE-PORT-TCP 30080",
        "KUBE-NODE-PORT-LOCAL-TCP 30080",
        "KUBE-HEALTH-CHECK-NODE-PORT 31000",
        "KUBE-IPVS-IPS 203.0.113.7",
        "KUBE-LOOP-BACK 10.244.1.5,tcp:8080,10.244.1.5",
        "KUBE-LOOP-BACK 10.244.1.7,tcp:8080,10.244.1.7",
    ] {
        assert!(entries.contains(entry), "{entry} is not in {entries:#?}");
    }
    assert!(!entries.iter().any(|entry| entry.contains("NO-LOCAL") || entry.contains("IPS 192.")));
    let health = rows.health.expect("a health check");
    assert_eq!((health.port, health.local_endpoints), (31000, 1));
}

#[test]
fn without_a_local_endpoint_only_the_cluster_may_use_the_others() {
    let service = || web().external_ips(&["198.51.100.9"]).external_local();
    let slices = [slice_of(&[endpoint("10.244.2.6")])];
    let rows = rows(service(), &slices);
    let external = &rows.fronts[&front("tcp 198.51.100.9:80")];
    assert_eq!(reals(&rows, "tcp 198.51.100.9:80"), ["10.244.2.6:8080"]);
    assert!(
        external
            .entries
            .contains(&Entry::of_front(SetId::NoLocalEndpoints, &front("tcp 198.51.100.9:80")))
    );
    let cluster = &rows.fronts[&front("tcp 10.96.0.1:80")];
    assert!(!cluster.entries.iter().any(|entry| entry.set == SetId::NoLocalEndpoints));
    // The endpoint may ask here, and would otherwise get its own packets with its own address.
    let is_hairpin = |entry: &Entry| entry.set == SetId::LoopBack;
    assert!(external.entries.iter().any(is_hairpin) && !cluster.entries.iter().any(is_hairpin));
}

/// The same pods are in a slice of each family.
#[test]
fn a_health_check_counts_pods_not_addresses() {
    let service = web().external_local().health_check_port(31000);
    let ipv4 = slice_of(&[on_node(endpoint("10.244.1.5")), on_node(endpoint("10.244.1.6"))]);
    let ipv6 = slice_of(&[on_node(endpoint("fd00:244::5"))]);
    let health = rows(service, &[ipv4, ipv6]).health.expect("a health check");
    assert_eq!(health.local_endpoints, 2);
}

#[test]
fn an_address_of_another_device_is_served_but_not_bound() {
    let service = web().external_ips(&["192.0.2.10"]);
    let rows = rows_of_node(&objects::policy(), service, &[], &["192.0.2.10"]);
    assert_eq!(rows.fronts[&front("tcp 192.0.2.10:80")].address, None);
    assert_eq!(rows.fronts[&front("tcp 10.96.0.1:80")].address, Some(ip("10.96.0.1")));
}

#[test]
fn source_ranges_guard_load_balancers_and_admit_a_node_inside() {
    let service = || web().load_balancer_ips(&["203.0.113.7"]).source_ranges(&["192.0.2.0/24"]);
    for (address, is_inside) in [("192.0.2.10", true), ("198.51.100.1", false)] {
        let rows = rows_of_node(&objects::policy(), service(), &[], &[address]);
        let entries = &rows.fronts[&front("tcp 203.0.113.7:80")].entries;
        let has = |set| entries.iter().any(|entry| entry.set == set);
        assert!(has(SetId::LoadBalancerFw) && has(SetId::LoadBalancerSourceCidr));
        assert_eq!(has(SetId::LoadBalancerSourceIp), is_inside, "{address}");
    }
}

#[test]
fn a_service_may_choose_its_scheduler_and_flags() {
    let config = |scheduler: Option<&str>, flags: &[&str]| {
        let service = web().scheduling(scheduler, flags);
        let policy = Policy { scheduler: "mh".into(), ..objects::policy() };
        let rows = rows_on(&policy, service, &[]);
        let VirtualServer { scheduler, scheduler_flags, .. } =
            rows.fronts[&front("tcp 10.96.0.1:80")].server.config.clone();
        (scheduler.to_string(), scheduler_flags)
    };
    assert_eq!(config(None, &[]), ("mh".to_owned(), 0x10), "as the reference");
    assert_eq!(config(Some("lc"), &[]), ("lc".to_owned(), 0));
    assert_eq!(config(Some("mh"), &["mh-fallback"]), ("mh".to_owned(), 0x8));
    assert_eq!(config(None, &["mh-fallback", "flag-3"]), ("mh".to_owned(), 0x28));
}

#[test]
fn flags_that_the_default_scheduler_does_not_have_are_told_and_not_used() {
    let of_default = |scheduler: &str, flags: &[&str]| {
        let policy = Policy { scheduler: scheduler.into(), ..objects::policy() };
        let rows = rows_on(&policy, web().scheduling(None, flags), &[]);
        let flags = rows.fronts[&front("tcp 10.96.0.1:80")].server.config.scheduler_flags;
        (flags, rows.rejected)
    };
    for (scheduler, flags, bits) in [
        ("rr", ["flag-1", "flag-3"], 0x28),
        ("sh", ["sh-port", "sh-fallback"], 0x18),
        ("mh", ["flag-2", "mh-fallback"], 0x18),
    ] {
        assert_eq!(of_default(scheduler, &flags), (bits, vec![]), "{scheduler} {flags:?}");
    }
    let told = |scheduler: &str, flags: &str| {
        let reason = format!(
            "the scheduler {scheduler}, which is used as the Service names none, has no flag \
             {flags}; the flags of the Service are not used: name the scheduler of the flags in \
             metadata.annotations[ipvs.kube-ipvs-proxy.io/scheduler]"
        );
        vec![(Cause::Defaulted, reason)]
    };
    let both = ["sh-fallback", "sh-port", "flag-3"];
    assert_eq!(of_default("rr", &both), (0, told("rr", "sh-fallback or sh-port")));
    assert_eq!(of_default("sh", &["sh-port", "mh-port"]), (0, told("sh", "mh-port")));
    assert_eq!(of_default("mh", &["sh-fallback"]), (0x10, told("mh", "sh-fallback")));
}

#[test]
fn a_scheduler_that_the_kernel_lacks_is_replaced_with_its_flags() {
    let lacking = BTreeSet::from(["sh".into()]);
    let (policy, nowhere) = (objects::policy(), BTreeSet::new());
    let facts = Facts {
        policy: &policy,
        zone: None,
        families: PerFamily { v4: true, v6: true },
        host_addresses: &nowhere,
        node_addresses: &nowhere,
        lacking: &lacking,
    };
    let service = web().scheduling(Some("sh"), &["sh-port"]).build();
    let rows = service::rows(&name("default/web"), &service, &[], facts);
    let config = &rows.fronts[&front("tcp 10.96.0.1:80")].server.config;
    assert_eq!((&*config.scheduler, config.scheduler_flags), ("rr", 0));
    let told = "the kernel has no scheduler sh, rr is used: load ip_vs_sh: modprobe ip_vs_sh";
    assert_eq!(rows.rejected, [(Cause::Scheduler, told.to_owned())]);
}

#[test]
fn addresses_of_excluded_ranges_are_left_to_others() {
    let excluded = vec!["192.0.2.0/28".parse().unwrap(), "fd00:96::/64".parse().unwrap()];
    let policy = Policy { excluded, ..objects::policy() };
    let service = objects::service("default/web", &["10.96.0.1", "fd00:96::1"], &["tcp 80:30080"])
        .external_ips(&["192.0.2.7", "192.0.2.17"]);
    let rows = rows_of_node(&policy, service, &[], &["192.0.2.1", "192.0.2.33"]);
    let fronts: Vec<String> = rows.fronts.keys().map(ToString::to_string).collect();
    let expected = ["tcp 10.96.0.1:80", "tcp 192.0.2.17:80", "tcp 192.0.2.33:30080"];
    assert_eq!(fronts, expected);
    let told = |address| {
        (Cause::Excluded, format!("{address} is in --ipvs-exclude-cidrs, so left to others"))
    };
    assert_eq!(rows.rejected, ["fd00:96::1", "192.0.2.7"].map(told));
}

/// W-15: the entry has nothing to do with node addresses, of which there may be none.
#[test]
fn a_health_check_needs_no_node_address() {
    let service = objects::service("default/web", &["10.96.0.1"], &["tcp 80:30080"])
        .external_local()
        .load_balancer_ips(&["203.0.113.7"])
        .health_check_port(31000);
    let rows = rows_of_node(&objects::policy(), service, &[], &[]);
    let mut entries = rows.fronts.values().flat_map(|front| &front.entries);
    assert!(entries.any(|entry| entry.set == SetId::HealthCheckNodePort));
    assert!(rows.fronts.get(&front("tcp 203.0.113.7:80")).is_some());
}

/// W-21: that a Service has clients outside is no reason to send those inside to other nodes.
#[test]
fn the_internal_policy_stays_local_next_to_addresses_for_the_outside() {
    let service = objects::service("default/web", &["10.96.0.1"], &["tcp 80:30080"])
        .local()
        .external_ips(&["198.51.100.9"]);
    let slices = [slice_of(&[endpoint("10.244.2.6")])];
    let rows = rows_of_node(&objects::policy(), service, &slices, &["192.0.2.10"]);
    assert_eq!(reals(&rows, "tcp 10.96.0.1:80"), [""; 0]);
    for key in ["tcp 198.51.100.9:80", "tcp 192.0.2.10:30080"] {
        assert_eq!(reals(&rows, key), ["10.244.2.6:8080"], "{key}");
    }
}

#[test]
fn the_kind_of_an_address_is_known() {
    let service = objects::service("default/web", &["10.96.0.1"], &["tcp 80:30080"])
        .external_ips(&["192.0.2.7"])
        .load_balancer_ips(&["192.0.2.7", "192.0.2.8"]);
    let rows = rows_of_node(&objects::policy(), service, &[], &["192.0.2.1", "192.0.2.8"]);
    for (at, kind) in [
        ("tcp 10.96.0.1:80", "cluster IP"),
        ("tcp 192.0.2.7:80", "external IP"),
        ("tcp 192.0.2.8:80", "load balancer"),
        ("tcp 192.0.2.8:30080", "node port"),
        ("tcp 192.0.2.1:30080", "node port"),
    ] {
        assert_eq!(rows.fronts[&front(at)].kind.to_string(), kind, "{at}");
    }
}

/// Services of both policies, with an endpoint here or elsewhere, come and go.
#[test]
fn services_with_endpoints_elsewhere_alone_are_counted_by_policy() {
    let ready = || [slice_of(&[endpoint("10.244.2.6")])];
    let here = || [slice_of(&[endpoint("10.244.2.6"), on_node(endpoint("10.244.0.1"))])];
    let leaving =
        || [slice_of(&[endpoint("10.244.2.6"), on_node(terminating(endpoint("10.244.0.1")))])];
    let unready = || [slice_of(&[unready(endpoint("10.244.2.6"))])];
    let both = || web().local().external_local().external_ips(&["192.0.2.7"]);
    let mut desired = Desired::default();
    let mut count = |service: ServiceBuilder, slices: &[EndpointSlice]| {
        desired.replace(&name("default/web"), Some(rows(service, slices)));
        let Away { internal, external } = desired.away();
        [internal.v4, internal.v6, external.v4, external.v6]
    };
    assert_eq!(count(web(), &ready()), [0; 4], "no policy asks for any");
    assert_eq!(count(web().local(), &ready()), [1, 0, 0, 0]);
    assert_eq!(count(both(), &ready()), [1, 0, 1, 0]);
    assert_eq!(count(both(), &ready()), [1, 0, 1, 0], "the same once more");
    assert_eq!(count(both(), &here()), [0; 4]);
    assert_eq!(count(both(), &leaving()), [0; 4], "the last resort is here");
    assert_eq!(count(both(), &ready()), [1, 0, 1, 0]);
    assert_eq!(count(both(), &unready()), [0; 4], "there are none at all");
    assert_eq!(count(both(), &ready()), [1, 0, 1, 0]);
    desired.replace(&name("default/web"), None);
    assert_eq!(desired.away(), Away::default());
}
