//! What clients write to the small API server: Events, and nothing else.

use std::collections::BTreeMap;
use std::io;

use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::net::TcpStream;

/// A request.
pub struct Request {
    pub method: String,
    pub target: String,
    /// Null without a body.
    pub body: Value,
}

/// What was written.
#[derive(Default)]
pub struct Written {
    pub events: BTreeMap<String, Value>,
}

impl Written {
    /// Does what a request asks for; the status of the answer.
    pub fn take(&mut self, method: &str, target: &str, body: &Value) -> u16 {
        let Some(place) = target.strip_prefix("/apis/events.k8s.io/v1/namespaces/") else {
            return 404;
        };
        let place: Vec<&str> = place.split('/').collect();
        match (method, &place[..]) {
            ("POST", [namespace, "events"]) => self.create(namespace, body),
            ("PATCH", [_, "events", name]) => self.merge(name, body),
            _ => 405,
        }
    }

    /// As strict as a real server: it refuses what lacks a field that the API requires.
    fn create(&mut self, namespace: &str, event: &Value) -> u16 {
        let required =
            ["eventTime", "reportingController", "reportingInstance", "action", "reason"];
        let has_all =
            required.iter().all(|field| event[field].as_str().is_some_and(|s| !s.is_empty()));
        let regarding = event["regarding"]["namespace"].as_str().unwrap_or("default");
        if !has_all || regarding != namespace || event["metadata"]["namespace"] != namespace {
            return 422;
        }
        let name = event["metadata"]["name"].as_str().unwrap().to_owned();
        if self.events.contains_key(&name) {
            return 409;
        }
        self.events.insert(name, event.clone());
        201
    }

    /// Nothing but the series of an Event may change.
    fn merge(&mut self, name: &str, fields: &Value) -> u16 {
        let Some(event) = self.events.get_mut(name) else { return 404 };
        let series = &fields["series"];
        let is_right =
            series["count"].as_u64() >= Some(2) && series["lastObservedTime"].is_string();
        if !is_right || fields.as_object().unwrap().len() > 1 {
            return 422;
        }
        event["series"] = series.clone();
        200
    }
}

/// Reads a request; nothing at the end of the connection.
pub async fn read_request(socket: &mut BufReader<TcpStream>) -> io::Result<Option<Request>> {
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        if socket.read_line(&mut line).await? == 0 {
            return Ok(None);
        }
        match line.trim_end() {
            "" => break,
            line => lines.push(line.to_owned()),
        }
    }
    let mut words = lines[0].split(' ').map(str::to_owned);
    let (method, target) = (words.next().unwrap(), words.next().unwrap());
    let headers = lines.iter().filter_map(|line| line.split_once(": "));
    let mut length = headers.filter(|(name, _)| name.eq_ignore_ascii_case("content-length"));
    let length = length.next_back().map_or(0, |(_, value)| value.parse().unwrap());
    let mut body = vec![0; length];
    socket.read_exact(&mut body).await?;
    let body = serde_json::from_slice(&body).unwrap_or_default();
    Ok(Some(Request { method, target, body }))
}
