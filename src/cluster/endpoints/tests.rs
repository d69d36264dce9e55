//! Cases of endpoint parsing and of the union of slices.

use std::time::Duration;

use serde_json::{Value, json};

use super::*;
use crate::cluster::{Hints, Kind};
use crate::testing::objects::reasons;

fn slice(fields: Value) -> Parsed {
    let mut object = json!({
        "metadata": {"name": "web-1", "labels": {"kubernetes.io/service-name": "web"}},
        "addressType": "IPv4",
        "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
        "endpoints": [{"addresses": ["10.244.1.2"]}],
    });
    for (name, value) in fields.as_object().unwrap() {
        object[name] = value.clone();
    }
    objects::read(Kind::EndpointSlice, &object.to_string()).unwrap().parsed
}

fn endpoints(subsets: Value) -> Parsed {
    let object = json!({"metadata": {"name": "web", "namespace": "shop"}, "subsets": subsets});
    objects::read(Kind::Endpoints, &object.to_string()).unwrap().parsed
}

fn usable(parsed: &Parsed) -> &EndpointSlice {
    match &parsed.object {
        Some(Object::EndpointSlice(slice)) => slice,
        other => panic!("not a slice: {other:?}, {:?}", parsed.reasons),
    }
}

/// One line per slice: what it serves and where.
fn lines(slices: &[EndpointSlice]) -> Vec<String> {
    slices
        .iter()
        .map(|slice| {
            let port =
                |port: &EndpointPort| format!("{}:{}/{}", port.name, port.port, port.protocol);
            let ports: Vec<_> = slice.ports.iter().map(port).collect();
            let mark = |endpoint: &Endpoint| {
                format!("{}{}", endpoint.address, if endpoint.ready { "" } else { "!" })
            };
            let endpoints: Vec<_> = slice.endpoints.iter().map(mark).collect();
            let (service, family) = (&slice.service, slice.family);
            format!("{service} {family} [{}] [{}]", ports.join(" "), endpoints.join(" "))
        })
        .collect()
}

#[test]
fn a_complete_endpoint_reads_every_field() {
    let parsed = slice(json!({"endpoints": [{
        "addresses": ["010.244.1.2", "10.244.9.9"],
        "conditions": {"ready": false, "serving": true, "terminating": true},
        "nodeName": "node1",
        "zone": "ignored",
        "hints": {"forZones": [{"name": "a"}, {"name": "b"}], "forNodes": [{"name": "n"}]},
    }]}));
    assert_eq!(parsed.reasons, []);
    let expected = Endpoint {
        address: "10.244.1.2".parse().unwrap(),
        ready: false,
        serving: true,
        terminating: true,
        node: Some("node1".into()),
        hints: Some(Box::new(Hints {
            zones: ["a".into(), "b".into()].into(),
            nodes: ["n".into()].into(),
        })),
    };
    assert_eq!(usable(&parsed).endpoints, [expected]);
}

#[test]
fn absent_conditions_mean_ready_and_serving() {
    for conditions in [json!(null), json!({}), json!({"ready": null, "serving": null})] {
        let parsed =
            slice(json!({"endpoints": [{"addresses": ["10.0.0.1"], "conditions": conditions}]}));
        let endpoint = &usable(&parsed).endpoints[0];
        assert!(endpoint.ready && endpoint.serving && !endpoint.terminating, "{conditions}");
    }
    // Not "the same as ready": serving is true on its own.
    let not_ready = json!({"addresses": ["10.0.0.1"], "conditions": {"ready": false}});
    let parsed = slice(json!({"endpoints": [not_ready]}));
    assert!(usable(&parsed).endpoints[0].serving);
}

#[test]
fn slices_that_mean_nothing_here_are_ignored_without_a_reason() {
    let labels = |labels: Value| json!({"metadata": {"name": "web-1", "labels": labels}});
    for fields in [
        labels(json!({})),
        labels(json!({"kubernetes.io/service-name": ""})),
        labels(json!({"kubernetes.io/service-name": "web", "service.kubernetes.io/headless": ""})),
    ] {
        assert_eq!(slice(fields.clone()), Parsed::default(), "{fields}");
    }
}

#[test]
fn slices_of_names_are_left_alone() {
    assert_eq!(slice(json!({"addressType": "FQDN"})), Parsed::default());
}

