//! The API server of the bench: lists, paged or streaming, and watches, over plain HTTP.
//!
//! Objects are serialised before the clock starts, and an event is written to the watching
//! connection by whoever sends it, so that its time is known to the microsecond.
//! Invariant: what it answers, a client of kube-apiserver understands; names, kinds, versions and
//! bookmarks are all there.

use std::collections::HashMap;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;
use std::time::{Duration, Instant};

use crate::cluster::{self, Cluster};

/// Path of the Services.
pub const SERVICES: &str = "/api/v1/services";
/// Path of the slices.
pub const SLICES: &str = "/apis/discovery.k8s.io/v1/endpointslices";
/// Path of the slices for a kube-proxy before 1.21, which knows no others.
const OLD_SLICES: &str = "/apis/discovery.k8s.io/v1beta1/endpointslices";
const NODES: &str = "/api/v1/nodes";
const SERVICE_CIDRS: &str = "/apis/networking.k8s.io/v1/servicecidrs";

/// What the first lists are at.
const FIRST_VERSION: u64 = 1_000;

/// Bytes that are written at once.
const WRITE: usize = 64 * 1024;

/// How often a quiet watch gets a bookmark.
const BOOKMARKS: Duration = Duration::from_secs(60);

/// How lists are served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lists {
    /// As the first part of a watch (`sendInitialEvents`), as servers do from 1.32 on.
    Streaming,
    /// In pages; streaming is refused.
    Paged,
}

/// A running server; clones refer to the same one. It ends with the process.
#[derive(Clone)]
pub struct ApiServer {
    lists: Lists,
    collections: Arc<HashMap<&'static str, Collection>>,
    state: Arc<Mutex<State>>,
}

struct Collection {
    kind: &'static str,
    api_version: &'static str,
}

type Objects = Vec<Arc<str>>;

