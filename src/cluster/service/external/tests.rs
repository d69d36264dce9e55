//! Cases of what a Service offers besides cluster IPs, each a fragment of JSON.

use serde_json::{Value, json};

use super::super::tests::{parse_object, parse_with, service};
use crate::cluster::{Parsed, Service, TrafficPolicy};

/// Parses a usable Service with the spec fields and the ingress given.
fn parse_balanced(fields: Value, ingress: Value) -> Parsed {
    let mut spec = json!({"clusterIP": "10.0.0.1", "ports": [{"port": 80}]});
    for (name, value) in fields.as_object().unwrap() {
        spec[name] = value.clone();
    }
    let status = json!({"loadBalancer": {"ingress": ingress}});
    parse_object(json!({"metadata": {"name": "web"}, "spec": spec, "status": status}))
}

/// What is there besides cluster IPs, as words in a fixed order.
fn text(service: &Service) -> String {
    let mut words = Vec::new();
    for port in &service.ports {
        let node_port = port.node_port.map(|number| format!(":{number}")).unwrap_or_default();
        words.push(format!("{}/{}{node_port}", port.protocol, port.port));
    }
    words.extend(service.external_ips.iter().map(|ip| format!("ext={ip}")));
    words.extend(service.load_balancer_ips.iter().map(|ip| format!("lb={ip}")));
    words.extend(service.source_ranges.iter().map(|range| format!("from={range}")));
    if service.external_policy == TrafficPolicy::Local {
        words.push("local".to_owned());
    }
    words.extend(service.health_check_port.map(|port| format!("health={port}")));
    words.join(" ")
}

/// Checks what is offered and every reason; each case also names itself.
fn check(what: &str, parsed: Parsed, expected: &str, reasons: &[&str]) {
    assert_eq!(crate::testing::objects::reasons(&parsed), reasons, "{what}");
    assert_eq!(text(&service(parsed)), expected, "{what}");
}

/// Spec 13.9, the cases about Services that stay out.
#[test]
fn services_that_stay_out_offer_nothing_else_either() {
    let balancer = json!([{"ip": "192.0.2.2"}]);
    let external = |fields: Value| {
        let mut all = json!({"type": "LoadBalancer", "externalIPs": ["192.0.2.1", "bad"],
            "externalTrafficPolicy": "Local"});
        for (name, value) in fields.as_object().unwrap() {
            all[name] = value.clone();
        }
        all
    };
    for (what, fields) in [
        (
            "headless over UDP",
            json!({"clusterIP": "None", "ports": [{"port": 1, "protocol": "UDP"}]}),
        ),
        (
            "headless over SCTP",
            json!({"clusterIP": "None", "ports": [{"port": 1, "protocol": "SCTP"}]}),
        ),
        ("headless without ports", json!({"clusterIP": "None", "ports": []})),
        ("no cluster IP yet", json!({"clusterIP": ""})),
        ("a name elsewhere, though it has a cluster IP", json!({"type": "ExternalName"})),
    ] {
        let parsed = parse_balanced(external(fields), balancer.clone());
        assert_eq!(parsed, Parsed::default(), "{what}");
    }
}

/// Spec 13.9, the cases about Services that are served.
#[test]
fn every_kind_of_service_offers_what_the_reference_finds() {
    let udp = |port: u16| json!({"port": port, "protocol": "UDP"});
    let balancer = json!({"type": "LoadBalancer", "loadBalancerIP": "5.6.7.8",
        "ports": [{"port": 8675, "nodePort": 31_061, "protocol": "UDP"}]});
    let local = json!({"type": "LoadBalancer", "externalTrafficPolicy": "Local",
        "healthCheckNodePort": 345, "ports": [udp(8677), udp(8678)]});
    let two = json!({"type": "ClusterIP", "ports": [udp(1234), udp(1235)]});
    let ports = json!({"type": "NodePort", "ports": [
        {"port": 345, "nodePort": 30_345, "protocol": "UDP"}, {"port": 344, "nodePort": 30_344}]});
    for (what, fields, ingress, expected) in [
        ("two ports, cluster IP alone", two, json!([]), "udp/1234 udp/1235"),
        ("node ports per protocol", ports, json!([]), "udp/345:30345 tcp/344:30344"),
        (
            "the address comes from the status, never from loadBalancerIP",
            balancer.clone(),
            json!([{"ip": "10.1.2.4"}]),
            "udp/8675:31061 lb=10.1.2.4",
        ),
        (
            "mode VIP says what absence says",
            balancer.clone(),
            json!([{"ip": "10.1.2.4", "ipMode": "VIP"}]),
            "udp/8675:31061 lb=10.1.2.4",
        ),
        (
            "a balancer that proxies keeps its address",
            balancer,
            json!([{"ip": "10.1.2.4", "ipMode": "Proxy"}]),
            "udp/8675:31061",
        ),
        (
            "policy Local brings the health check port",
            local,
            json!([{"ip": "10.1.2.3"}]),
            "udp/8677 udp/8678 lb=10.1.2.3 local health=345",
        ),
    ] {
        check(what, parse_balanced(fields, ingress), expected, &[]);
    }
}

