//! Answers of the metrics address (spec 10.2).

use hyper::StatusCode;

use super::Answer;
use crate::telemetry::metrics::{self, Metrics};

/// Answers a path of the metrics address.
pub fn answer(path: &str, metrics: &Metrics) -> Answer {
    match path {
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
