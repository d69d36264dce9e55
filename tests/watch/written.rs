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
    /// Does what a request asks for; the object as it is then, or the status of a refusal.
    pub fn take(
        &mut self,
        method: &str,
        target: &str,
        body: &Value,
        keeps_nodes_apart: bool,
    ) -> Result<Value, u16> {
        let Some(place) = target.strip_prefix("/apis/events.k8s.io/v1/namespaces/") else {
            return Err(404);
        };
        let place: Vec<&str> = place.split('/').collect();
        match (method, &place[..]) {
            ("POST", [namespace, "events"]) => self.create(namespace, body, keeps_nodes_apart),
            ("PATCH", [_, "events", name]) => self.merge(name, body),
            _ => Err(405),
        }
    }

    /// Refuses an Event without one of the texts that the API requires, outside of the namespace
    /// of what it is about, or with the name of another. Lengths, forms of times and names, and
    /// types of all other fields, which real servers check too, are not looked at.
    fn create(&mut self, namespace: &str, event: &Value, apart: bool) -> Result<Value, u16> {
        let required =
            ["eventTime", "reportingController", "reportingInstance", "action", "reason"];
        let has_all =
            required.iter().all(|field| event[field].as_str().is_some_and(|s| !s.is_empty()));
        let is_beside = match event["regarding"]["namespace"].as_str() {
            Some(regarding) => regarding == namespace,
            None => namespace == "kube-system" || namespace == "default" && !apart,
        };
        if !has_all || !is_beside || event["metadata"]["namespace"] != namespace {
            return Err(422);
        }
        let name = event["metadata"]["name"].as_str().unwrap().to_owned();
        if self.events.contains_key(&name) {
            return Err(409);
        }
        self.events.insert(name, event.clone());
        Ok(event.clone())
    }

    /// Nothing but the series of an Event may change; a change of nothing reads it.
    fn merge(&mut self, name: &str, fields: &Value) -> Result<Value, u16> {
        let event = self.events.get_mut(name).ok_or(404_u16)?;
        if fields.as_object().unwrap().is_empty() {
            return Ok(event.clone());
        }
        let series = &fields["series"];
        let is_right =
            series["count"].as_u64() >= Some(2) && series["lastObservedTime"].is_string();
        if !is_right || fields.as_object().unwrap().len() > 1 {
            return Err(422);
        }
        event["series"] = series.clone();
        Ok(event.clone())
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