/// Spec 13.9, the cases about families: values of both are kept for whoever serves one.
#[test]
fn both_families_are_kept_whatever_the_family_of_the_service() {
    let lists = |v4_range: &str, v6_range: &str| {
        json!({"externalIPs": ["8.8.8.8", "2001:db8:85a3::8a2e:370:7334"],
            "loadBalancerSourceRanges": [v4_range, v6_range]})
    };
    let ingress = json!([{"ip": "1.2.3.4"}, {"ip": "2001:DB8::1"}]);
    let expected = "tcp/80 ext=8.8.8.8 ext=2001:db8:85a3::8a2e:370:7334 lb=1.2.3.4 \
                    lb=2001:db8::1 from=0.0.0.0/1 from=2001:db8::/32";
    for (what, cluster_ip) in [("an IPv4 Service", "10.0.0.1"), ("an IPv6 Service", "fd00::1")] {
        let mut fields = lists("0.0.0.0/1", "2001:db8::/32");
        fields["clusterIP"] = json!(cluster_ip);
        check(what, parse_balanced(fields, ingress.clone()), expected, &[]);
    }
}

#[test]
fn the_external_policy_counts_where_the_type_has_clients_outside() {
    let bad = "spec.externalTrafficPolicy: \"local\" is not Cluster or Local; Cluster is used; \
               did you mean Local?";
    let external_ips = json!(["192.0.2.1"]);
    for (kind, policy, external_ips, expected, reasons) in [
        (json!("NodePort"), json!("Local"), json!([]), "local", vec![]),
        (json!("NodePort"), json!("Cluster"), json!([]), "", vec![]),
        (json!("NodePort"), json!(""), json!([]), "", vec![]),
        (json!("NodePort"), json!("local"), json!([]), "", vec![bad]),
        (json!("ClusterIP"), json!("Local"), json!([]), "", vec![]),
        (json!("ClusterIP"), json!("Local"), external_ips.clone(), "ext=192.0.2.1 local", vec![]),
        (json!(null), json!("Local"), external_ips.clone(), "ext=192.0.2.1 local", vec![]),
        (json!("Elsewhere"), json!("Local"), external_ips, "ext=192.0.2.1", vec![]),
        (
            json!("ClusterIP"),
            json!("Local"),
            json!(["web"]),
            "local",
            vec!["spec.externalIPs[0]: \"web\" is not an IP address"],
        ),
    ] {
        let fields = json!({"type": kind, "externalTrafficPolicy": policy,
            "externalIPs": external_ips});
        let expected = format!("tcp/80 {expected}");
        check(&fields.to_string(), parse_with(fields.clone()), expected.trim_end(), &reasons);
    }
}

#[test]
fn the_policies_do_not_touch_each_other() {
    for (internal, external) in [("Local", "Cluster"), ("Cluster", "Local")] {
        let service = service(parse_with(json!({"type": "NodePort",
            "internalTrafficPolicy": internal, "externalTrafficPolicy": external})));
        assert_eq!(service.internal_policy == TrafficPolicy::Local, internal == "Local");
        assert_eq!(service.external_policy == TrafficPolicy::Local, external == "Local");
    }
}

