//! The role of a rollout grants every request that the API source makes.

use std::collections::BTreeSet;

use kube_ipvs_proxy::watch::Source;
use kube_ipvs_proxy::watch::api::{ApiSettings, ApiSource};
use libtest_mimic::Trial;
use serde_json::Value;

use crate::follower::Follower;
use crate::server::{Faults, Server};
use crate::{api, trial};

/// The tests of this module.
pub fn trials() -> Vec<Trial> {
    vec![trial("role::every_request_is_granted", every_request_is_granted)]
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
            let path = request.split('?').next().unwrap();
            assert!(path == DISCOVERY || granted.contains(path), "{request}, of {granted:?}");
        }
    }
}

/// Paths of the collections that may be listed and watched.
fn granted() -> BTreeSet<String> {
    let role: Value = serde_saphyr::from_str(ROLE.split("\n---\n").next().unwrap()).unwrap();
    let rules = role["rules"].as_array().unwrap();
    let mut granted = BTreeSet::new();
    for rule in rules.iter().filter(|rule| rule["verbs"] == serde_json::json!(["list", "watch"])) {
        let group = match rule["apiGroups"][0].as_str().unwrap() {
            "" => "/api/v1".to_owned(),
            group => format!("/apis/{group}/v1"),
        };
        for resource in rule["resources"].as_array().unwrap() {
            granted.insert(format!("{group}/{}", resource.as_str().unwrap()));
        }
    }
    granted
}
