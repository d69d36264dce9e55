//! The role of a rollout grants every request that is made of the API server.

use std::collections::BTreeSet;

use kube_ipvs_proxy::cluster::{Kind, ObjectName};
use kube_ipvs_proxy::telemetry::events::{Event, Reason, Regarding};
use kube_ipvs_proxy::watch::Source;
use kube_ipvs_proxy::watch::api::{ApiSettings, ApiSource};
use libtest_mimic::Trial;
use serde_json::Value;

use crate::events::{Node, event};
use crate::follower::Follower;
use crate::server::{Faults, Server};
use crate::{api, trial};

/// The tests of this module.
pub fn trials() -> Vec<Trial> {
    vec![
        trial("role::every_request_is_granted", every_request_is_granted),
        trial("role::every_event_is_granted", every_event_is_granted),
    ]
}

const ROLE: &str = include_str!("../../deploy/kubernetes/base/role.yaml");

/// Whom the API server tells its API groups, without any role of ours: everybody it knows.
const DISCOVERY: &str = "/apis/discovery.k8s.io/v1";

async fn every_request_is_granted() {
    let granted = granted();
    for lacks_slices in [false, true] {
        let server = Server::start(Faults { lacks_slices, ..Faults::default() }).await;
        let settings = ApiSettings {
            master: Some(server.url()),
            node_name: "node1".to_owned(),
            timing: api::quick(),
            ..ApiSettings::default()
        };
        let source = ApiSource::connect(settings).await.unwrap();
        let mut follower = Follower::start(Source::Api(Box::new(source)));
        follower.until("every kind", |store| store.is_complete()).await;
        follower.stop().await;
        let requests = server.requests();
        assert!(requests.len() >= 4, "{requests:?}");
        for request in requests {
            let is_granted = request == DISCOVERY || granted.contains(&asked(&request));
            assert!(is_granted, "{request}, of {granted:?}");
        }
    }
}

async fn every_event_is_granted() {
    let granted = granted();
    let server = Server::start(Faults::default()).await;
    let node = Node::start(&server, "node1", api::quick()).await;
    let object = |kind: Kind| {
        let namespace = if kind.is_namespaced() { "default" } else { "" };
        Regarding::Object(kind, ObjectName::new(namespace, "web"))
    };
    let regarding = Kind::ALL.map(object).into_iter().chain([Regarding::ThisNode]);
    let events: Vec<Event> =
        regarding.map(|about| event(Reason::DriftRepaired, about, "")).collect();
    // Twice, as what is there already is changed.
    node.write(&[events.clone(), events].concat()).await;
    node.end().await;
    let requests = server.requests();
    assert!(requests.iter().any(|request| request.starts_with("PATCH ")), "{requests:?}");
    for request in requests {
        assert!(granted.contains(&asked(&request)), "{request}, of {granted:?}");
    }
}

/// The verb and the collection that a request needs.
fn asked(request: &str) -> (String, String) {
    let (method, target) = request.split_once(' ').unwrap_or(("GET", request));
    let path = target.split('?').next().unwrap();
    let path = match path.split_once("/namespaces/") {
        Some((group, rest)) => format!("{group}/{}", rest.split('/').nth(1).unwrap()),
        None => path.to_owned(),
    };
    let verb = match method {
        "POST" => "create",
        "PATCH" => "patch",
        _ if target.contains("watch=true") => "watch",
        _ => "list",
    };
    (verb.to_owned(), path)
}

/// Verbs that are granted, each with the path of a collection.
fn granted() -> BTreeSet<(String, String)> {
    let role: Value = serde_saphyr::from_str(ROLE.split("\n---\n").next().unwrap()).unwrap();
    let rules = role["rules"].as_array().unwrap();
    let mut granted = BTreeSet::new();
    let texts = |rule: &Value, field: &str| -> Vec<String> {
        let values = rule[field].as_array().unwrap().iter();
        values.map(|value| value.as_str().unwrap().to_owned()).collect()
    };
    for rule in rules {
        let group = match rule["apiGroups"][0].as_str().unwrap() {
            "" => "/api/v1".to_owned(),
            group => format!("/apis/{group}/v1"),
        };
        for resource in texts(rule, "resources") {
            for verb in texts(rule, "verbs") {
                granted.insert((verb, format!("{group}/{resource}")));
            }
        }
    }
    granted
}