#[test]
fn external_ips_are_checked_one_by_one() {
    for (texts, expected, reasons) in [
        (json!(["192.0.2.2", "192.0.2.1"]), "ext=192.0.2.2 ext=192.0.2.1", vec![]),
        (json!(["192.0.2.1", "192.000.02.1", "::ffff:192.0.2.1"]), "ext=192.0.2.1", vec![]),
        (json!(["", " ", "192.0.2.1"]), "ext=192.0.2.1", vec![]),
        (
            json!(["127.0.0.1", "0.0.0.0", "::1", "224.0.0.1", "ff02::1", "x", "192.0.2.1"]),
            "ext=192.0.2.1",
            vec![
                "spec.externalIPs[0]: 127.0.0.1 is a loopback address",
                "spec.externalIPs[1]: 0.0.0.0 is the unspecified address",
                "spec.externalIPs[2]: ::1 is a loopback address",
                "spec.externalIPs[3]: 224.0.0.1 is a multicast or broadcast address",
                "spec.externalIPs[4]: ff02::1 is a multicast or broadcast address",
                "spec.externalIPs[5]: \"x\" is not an IP address",
            ],
        ),
    ] {
        let parsed = parse_with(json!({"externalIPs": texts}));
        check(&texts.to_string(), parsed, &format!("tcp/80 {expected}"), &reasons);
    }
}

#[test]
fn ingress_without_an_address_to_serve_is_skipped() {
    let web = json!({"ip": "192.0.2.2"});
    for (ingress, reasons) in [
        (json!([web, {"hostname": "lb.example"}, {"hostname": "x", "ip": ""}, {}]), vec![]),
        (json!([{"ip": "192.0.2.3", "ipMode": "Proxy"}, web]), vec![]),
        (json!([{"hostname": "lb.example", "ipMode": "Other"}, web]), vec![]),
        (json!([{"ip": "bad", "ipMode": "Proxy"}, web]), vec![]),
        (json!([web, {"ip": "192.0.2.002", "ipMode": "VIP", "ports": [{"port": 1}]}]), vec![]),
        (
            json!([{"ip": "192.0.2.3", "ipMode": "Other"}, {"ip": "bad"}, {"ip": "::1"}, web]),
            vec![
                "status.loadBalancer.ingress[0].ipMode: \"Other\" is not VIP or Proxy; the address is not served",
                "status.loadBalancer.ingress[1].ip: \"bad\" is not an IP address",
                "status.loadBalancer.ingress[2].ip: ::1 is a loopback address",
            ],
        ),
    ] {
        let parsed = parse_balanced(json!({}), ingress.clone());
        check(&ingress.to_string(), parsed, "tcp/80 lb=192.0.2.2", &reasons);
    }
}

#[test]
fn source_ranges_are_canonical_and_an_open_family_has_none() {
    let bad = "spec.loadBalancerSourceRanges[0]: \"10.0.0.0/33\" is not a CIDR; it is left out";
    let bad_v6 = "spec.loadBalancerSourceRanges[0]: \"fd00::/129\" is not a CIDR; it is left out";
    let open = |of| {
        format!(
            "spec.loadBalancerSourceRanges: without a usable {of}range, the {of}addresses of the \
             load balancer let everybody in; write one such as 10.0.0.0/8 or fd00::/8"
        )
    };
    let [of_any, of_v4, of_v6] = &["", "IPv4 ", "IPv6 "].map(open);
    for (texts, expected, reasons) in [
        (json!([" 10.1.2.0/28"]), "from=10.1.2.0/28", vec![]),
        (json!(["10.1.2.3/28\t"]), "from=10.1.2.0/28", vec![]),
        (json!(["10.1.2.3/28", "010.1.2.0/28"]), "from=10.1.2.0/28", vec![]),
        (json!(["10.1.2.3/32", "0.0.0.0/1"]), "from=10.1.2.3/32 from=0.0.0.0/1", vec![]),
        (json!(["10.0.0.0/8", "0.0.0.0/0"]), "", vec![]),
        (json!(["10.0.0.0/8", "1.2.3.4/0", "fd00::/8"]), "from=fd00::/8", vec![]),
        (json!(["10.0.0.0/8", "::/0", "fd00::/8"]), "from=10.0.0.0/8", vec![]),
        (json!(["::/0", "0.0.0.0/0"]), "", vec![]),
        (json!(["10.0.0.0/33", "10.0.0.0/8"]), "from=10.0.0.0/8", vec![bad]),
        (json!(["10.0.0.0/33"]), "", vec![bad, of_any]),
        (json!(["10.0.0.0/33", "fd00::/8"]), "from=fd00::/8", vec![bad, of_v4]),
        (json!(["fd00::/129", "10.0.0.0/8"]), "from=10.0.0.0/8", vec![bad_v6, of_v6]),
        (json!(["10.0.0.0/33", "0.0.0.0/0"]), "", vec![bad]),
    ] {
        let parsed = parse_with(json!({"loadBalancerSourceRanges": texts}));
        check(&texts.to_string(), parsed, format!("tcp/80 {expected}").trim_end(), &reasons);
    }
}

