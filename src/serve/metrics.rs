//! Answers of the metrics address (spec 10.2).

use hyper::StatusCode;
use serde_json::{Value, json};

use super::Answer;
use crate::telemetry::metrics::{self, Metrics};

/// Key of the configuration, by which other components have theirs.
const GROUP: &str = "kubeproxy.config.k8s.io";

/// Answers a path of the metrics address; `configuration` is kube-proxy's file of what is in force.
pub fn answer(path: &str, metrics: &Metrics, configuration: &Value) -> Answer {
    match path {
        "/configz" => Answer {
            content_type: "application/json",
            ..Answer::text(&json!({ GROUP: configuration }).to_string())
        },
        "/metrics" => Answer {
            status: StatusCode::OK,
            content_type: metrics::CONTENT_TYPE,
            endpoint_weight: None,
            body: metrics.text(),
        },
        // Parity: a ping, whatever the state of the proxy.
        "/healthz" | "/healthz/ping" => Answer::text("ok"),
        "/proxyMode" => Answer::text("ipvs"),
        _ => Answer::not_found(),
    }
}
