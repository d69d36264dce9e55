//! A small API server: captured events of a real control plane, released up to a version.
//!
//! It lists in pages, watches, and streams lists as a real one does, over HTTP/1.1 in chunks,
//! and has the faults of [`Faults`]. Invariant: what it says at a version is what the captured
//! server said then.

#[path = "written.rs"]
mod written;

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};

use kube_ipvs_proxy::cluster::store::Store;
use kube_ipvs_proxy::cluster::{Kind, Update, objects};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use written::{Request, Written, read_request};

/// The version that the captured streams began with.
pub const FIRST_VERSION: u64 = 420;

/// How the server misbehaves.
#[derive(Debug, Clone, Default)]
pub struct Faults {
    /// What happens to streaming lists.
    pub streaming: Streaming,
    /// Field selectors other than names are refused, as by old servers.
    pub refuses_fields: bool,
    /// There are no EndpointSlices.
    pub lacks_slices: bool,
    /// Status of requests for ServiceCIDRs.
    pub service_cidrs: Option<u16>,
    /// Watches are closed in good order once everything was sent.
    pub closes_watches: bool,
    /// Watches from versions below this one get a 410.
    pub oldest: u64,
    /// Watches get a 410 as the status of the answer, not as an event.
    pub expires_early: bool,
    /// Events are not taken, but get this status.
    pub events: Option<u16>,
    /// Events about Nodes are taken in `kube-system` alone, as by Kubernetes 1.20.
    pub keeps_nodes_apart: bool,
    /// Every request gets this status.
    pub status: Option<u16>,
    /// Every request is answered with a page for people.
    pub is_website: bool,
    /// Connections are cut after this many lines of a watch.
    pub cut_after: Option<usize>,
    /// Nothing more is sent on watches, as by a peer that is gone without a word.
    pub stalls: bool,
}

/// What happens to streaming lists.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Streaming {
    /// They work.
    #[default]
    Works,
    /// The request gets this status.
    Refused(u16),
    /// The captured error event of a server whose storage cannot do it.
    ErrorEvent,
    /// The parameter is ignored: all objects, but never the bookmark.
    Ignored,
    /// The connection is lost in the middle.
    Cut,
}

struct State {
    version: u64,
    faults: Faults,
    requests: Vec<String>,
    written: Written,
    /// Connections of older generations are cut.
    generation: u64,
}

/// The running server.
#[derive(Clone)]
pub struct Server {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
    changed: watch::Sender<()>,
    events: Arc<BTreeMap<&'static str, Vec<Captured>>>,
}

/// A captured event.
struct Captured {
    version: u64,
    line: String,
    event: Value,
}

impl Captured {
    fn kind_of_event(&self) -> &str {
        self.event["type"].as_str().unwrap()
    }

    fn name(&self) -> String {
        self.event["object"]["metadata"]["name"].to_string()
    }
}

const COLLECTIONS: [(&str, Kind, &str); 4] = [
    ("/api/v1/services", Kind::Service, include_str!("captures/watch-services.jsonl")),
    (
        "/apis/discovery.k8s.io/v1/endpointslices",
        Kind::EndpointSlice,
        include_str!("captures/watch-endpointslices.jsonl"),
    ),
    ("/api/v1/endpoints", Kind::Endpoints, include_str!("captures/watch-endpoints.jsonl")),
    ("/api/v1/nodes", Kind::Node, include_str!("captures/watch-node1.jsonl")),
];
const SERVICE_CIDRS: &str = include_str!("captures/list-servicecidrs.json");
const UNSUPPORTED: &str = include_str!("captures/watchlist-unsupported-500.jsonl");

impl Server {
    /// Starts at the first version.
    pub async fn start(faults: Faults) -> Self {
        Server::on(TcpListener::bind("127.0.0.1:0").await.unwrap(), faults)
    }

    /// Starts at the first version on a listener.
    pub fn on(listener: TcpListener, faults: Faults) -> Self {
        let server = Server::prepare(listener.local_addr().unwrap(), faults);
        tokio::spawn(server.clone().accept(listener));
        server
    }

    fn prepare(address: SocketAddr, faults: Faults) -> Self {
        let events = COLLECTIONS.iter().map(|(path, _, lines)| (*path, captured(lines)));
        let (requests, written) = (Vec::new(), Written::default());
        let state = State { version: FIRST_VERSION, faults, requests, written, generation: 0 };
        Server {
            address,
            state: Arc::new(Mutex::new(state)),
            changed: watch::Sender::new(()),
            events: Arc::new(events.collect()),
        }
    }