#[test]
fn other_address_types_are_rejected_whole() {
    for (address_type, reason) in [
        (json!("DNS"), "addressType: \"DNS\" is not IPv4 or IPv6; the slice is not served"),
        (json!(null), "addressType: \"\" is not IPv4 or IPv6; the slice is not served"),
        (
            json!("ipv6"),
            "addressType: \"ipv6\" is not IPv4 or IPv6; the slice is not served; did you mean IPv6?",
        ),
    ] {
        let parsed = slice(json!({"addressType": address_type}));
        assert_eq!((&parsed.object, reasons(&parsed)), (&None, vec![reason]));
    }
}

#[test]
fn one_bad_part_costs_only_itself() {
    let good_port = json!({"name": "http", "port": 8080});
    let good = json!({"addresses": ["10.244.1.2"]});
    for (fields, reason) in [
        (
            json!({"ports": [good_port, {"name": "b", "port": null}]}),
            "ports[1].port: a port without a number is not supported",
        ),
        (
            json!({"ports": [good_port, {"name": "b", "port": 70000}]}),
            "ports[1].port: 70000 is not between 1 and 65535",
        ),
        (
            json!({"ports": [good_port, {"name": "b", "port": 1, "protocol": "QUIC"}]}),
            "ports[1].protocol: \"QUIC\" is not TCP, UDP or SCTP; the port is not served",
        ),
        (json!({"endpoints": [{"addresses": []}, good]}), "endpoints[0].addresses: empty"),
        (
            json!({"endpoints": [good, {"addresses": ["pod"]}]}),
            "endpoints[1].addresses[0]: \"pod\" is not an IP address",
        ),
        (
            json!({"endpoints": [good, {"addresses": ["fd00::1"]}]}),
            "endpoints[1].addresses[0]: fd00::1 is not of the slice's addressType IPv4",
        ),
    ] {
        let parsed = slice(fields.clone());
        assert_eq!(reasons(&parsed), [reason], "{fields}");
        let expected = "default/web IPv4 [http:8080/tcp] [10.244.1.2]";
        assert_eq!(lines(&[usable(&parsed).clone()]), [expected], "{fields}");
    }
}

#[test]
fn a_missing_port_name_is_the_empty_one() {
    let parsed = slice(json!({"ports": [{"port": 53, "protocol": "UDP"}]}));
    assert_eq!(lines(&[usable(&parsed).clone()]), ["default/web IPv4 [:53/udp] [10.244.1.2]"]);
}

/// W-50: an API server sets it, a manifest need not.
#[test]
fn a_missing_protocol_is_tcp() {
    for port in [json!({"port": 53}), json!({"port": 53, "protocol": null})] {
        let parsed = slice(json!({"ports": [port]}));
        assert_eq!(parsed.reasons, []);
        assert_eq!(lines(&[usable(&parsed).clone()]), ["default/web IPv4 [:53/tcp] [10.244.1.2]"]);
    }
}

#[test]
fn endpoints_become_a_slice_per_subset_and_family() {
    let parsed = endpoints(json!([
        {
            "addresses": [{"ip": "10.0.0.1", "nodeName": "n"}, {"ip": "fd00::1"}],
            "notReadyAddresses": [{"ip": "10.0.0.2"}],
            "ports": [{"name": "http", "port": 80}, {"name": "dns", "port": 53, "protocol": "UDP"}],
        },
        {"addresses": [{"ip": "10.0.0.3"}], "ports": [{"name": "http", "port": 81}]},
        {"addresses": [{"ip": "fe80::1%eth0"}], "ports": [{"port": 0}]},
    ]));
    let Some(Object::Endpoints(slices)) = &parsed.object else { panic!("{parsed:?}") };
    assert_eq!(
        lines(slices),
        [
            "shop/web IPv4 [http:80/tcp dns:53/udp] [10.0.0.1 10.0.0.2!]",
            "shop/web IPv6 [http:80/tcp dns:53/udp] [fd00::1]",
            "shop/web IPv4 [http:81/tcp] [10.0.0.3]",
        ]
    );
    assert_eq!(slices[0].endpoints[0].node.as_deref(), Some("n"));
    assert_eq!(
        reasons(&parsed),
        [
            "subsets[2].ports[0].port: 0 is not between 1 and 65535",
            "subsets[2].addresses[0].ip: \"fe80::1%eth0\" is not an IP address",
        ]
    );
}