#[test]
fn an_address_of_a_family_without_ranges_is_told_to_be_open() {
    let open = "spec.loadBalancerSourceRanges: without a usable IPv4 range, the IPv4 addresses of \
                the load balancer let everybody in; write one such as 10.0.0.0/8 or fd00::/8";
    let ingress = json!([{"ip": "1.2.3.4"}]);
    let parsed = parse_balanced(json!({"loadBalancerSourceRanges": ["fd00::/8"]}), ingress.clone());
    check("of IPv6", parsed, "tcp/80 lb=1.2.3.4 from=fd00::/8", &[open]);
    let parsed = parse_balanced(json!({"loadBalancerSourceRanges": ["10.0.0.0/8"]}), ingress);
    check("of IPv4", parsed, "tcp/80 lb=1.2.3.4 from=10.0.0.0/8", &[]);
}

#[test]
fn only_local_load_balancers_have_a_health_check_port() {
    let large = "spec.healthCheckNodePort: 65536 is not between 1 and 65535";
    for (kind, policy, number, expected, reasons) in [
        ("LoadBalancer", "Local", json!(345), "local health=345", vec![]),
        ("LoadBalancer", "Local", json!(0), "local", vec![]),
        ("LoadBalancer", "Local", json!(null), "local", vec![]),
        ("LoadBalancer", "Local", json!(65_536), "local", vec![large]),
        ("LoadBalancer", "Cluster", json!(345), "", vec![]),
        ("LoadBalancer", "Cluster", json!(null), "", vec![]),
        ("NodePort", "Local", json!(345), "local", vec![]),
        ("ClusterIP", "Local", json!(345), "", vec![]),
    ] {
        let fields = json!({"type": kind, "externalTrafficPolicy": policy,
            "healthCheckNodePort": number});
        let expected = format!("tcp/80 {expected}");
        check(&fields.to_string(), parse_with(fields.clone()), expected.trim_end(), &reasons);
    }
}

#[test]
fn a_bad_node_port_costs_only_itself() {
    let port = |port: u16, node_port: Value| json!({"port": port, "nodePort": node_port});
    let udp = json!({"port": 80, "nodePort": 30_080, "protocol": "UDP"});
    for (ports, expected, reasons) in [
        (json!([port(80, json!(0))]), "tcp/80", vec![]),
        (json!([port(80, json!(30_080)), udp]), "tcp/80:30080 udp/80:30080", vec![]),
        (
            json!([port(80, json!(65_536)), port(81, json!(-1)), port(82, json!(1))]),
            "tcp/80 tcp/81 tcp/82:1",
            vec![
                "spec.ports[0].nodePort: 65536 is not between 1 and 65535",
                "spec.ports[1].nodePort: -1 is not between 1 and 65535",
            ],
        ),
        (
            json!([port(80, json!(30_080)), port(81, json!(30_080))]),
            "tcp/80:30080 tcp/81",
            vec!["spec.ports: node port 30080/tcp is there twice"],
        ),
        (
            // A port that is not kept claims no node port.
            json!([port(80, json!(1)), port(80, json!(2)), port(81, json!(2))]),
            "tcp/80:1 tcp/81:2",
            vec!["spec.ports: 80/tcp is there twice"],
        ),
    ] {
        check(&ports.to_string(), parse_with(json!({"ports": ports})), expected, &reasons);
    }
}

/// Spec 1.2: leftovers count whatever the type.
#[test]
fn the_type_gates_neither_addresses_nor_node_ports() {
    let fields = json!({"type": "ClusterIP", "externalIPs": ["192.0.2.1"],
        "ports": [{"port": 80, "nodePort": 30_080}]});
    let parsed = parse_balanced(fields, json!([{"ip": "192.0.2.2"}]));
    check("leftovers", parsed, "tcp/80:30080 ext=192.0.2.1 lb=192.0.2.2", &[]);
}