    /// Where it listens.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Lets events up to a version happen.
    pub fn advance(&self, version: u64) {
        self.state().version = version;
        self.changed.send_replace(());
    }

    /// Cuts all connections, lets events up to a version happen, and forgets them.
    pub fn expire(&self, version: u64) {
        {
            let mut state = self.state();
            state.generation += 1;
            state.version = version;
            state.faults.oldest = version;
        }
        self.changed.send_replace(());
    }

    /// Changes how it misbehaves.
    pub fn set(&self, change: impl FnOnce(&mut Faults)) {
        change(&mut self.state().faults);
        self.changed.send_replace(());
    }

    /// Cuts all connections.
    pub fn cut(&self) {
        self.state().generation += 1;
        self.changed.send_replace(());
    }

    /// Requests so far whose address holds all these texts.
    pub fn count(&self, texts: &[&str]) -> usize {
        let state = self.state();
        state.requests.iter().filter(|one| texts.iter().all(|text| one.contains(text))).count()
    }

    /// Addresses of all requests so far; those that write begin with their method.
    pub fn requests(&self) -> Vec<String> {
        self.state().requests.clone()
    }

    /// Events as they are now, by their names.
    pub fn events(&self) -> BTreeMap<String, Value> {
        self.state().written.events.clone()
    }

    /// Forgets an Event, as servers do after an hour.
    pub fn forget_event(&self, name: &str) {
        self.state().written.events.remove(name);
    }