#[test]
fn an_endpoint_that_does_not_read_costs_only_itself() {
    let good = json!({"addresses": ["10.244.1.2"]});
    for (bad, reason) in [
        (
            json!({"addresses": ["10.244.1.3"], "conditions": {"ready": "no"}}),
            "endpoints[1].conditions.ready: the text \"no\" in place of true or false",
        ),
        (
            json!({"addresses": "10.244.1.3"}),
            "endpoints[1].addresses: the text \"10.244.1.3\" in place of a list",
        ),
        (json!("10.244.1.3"), "endpoints[1]: the text \"10.244.1.3\" in place of fields"),
    ] {
        let bad_address = json!({"addresses": ["pod"]});
        let parsed = slice(json!({"endpoints": [good, bad, bad_address]}));
        let address = "endpoints[2].addresses[0]: \"pod\" is not an IP address";
        let told = format!("{reason}; the endpoint is not served");
        assert_eq!(reasons(&parsed), [told.as_str(), address]);
        let expected = "default/web IPv4 [http:8080/tcp] [10.244.1.2]";
        assert_eq!(lines(&[usable(&parsed).clone()]), [expected], "{bad}");
    }
    let parsed = slice(json!({"endpoints": [{"nodeName": 7}], "ports": 80}));
    assert_eq!(parsed.object, None, "something else is wrong with it, too");
    assert_eq!(reasons(&parsed).len(), 1);
}

#[test]
fn a_port_that_does_not_read_costs_only_itself() {
    let good = json!({"name": "http", "port": 8080});
    for (bad, reason) in [
        (json!({"port": "80"}), "[1].port: the text \"80\" in place of a whole number"),
        (
            json!({"name": true, "port": 80}),
            "[1].name: the truth value true in place of text; put it in quotes",
        ),
        (json!(80), "[1]: the number 80 in place of fields"),
    ] {
        let ports = json!([good, bad, {"port": 0}]);
        let told = |path: &str| {
            let number = format!("{path}[2].port: 0 is not between 1 and 65535");
            [format!("{path}{reason}; the port is not served"), number]
        };
        let parsed = slice(json!({ "ports": ports }));
        let expected = "default/web IPv4 [http:8080/tcp] [10.244.1.2]";
        assert_eq!(lines(&[usable(&parsed).clone()]), [expected], "{bad}");
        assert_eq!(reasons(&parsed), told("ports"));
        let parsed = endpoints(json!([{"addresses": [{"ip": "10.0.0.1"}], "ports": ports}]));
        let Some(Object::Endpoints(slices)) = &parsed.object else { panic!("{parsed:?}") };
        assert_eq!(lines(slices), ["shop/web IPv4 [http:8080/tcp] [10.0.0.1]"], "{bad}");
        assert_eq!(reasons(&parsed), told("subsets[0].ports"));
    }
    let parsed = slice(json!({"endpoints": {}, "ports": [{"port": "80"}]}));
    assert_eq!(parsed.object, None, "something else is wrong with it, too");
    assert_eq!(reasons(&parsed).len(), 1);
}

#[test]
fn an_address_that_does_not_read_costs_only_itself() {
    for (bad, reason) in [
        (json!({"ip": 7}), "[1].ip: the number 7 in place of text"),
        (
            json!({"ip": "10.0.0.3", "nodeName": true}),
            "[1].nodeName: the truth value true in place of text; put it in quotes",
        ),
        (json!("10.0.0.3"), "[1]: the text \"10.0.0.3\" in place of fields"),
    ] {
        for (list, mark) in [("addresses", ""), ("notReadyAddresses", "!")] {
            let good = |ip: &str| json!({"ip": ip});
            let subset =
                json!({"ports": [{"port": 80}], list: [good("10.0.0.1"), bad, good("pod")]});
            let other = json!({"ports": [{"port": 81}], "addresses": [good("10.0.0.2")]});
            let parsed = endpoints(json!([other, subset]));
            let Some(Object::Endpoints(slices)) = &parsed.object else { panic!("{parsed:?}") };
            let expected = [
                "shop/web IPv4 [:81/tcp] [10.0.0.2]".to_owned(),
                format!("shop/web IPv4 [:80/tcp] [10.0.0.1{mark}]"),
            ];
            assert_eq!(lines(slices), expected, "{bad}");
            let told = [
                format!("subsets[1].{list}{reason}; the endpoint is not served"),
                format!("subsets[1].{list}[2].ip: \"pod\" is not an IP address"),
            ];
            assert_eq!(reasons(&parsed), told);
        }
    }
    let parsed = endpoints(json!([{"addresses": [{"ip": 7}], "ports": 80}]));
    assert_eq!(parsed.object, None, "something else is wrong with it, too");
    assert_eq!(reasons(&parsed).len(), 1);
}

