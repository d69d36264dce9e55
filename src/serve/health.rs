//! Answers of the health address (spec 10.1).
//!
//! | path | 200 while |
//! |---|---|
//! | `/livez` | the loop runs, and no sync takes too long to end, whatever it comes to |
//! | `/readyz` | the same, once the foundation was in place: settings, sets, rules, the device |
//! | `/healthz` | the same, the foundation still is, and the node is not leaving |
//!
//! A restart helps against a loop that hangs and against nothing else, so only that is `/livez`;
//! load balancers ask `/healthz`. Rows of Services that fail turn none of them bad.
//!
//! A bad answer says why in a line, and the log all of it; each answer names files that are refused,
//! whole or in part, but not what is wrong with them, as anybody on the network may ask. They turn
//! nothing bad, either.
//!
//! Parity: kube-proxy is healthy before its first sync, and a sync that fails with nothing queued
//! never makes it unhealthy; ours is not ready before it can serve, and not healthy when it no
//! longer can.

use std::time::{Duration, Instant, SystemTime};

use hyper::StatusCode;
use serde::Serialize;
use tokio::sync::watch;

use super::Answer;
use crate::reconcile::report::Failed;
use crate::reconcile::status::Status;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::refused::Refused;

/// What the health address answers from.
#[derive(Debug, Clone)]
pub struct Health {
    status: watch::Receiver<Status>,
    metrics: Metrics,
    refused: Refused,
    longest_wait: Duration,
}

/// What the paths turn on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct State {
    /// The loop runs, and its syncs end.
    pub is_alive: bool,
    /// It is alive, and the foundation was in place once.
    pub is_ready: bool,
    /// It is ready, and the foundation still is in place.
    pub is_healthy: bool,
}

/// The body; the order of its fields is that of kube-proxy, and the last three are ours.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Body {
    last_updated: String,
    current_time: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    node_eligible: Option<bool>,
    healthy: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    refused_files: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    partly_refused_files: Vec<String>,
}

impl Health {
    /// Health as published; unhealthy once something is wrong for two sync periods.
    pub fn new(
        status: watch::Receiver<Status>,
        metrics: Metrics,
        refused: Refused,
        sync_period: Duration,
    ) -> Self {
        Health { status, metrics, refused, longest_wait: sync_period * 2 }
    }

    /// How things are now.
    pub fn state(&self) -> State {
        let now = Instant::now();
        let status = self.status.borrow();
        // The sender is gone if the loop has ended, in whatever way.
        let is_alive = self.status.has_changed().is_ok() && status.is_alive(now, self.longest_wait);
        let is_ready = is_alive && status.is_ready();
        State {
            is_alive,
            is_ready,
            is_healthy: is_ready && status.is_founded(now, self.longest_wait),
        }
    }

    /// Answers a path of the health address.
    pub fn answer(&self, path: &str) -> Answer {
        let State { is_alive, is_ready, is_healthy } = self.state();
        let (is_eligible, last_success) = {
            let status = self.status.borrow();
            (!status.node_is_leaving, status.last_success.map(|(_, time)| time))
        };
        match path {
            "/healthz" => {
                let is_ok = is_healthy && is_eligible;
                let answer = self.respond(is_ok, is_healthy, Some(is_eligible), last_success);
                self.metrics.answered_healthz(answer.status.as_u16());
                answer
            }
            "/livez" => {
                let answer = self.respond(is_alive, is_alive, None, last_success);
                self.metrics.answered_livez(answer.status.as_u16());
                answer
            }
            "/readyz" => self.respond(is_ready, is_ready, None, last_success),
            _ => Answer::not_found(),
        }
    }

    /// How things are, in one line.
    pub fn words(&self) -> String {
        let mut text = words(&self.state(), &self.status.borrow());
        for more in [self.refused.first_unreadable(), self.refused.first()].into_iter().flatten() {
            text += &format!("; {more}");
        }
        text
    }

    fn respond(
        &self,
        is_ok: bool,
        healthy: bool,
        node_eligible: Option<bool>,
        last_success: Option<SystemTime>,
    ) -> Answer {
        let now = SystemTime::now();
        let last_updated = if is_ok { Some(now) } else { last_success };
        let (refused_files, partly_refused_files) = self.refused.paths();
        let body = Body {
            last_updated: last_updated.map_or_else(never, in_words),
            current_time: in_words(now),
            node_eligible,
            healthy,
            reason: (!is_ok).then(|| words(&self.state(), &self.status.borrow())),
            refused_files,
            partly_refused_files,
        };
        Answer {
            status: if is_ok { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE },
            content_type: "application/json",
            endpoint_weight: None,
            body: serde_json::to_string(&body).expect("texts and booleans always serialise"),
        }
    }
}

/// How things are, in one line.
pub(super) fn words(state: &State, status: &Status) -> String {
    let failure =
        status.failed.first().map_or_else(|| "not all is in place".to_string(), Failed::in_brief);
    match (state, status.failed.len()) {
        (State { is_alive: false, .. }, _) => "the loop hangs or has ended".to_string(),
        (State { is_ready: false, .. }, 0) if status.unfounded_since.is_none() => {
            "waiting for the first complete lists and sync".to_string()
        }
        (State { is_ready: false, .. }, _) => format!("not ready, tried again: {failure}"),
        (State { is_healthy: false, .. }, _) => format!("not healthy, tried again: {failure}"),
        (_, rows) => {
            let leaving = if status.node_is_leaving { ", the node is leaving" } else { "" };
            let failing = match rows {
                0 => String::new(),
                1 => format!(", but one row fails: {failure}"),
                _ => format!(", but {rows} rows fail, the first: {failure}"),
            };
            format!("serving{leaving}{failing}")
        }
    }
}

/// The time as RFC 3339, to the nanosecond.
fn in_words(time: SystemTime) -> String {
    jiff::Timestamp::try_from(time).map_or_else(|_| never(), |time| time.to_string())
}

/// The zero time of Go.
fn never() -> String {
    "0001-01-01T00:00:00Z".to_string()
}