    /// What a client must know at the present version.
    pub fn expected(&self, endpoints: Kind) -> Store {
        let mut store = Store::new(&[]);
        let version = self.state().version;
        for (path, kind, _) in COLLECTIONS {
            let is_read = match kind {
                Kind::EndpointSlice | Kind::Endpoints => kind == endpoints,
                _ => true,
            };
            for event in
                self.events[path].iter().filter(|event| is_read && event.version <= version)
            {
                apply(&mut store, kind, event);
            }
        }
        if self.state().faults.service_cidrs.is_none() {
            let list: Value = serde_json::from_str(SERVICE_CIDRS).unwrap();
            let read = objects::read(Kind::ServiceCidr, &list["items"][0].to_string()).unwrap();
            store.apply(Update::Applied(Kind::ServiceCidr, read.name, read.parsed));
        }
        store
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    async fn accept(self, listener: TcpListener) {
        while let Ok((socket, _)) = listener.accept().await {
            let server = self.clone();
            tokio::spawn(async move { drop(server.serve(socket).await) });
        }
    }

    /// Answers the requests of one connection.
    async fn serve(&self, socket: TcpStream) -> io::Result<()> {
        let generation = self.state().generation;
        let mut socket = BufReader::new(socket);
        loop {
            let Some(request) = read_request(&mut socket).await? else { return Ok(()) };
            if request.method != "GET" {
                let (code, body) = self.write(&request);
                respond(&mut socket, code, &body).await?;
                continue;
            }
            let target = request.target;
            self.state().requests.push(target.clone());
            let (path, query) = target.split_once('?').unwrap_or((&target, ""));
            let parameters = Parameters(query);
            match self.refusal(path, &parameters) {
                _ if self.state().faults.is_website => {
                    respond(&mut socket, 200, "<!doctype html>\n<title>Log in</title>\n").await?;
                }
                Some(code) => respond(&mut socket, code, &status(code)).await?,
                None if parameters.is_set("watch") => {
                    return self.watch(&mut socket, path, &parameters, generation).await;
                }
                None => {
                    let body = self.list(path, &parameters);
                    respond(&mut socket, 200, &body.to_string()).await?;
                }
            }
        }
    }

    fn refusal(&self, path: &str, parameters: &Parameters<'_>) -> Option<u16> {
        let state = self.state();
        let faults = &state.faults;
        let is_known = path == "/apis/networking.k8s.io/v1/servicecidrs"
            || path.starts_with("/apis/discovery.k8s.io/v1") && !faults.lacks_slices
            || path.starts_with("/api/v1/");
        let is_old = parameters.number("resourceVersion").is_some_and(|one| one < faults.oldest);
        let is_stream = parameters.is_set("sendInitialEvents");
        match faults.streaming {
            _ if faults.status.is_some() => faults.status,
            Streaming::Refused(code) if is_stream => Some(code),
            _ if !is_known => Some(404),
            _ if path.ends_with("servicecidrs") && faults.service_cidrs.is_some() => {
                faults.service_cidrs
            }
            _ if faults.refuses_fields && parameters.has_text("spec.clusterIP") => Some(400),
            _ if parameters.is_set("watch") && is_old && faults.expires_early => Some(410),
            _ => None,
        }
    }

    /// Takes an Event, or the change of one.
    fn write(&self, request: &Request) -> (u16, String) {
        let mut state = self.state();
        let Request { method, target, body } = request;
        state.requests.push(format!("{method} {target}"));
        let refusal = state.faults.status.or(state.faults.events);
        let apart = state.faults.keeps_nodes_apart;
        let taken = refusal.map_or_else(|| state.written.take(method, target, body, apart), Err);
        taken.map_or_else(|code| (code, status(code)), |object| (200, object.to_string()))
    }

    /// The objects at the present version, one page of them.
    fn list(&self, path: &str, parameters: &Parameters<'_>) -> Value {
        if path.ends_with("servicecidrs") {
            return serde_json::from_str(SERVICE_CIDRS).unwrap();
        }
        let version = self.state().version;
        if let Some(name) = parameters.value("fieldSelector", "metadata.name%3D")
            && let Some((group, namespaced)) = path.split_once("/namespaces/")
        {
            let (_, plural) = namespaced.split_once('/').unwrap();
            let objects = self.objects(&format!("{group}/{plural}"), version);
            let items: Vec<_> =
                objects.into_iter().filter(|one| one["metadata"]["name"] == name).collect();
            return json!({"metadata": {"resourceVersion": version.to_string()}, "items": items});
        }
        let objects = self.objects(path, version);
        let from = parameters.number("continue").unwrap_or(0) as usize;
        let limit = parameters.number("limit").map_or(usize::MAX, |limit| limit as usize);
        let to = from.saturating_add(limit).min(objects.len());
        let token = if to < objects.len() { to.to_string() } else { String::new() };
        let mut items = objects[from..to].to_vec();
        if from == 0 {
            // What no real server sends, and no client may stumble over.
            items.push(json!({"metadata": {"namespace": "no-name"}, "spec": 7}));
        }
        json!({"metadata": {"resourceVersion": version.to_string(), "continue": token}, "items": items})
    }

    fn objects(&self, path: &str, version: u64) -> Vec<Value> {
        let mut objects = BTreeMap::new();
        let events = self.events.get(path).into_iter().flatten();
        for event in events.filter(|event| event.version <= version) {
            match event.kind_of_event() {
                "ADDED" | "MODIFIED" => {
                    objects.insert(event.name(), event.event["object"].clone());
                }
                "DELETED" => drop(objects.remove(&event.name())),
                _ => {}
            }
        }
        objects.into_values().collect()
    }

    async fn watch(
        &self,
        socket: &mut BufReader<TcpStream>,
        path: &str,
        parameters: &Parameters<'_>,
        generation: u64,
    ) -> io::Result<()> {
        let mut changed = self.changed.subscribe();
        let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\
                    transfer-encoding: chunked\r\n\r\n";
        socket.write_all(head.as_bytes()).await?;
        let mut sent = parameters.number("resourceVersion").unwrap_or(0);
        if parameters.is_set("sendInitialEvents") {
            sent = self.state().version;
            for line in self.initial_lines(path, sent) {
                chunk(socket, &line).await?;
            }
            if self.state().faults.streaming == Streaming::Cut {
                return Ok(());
            }
        }
        let mut lines = 0;
        loop {
            changed.mark_unchanged();
            let (version, faults, is_cut) = {
                let state = self.state();
                (state.version, state.faults.clone(), state.generation != generation)
            };
            if is_cut {
                return Ok(());
            }
            if sent < faults.oldest {
                let expired = json!({"type": "ERROR", "object": {"kind": "Status", "code": 410}});
                chunk(socket, &expired.to_string()).await?;
                return finish(socket).await;
            }
            if !faults.stalls {
                for event in self.events.get(path).into_iter().flatten() {
                    if event.version > sent && event.version <= version {
                        if faults.cut_after.is_some_and(|after| lines >= after) {
                            // In the middle of a line, as connections break.
                            return chunk_part(socket, &event.line[..event.line.len() / 2]).await;
                        }
                        chunk(socket, &event.line).await?;
                        lines += 1;
                    }
                }
                sent = sent.max(version);
                if faults.closes_watches {
                    return finish(socket).await;
                }
            }
            tokio::select! {
                _ = changed.changed() => {}
                // The client went away.
                _ = socket.fill_buf() => return Ok(()),
            }
        }
    }

    /// The events that begin a streaming list.
    fn initial_lines(&self, path: &str, version: u64) -> Vec<String> {
        let streaming = self.state().faults.streaming;
        if streaming == Streaming::ErrorEvent {
            return vec![UNSUPPORTED.trim().to_owned()];
        }
        let objects = if path.ends_with("servicecidrs") {
            let list: Value = serde_json::from_str(SERVICE_CIDRS).unwrap();
            list["items"].as_array().unwrap().clone()
        } else {
            self.objects(path, version)
        };
        let mut lines: Vec<_> = objects
            .iter()
            .map(|object| json!({"type": "ADDED", "object": object}).to_string())
            .collect();
        if streaming == Streaming::Works {
            let annotations = json!({"k8s.io/initial-events-end": "true"});
            let metadata =
                json!({"resourceVersion": version.to_string(), "annotations": annotations});
            lines.push(json!({"type": "BOOKMARK", "object": {"metadata": metadata}}).to_string());
        }
        lines
    }
}

fn captured(lines: &str) -> Vec<Captured> {
    let captured = lines.lines().filter(|line| !line.is_empty()).map(|line| {
        let event: Value = serde_json::from_str(line).unwrap();
        let metadata = &event["object"]["metadata"];
        let is_end = metadata["annotations"]["k8s.io/initial-events-end"] == "true";
        let version = metadata["resourceVersion"].as_str().unwrap().parse().unwrap();
        (is_end, Captured { version, line: line.to_owned(), event })
    });
    // The end of a streaming list is made anew for each list.
    captured.filter(|(is_end, _)| !is_end).map(|(_, captured)| captured).collect()
}

fn apply(store: &mut Store, kind: Kind, captured: &Captured) {
    let object = &captured.event["object"];
    if captured.kind_of_event() != "BOOKMARK" {
        let read = objects::read(kind, &object.to_string()).unwrap();
        store.apply(match captured.kind_of_event() {
            "DELETED" => Update::Deleted(kind, read.name),
            _ => Update::Applied(kind, read.name, read.parsed),
        });
    }
}

/// The parameters of a request, still escaped.
struct Parameters<'a>(&'a str);