struct State {
    version: u64,
    objects: HashMap<&'static str, Objects>,
    /// All events, each as the chunk that a watch gets.
    events: Vec<(u64, &'static str, Arc<[u8]>)>,
    watches: Vec<(&'static str, TcpStream)>,
    /// When the last byte of the last first list was written.
    listed: Option<Instant>,
    is_closed: bool,
}

impl ApiServer {
    /// Serves a cluster, in the network namespace of the calling thread.
    pub fn start(address: SocketAddr, cluster: &Cluster, lists: Lists) -> io::Result<Self> {
        let collection = |kind, api_version| Collection { kind, api_version };
        let collections = HashMap::from([
            (SERVICES, collection("Service", "v1")),
            (SLICES, collection("EndpointSlice", "discovery.k8s.io/v1")),
            (OLD_SLICES, collection("EndpointSlice", "discovery.k8s.io/v1beta1")),
            (NODES, collection("Node", "v1")),
            (SERVICE_CIDRS, collection("ServiceCIDR", "networking.k8s.io/v1")),
        ]);
        let slices = cluster.slices();
        let objects = [
            (SERVICES, cluster.services()),
            (OLD_SLICES, slices.iter().map(|slice| of_old_version(slice)).collect()),
            (SLICES, slices),
            (NODES, vec![cluster::node()]),
            (SERVICE_CIDRS, vec![cluster::service_cidr()]),
        ];
        let shared = |all: Vec<String>| all.into_iter().map(Arc::from).collect();
        let state = State {
            version: FIRST_VERSION,
            objects: objects.map(|(path, all)| (path, shared(all))).into(),
            events: Vec::new(),
            watches: Vec::new(),
            listed: None,
            is_closed: false,
        };
        let server = ApiServer {
            lists,
            collections: Arc::new(collections),
            state: Arc::new(Mutex::new(state)),
        };
        let listener = TcpListener::bind(address)?;
        let accepting = server.clone();
        thread::spawn(move || accepting.accept(&listener));
        let keeping = server.clone();
        thread::spawn(move || keeping.bookmark());
        Ok(server)
    }

    /// The version that the next event will have.
    pub fn next_version(&self) -> u64 {
        self.state().version + 1
    }

    /// Sends that the object of a Service is otherwise now; returns when its last byte was written.
    pub fn modified(&self, path: &'static str, service: usize, object: &str) -> Instant {
        let mut state = self.state();
        state.version += 1;
        let written = state.modified(path, service, object);
        if path == SLICES {
            state.modified(OLD_SLICES, service, &of_old_version(object));
        }
        written
    }

    /// When the last byte of the lists was written.
    pub fn listed(&self) -> Option<Instant> {
        self.state().listed
    }

    /// Cuts all connections and serves no more.
    pub fn close(&self) {
        let mut state = self.state();
        state.is_closed = true;
        for (_, socket) in state.watches.drain(..) {
            // Fails only for a connection that is gone.
            let _ = socket.shutdown(std::net::Shutdown::Both);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no panic while serving")
    }

    fn accept(&self, listener: &TcpListener) {
        for socket in listener.incoming().flatten() {
            let server = self.clone();
            // A client that goes away ends its connection, nothing else.
            thread::spawn(move || drop(server.serve(socket)));
        }
    }

    fn bookmark(&self) {
        loop {
            thread::sleep(BOOKMARKS);
            let mut state = self.state();
            if state.is_closed {
                return;
            }
            for (path, collection) in &*self.collections {
                let line = chunk(&collection.bookmark(state.version, false));
                state.write(path, &line);
            }
        }
    }

    fn serve(&self, socket: TcpStream) -> io::Result<()> {
        socket.set_nodelay(true)?;
        let mut reader = BufReader::new(socket.try_clone()?);
        while let Some((method, target)) = read_request(&mut reader)? {
            if self.state().is_closed {
                return Ok(());
            }
            let (path, query) = target.split_once('?').unwrap_or((&target, ""));
            let query: HashMap<&str, &str> =
                query.split('&').filter_map(|pair| pair.split_once('=')).collect();
            match self.collections.get_key_value(path) {
                Some((path, _)) if matches!(query.get("watch"), Some(&("true" | "1"))) => {
                    let is_list = query.contains_key("sendInitialEvents");
                    if is_list && self.lists == Lists::Paged {
                        respond(&socket, 400, &status(400))?;
                        continue;
                    }
                    return self.watch(socket, &mut reader, path, &query);
                }
                Some((path, collection)) => {
                    respond(&socket, 200, &self.page(path, collection, &query))?;
                }
                None => self.answer_other(&socket, &method, path)?,
            }
        }
        Ok(())
    }

    fn answer_other(&self, socket: &TcpStream, method: &str, path: &str) -> io::Result<()> {
        let group = r#"{"kind":"APIResourceList","apiVersion":"v1","groupVersion":"discovery.k8s.io/v1","resources":[{"name":"endpointslices","singularName":"endpointslice","namespaced":true,"kind":"EndpointSlice","verbs":["get","list","watch"]}]}"#;
        match (method, path) {
            ("GET", "/apis/discovery.k8s.io/v1") => respond(socket, 200, group.as_bytes()),
            ("GET", "/healthz") => respond(socket, 200, b"ok"),
            ("GET", path) if path.strip_prefix(NODES).is_some_and(|name| name.len() > 1) => {
                respond(socket, 200, cluster::node().as_bytes())
            }
            // Events that a proxy writes about itself.
            ("POST", _) => respond(socket, 201, b"{}"),
            _ => respond(socket, 404, &status(404)),
        }
    }

    /// The version, and the objects of a collection at it.
    fn objects(&self, path: &str) -> (u64, Objects) {
        let state = self.state();
        (state.version, state.objects.get(path).cloned().unwrap_or_default())
    }

    /// One page of a list.
    fn page(&self, path: &str, collection: &Collection, query: &HashMap<&str, &str>) -> Vec<u8> {
        let (version, objects) = self.objects(path);
        let number = |name| query.get(name).and_then(|text| text.parse::<usize>().ok());
        let from = number("continue").unwrap_or(0);
        let limit = number("limit").filter(|limit| *limit > 0).unwrap_or(usize::MAX);
        let to = from.saturating_add(limit).min(objects.len());
        let token = if to < objects.len() { to.to_string() } else { String::new() };
        let mut body = format!(
            r#"{{"kind":"{}List","apiVersion":"{}","metadata":{{"resourceVersion":"{version}","continue":"{token}"}},"items":["#,
            collection.kind, collection.api_version
        )
        .into_bytes();
        for (index, object) in objects[from..to].iter().enumerate() {
            if index > 0 {
                body.push(b',');
            }
            body.extend_from_slice(object.as_bytes());
        }
        body.extend_from_slice(b"]}");
        body
    }

    /// Streams a list if one is asked for, then leaves the connection to whoever sends events.
    fn watch(
        &self,
        mut socket: TcpStream,
        reader: &mut BufReader<TcpStream>,
        path: &'static str,
        query: &HashMap<&str, &str>,
    ) -> io::Result<()> {
        let collection = &self.collections[path];
        socket.write_all(
            b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\
              transfer-encoding: chunked\r\n\r\n",
        )?;
        let mut after = query.get("resourceVersion").and_then(|text| text.parse().ok());
        if query.contains_key("sendInitialEvents") {
            let (version, objects) = self.objects(path);
            stream(&mut socket, &objects)?;
            after = Some(version);
            socket.write_all(&chunk(&collection.bookmark(version, true)))?;
        }
        {
            let mut state = self.state();
            state.listed = Some(Instant::now());
            let missed = |(version, of, _): &&(u64, &str, Arc<[u8]>)| {
                *of == path && *version > after.unwrap_or(u64::MAX)
            };
            for (_, _, line) in state.events.iter().filter(missed) {
                socket.write_all(line)?;
            }
            state.watches.push((path, socket.try_clone()?));
        }
        // Nothing more is asked on this connection; reading tells when it is gone.
        let mut rest = [0; 64];
        while reader.read(&mut rest)? > 0 {}
        let own = socket.peer_addr()?;
        self.state().watches.retain(|(_, other)| other.peer_addr().is_ok_and(|peer| peer != own));
        Ok(())
    }
}

impl State {
    /// Sends an object as it is now; returns when its last byte was written.
    fn modified(&mut self, path: &'static str, service: usize, object: &str) -> Instant {
        let line = chunk(format!("{{\"type\":\"MODIFIED\",\"object\":{object}}}\n").as_bytes());
        self.events.push((self.version, path, line.clone().into()));
        self.write(path, &line);
        let written = Instant::now();
        self.objects.get_mut(path).expect("a known path")[service] = object.into();
        written
    }

    /// Writes to all who watch; those that are gone are forgotten.
    fn write(&mut self, path: &str, line: &[u8]) {
        self.watches
            .retain_mut(|(watched, socket)| *watched != path || socket.write_all(line).is_ok());
    }
}

impl Collection {
    fn bookmark(&self, version: u64, ends_list: bool) -> Vec<u8> {
        let annotations = match ends_list {
            true => r#","annotations":{"k8s.io/initial-events-end":"true"}"#,
            false => "",
        };
        format!(
            "{{\"type\":\"BOOKMARK\",\"object\":{{\"kind\":\"{}\",\"apiVersion\":\"{}\",\
             \"metadata\":{{\"resourceVersion\":\"{version}\"{annotations}}}}}}}\n",
            self.kind, self.api_version
        )
        .into_bytes()
    }
}

/// A slice as the version before had it; what it says is the same.
fn of_old_version(slice: &str) -> String {
    slice.replacen("discovery.k8s.io/v1\"", "discovery.k8s.io/v1beta1\"", 1)
}

/// The objects as the first events of a watch, each in a chunk of its own as a real server sends
/// them.
fn stream(socket: &mut TcpStream, objects: &Objects) -> io::Result<()> {
    const BEFORE: &[u8] = b"{\"type\":\"ADDED\",\"object\":";
    const AFTER: &[u8] = b"}\n";
    let mut buffer = Vec::with_capacity(2 * WRITE);
    for object in objects {
        let length = BEFORE.len() + object.len() + AFTER.len();
        write!(buffer, "{length:x}\r\n")?;
        for part in [BEFORE, object.as_bytes(), AFTER, b"\r\n"] {
            buffer.extend_from_slice(part);
        }
        if buffer.len() >= WRITE {
            socket.write_all(&buffer)?;
            buffer.clear();
        }
    }
    socket.write_all(&buffer)
}

/// A chunk of a chunked answer.
fn chunk(line: &[u8]) -> Vec<u8> {
    let mut chunk = format!("{:x}\r\n", line.len()).into_bytes();
    chunk.extend_from_slice(line);
    chunk.extend_from_slice(b"\r\n");
    chunk
}

fn respond(mut socket: &TcpStream, code: u16, body: &[u8]) -> io::Result<()> {
    let mut answer = format!(
        "HTTP/1.1 {code} Answer\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
        body.len()
    )
    .into_bytes();
    answer.extend_from_slice(body);
    socket.write_all(&answer)
}

fn status(code: u16) -> Vec<u8> {
    format!(
        r#"{{"kind":"Status","apiVersion":"v1","metadata":{{}},"status":"Failure","message":"refused","reason":"BadRequest","code":{code}}}"#
    )
    .into_bytes()
}

/// Method and target of the next request; none at the end of the connection.
fn read_request(reader: &mut BufReader<TcpStream>) -> io::Result<Option<(String, String)>> {
    let mut first = String::new();
    if reader.read_line(&mut first)? == 0 {
        return Ok(None);
    }
    let mut length = 0;
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 || line.trim().is_empty() {
            break;
        }
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap_or(0);
        }
    }
    io::copy(&mut reader.by_ref().take(length), &mut io::sink())?;
    let mut words = first.split(' ').map(String::from);
    Ok(words.next().zip(words.next()))
}