#[test]
fn endpoints_of_headless_services_are_ignored() {
    let json = r#"{"metadata":{"name":"x","labels":{"service.kubernetes.io/headless":""}},
        "subsets":[{"addresses":[{"ip":"10.0.0.1"}],"ports":[{"port":1}]}]}"#;
    assert_eq!(objects::read(Kind::Endpoints, json).unwrap().parsed, Parsed::default());
}

/// A slice of port `http` on the number given; `-` before an address marks it terminating.
fn http_slice(port: u16, addresses: &[&str]) -> EndpointSlice {
    let endpoint = |text: &&str| Endpoint {
        address: text.trim_start_matches('-').parse().unwrap(),
        ready: !text.starts_with('-'),
        serving: true,
        terminating: text.starts_with('-'),
        node: None,
        hints: None,
    };
    EndpointSlice {
        service: ObjectName::new("default", "web"),
        family: Family::V4,
        ports: vec![EndpointPort { name: "http".into(), protocol: Protocol::Tcp, port }],
        endpoints: addresses.iter().map(endpoint).collect(),
    }
}

fn merged_text(slices: &[EndpointSlice]) -> String {
    let by_port = merged(slices, Family::V4);
    let http = by_port.get(&("http".into(), Protocol::Tcp)).map(Vec::as_slice).unwrap_or_default();
    let mark = |one: &PortEndpoint<'_>| {
        let mark = if one.endpoint.terminating { "-" } else { "" };
        format!("{mark}{}:{}", one.endpoint.address, one.port)
    };
    http.iter().map(mark).collect::<Vec<_>>().join(" ")
}

#[test]
fn slices_are_merged_sorted_and_without_duplicates() {
    for (name, slices, expected) in [
        ("nothing", vec![], ""),
        ("no endpoints", vec![http_slice(80, &[])], ""),
        ("sorted", vec![http_slice(80, &["10.0.0.10", "10.0.0.9"])], "10.0.0.9:80 10.0.0.10:80"),
        (
            "several slices, other numbers of one named port",
            vec![http_slice(81, &["10.0.0.1"]), http_slice(80, &["10.0.0.1", "10.0.0.2"])],
            "10.0.0.1:80 10.0.0.1:81 10.0.0.2:80",
        ),
        ("twice in a slice", vec![http_slice(80, &["10.0.0.1", "10.0.0.1"])], "10.0.0.1:80"),
        (
            "a terminating duplicate does not replace",
            vec![http_slice(80, &["10.0.0.1"]), http_slice(80, &["-10.0.0.1"])],
            "10.0.0.1:80",
        ),
        (
            "one that does not terminate replaces",
            vec![http_slice(80, &["-10.0.0.1"]), http_slice(80, &["10.0.0.1"])],
            "10.0.0.1:80",
        ),
        (
            "the first of terminating ones",
            vec![http_slice(80, &["-10.0.0.1"]), http_slice(80, &["-10.0.0.1"])],
            "-10.0.0.1:80",
        ),
    ] {
        assert_eq!(merged_text(&slices), expected, "{name}");
    }
}

#[test]
fn the_other_family_is_left_out() {
    let slices = [http_slice(80, &["10.0.0.1"])];
    assert_eq!(merged(&slices, Family::V6), ByPort::new());
}

#[test]
fn the_time_of_the_change_behind_it_is_read() {
    let at = |time: Value| {
        let key = "endpoints.kubernetes.io/last-change-trigger-time";
        let labels = json!({"kubernetes.io/service-name": "web"});
        let metadata = json!({"name": "web-1", "labels": labels, "annotations": {key: time}});
        let (mine, theirs) = (metadata.clone(), metadata);
        let object = json!({"metadata": theirs, "subsets": []});
        let endpoints = objects::read(Kind::Endpoints, &object.to_string()).unwrap().parsed;
        let slice = slice(json!({"metadata": mine}));
        assert_eq!(slice.triggered, endpoints.triggered);
        slice.triggered.map(|time| *time)
    };
    let expected = SystemTime::UNIX_EPOCH + Duration::new(1_793_872_800, 5_000_001);
    assert_eq!(at(json!("2026-11-05T12:00:00.005000001+02:00")), Some(expected));
    for time in [json!(null), json!(""), json!("yesterday")] {
        assert_eq!(at(time), None);
    }
}
