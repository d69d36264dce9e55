//! Objects that do not read, and what null and absence stand for.

use super::*;
use crate::testing::objects::reasons;

#[test]
fn an_object_that_does_not_read_is_rejected_by_name() {
    let json = r#"{"metadata":{"namespace":"a","name":"b","resourceVersion":"7"},
        "spec":{"ports":[{"port":"http"}]}}"#;
    let read = read(Kind::Service, json).unwrap();
    assert_eq!((read.name, read.version.as_str()), (ObjectName::new("a", "b"), "7"));
    assert_eq!(read.parsed.object, None);
    assert!(reasons(&read.parsed)[0].starts_with("does not read as a Service: "));
}

#[test]
fn an_object_without_a_name_is_an_error() {
    for json in ["{}", "[]", "null", r#"{"metadata":null}"#, r#"{"metadata":{"name":""}}"#] {
        for kind in Kind::ALL {
            assert!(read(kind, json).is_err(), "{kind} {json}");
        }
    }
}

#[test]
fn namespaces_default_where_the_kind_has_them() {
    let json = r#"{"metadata":{"name":"x","namespace":null}}"#;
    assert_eq!(read(Kind::Endpoints, json).unwrap().name.to_string(), "default/x");
    assert_eq!(read(Kind::Node, json).unwrap().name.to_string(), "x");
}

#[test]
fn null_stands_for_absent_everywhere() {
    let nulls = [
        (Kind::Service, r#"{"metadata":{"name":"x","labels":null},"spec":null}"#),
        (
            Kind::Service,
            r#"{"metadata":{"name":"x"},"spec":{"clusterIP":null,"clusterIPs":null,
                "ipFamilies":null,"ports":null,"type":null,"sessionAffinityConfig":null}}"#,
        ),
        (
            Kind::Service,
            r#"{"metadata":{"name":"x"},"spec":{"clusterIP":"10.0.0.1",
                "ports":[{"port":80,"nodePort":null}],"externalIPs":null,
                "loadBalancerSourceRanges":null,"externalTrafficPolicy":null,
                "healthCheckNodePort":null},"status":null}"#,
        ),
        (
            Kind::Service,
            r#"{"metadata":{"name":"x"},"spec":{"clusterIP":"10.0.0.1","ports":[{"port":80}]},
                "status":{"loadBalancer":{"ingress":[{"ip":null,"ipMode":null}]}}}"#,
        ),
        (Kind::Service, r#"{"metadata":{"name":"x"},"status":{"loadBalancer":null}}"#),
        (Kind::Service, r#"{"metadata":{"name":"x"},"status":{"loadBalancer":{"ingress":null}}}"#),
        (
            Kind::EndpointSlice,
            r#"{"metadata":{"name":"x","labels":{"kubernetes.io/service-name":"x"}},
                "addressType":"IPv4","ports":null,"endpoints":null}"#,
        ),
        (
            Kind::EndpointSlice,
            r#"{"metadata":{"name":"x","labels":{"kubernetes.io/service-name":"x"}},
                "addressType":"IPv4","endpoints":[{"addresses":["10.0.0.1"],
                "conditions":null,"hints":null,"nodeName":null}]}"#,
        ),
        (Kind::Endpoints, r#"{"metadata":{"name":"x"},"subsets":null}"#),
        (
            Kind::Endpoints,
            r#"{"metadata":{"name":"x"},"subsets":[{"addresses":null,
                "notReadyAddresses":null,"ports":null}]}"#,
        ),
        (Kind::Node, r#"{"metadata":{"name":"x"},"spec":null,"status":null}"#),
        (Kind::ServiceCidr, r#"{"metadata":{"name":"x"},"spec":{"cidrs":null}}"#),
    ];
    for (kind, json) in nulls {
        assert_eq!(read(kind, json).unwrap().parsed.reasons, [], "{json}");
    }
}