impl Parameters<'_> {
    fn number(&self, name: &str) -> Option<u64> {
        let value = self.0.split('&').find_map(|one| one.strip_prefix(name)?.strip_prefix('='));
        value.and_then(|value| value.parse().ok())
    }

    /// What follows the beginning of a value.
    fn value(&self, name: &str, beginning: &str) -> Option<&str> {
        let value = self.0.split('&').find_map(|one| one.strip_prefix(name)?.strip_prefix('='));
        value?.strip_prefix(beginning)
    }

    fn is_set(&self, name: &str) -> bool {
        self.0.split('&').any(|one| one.strip_prefix(name) == Some("=true"))
    }

    fn has_text(&self, text: &str) -> bool {
        self.0.contains(text)
    }
}

async fn respond(socket: &mut BufReader<TcpStream>, code: u16, body: &str) -> io::Result<()> {
    let length = body.len();
    let head = format!(
        "HTTP/1.1 {code} X\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n"
    );
    socket.write_all(head.as_bytes()).await?;
    socket.write_all(body.as_bytes()).await
}

fn status(code: u16) -> String {
    json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code,
        "message": format!("refused with {code}"), "reason": "Test"})
    .to_string()
}

async fn chunk(socket: &mut BufReader<TcpStream>, line: &str) -> io::Result<()> {
    chunk_part(socket, &format!("{line}\n")).await
}

async fn chunk_part(socket: &mut BufReader<TcpStream>, part: &str) -> io::Result<()> {
    socket.write_all(format!("{:x}\r\n{part}\r\n", part.len()).as_bytes()).await
}

async fn finish(socket: &mut BufReader<TcpStream>) -> io::Result<()> {
    socket.write_all(b"0\r\n\r\n").await
}
