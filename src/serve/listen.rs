//! HTTP within bounds: one request per connection, few connections, small and prompt requests;
//! over TLS where that is asked for.
//!
//! Invariant: whoever connects cannot hold a connection longer than [`Bounds`] allow, so that
//! the probes of the node always get their turn.

use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use nix::sys::socket::{setsockopt, sockopt};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};

use super::Answer;
use super::tls::Transport;

/// Parity: between two attempts to bind.
const BIND_AGAIN: Duration = Duration::from_secs(5);

/// Pause after an error of accept: out of file descriptors, most likely.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);

/// How long open connections may take to end once the server is told to stop.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// Connections that wait in the kernel to be accepted.
const BACKLOG: u32 = 128;

/// First byte of a client that speaks TLS: a record of its handshake (RFC 8446, 5.1).
const HANDSHAKE: u8 = 22;

/// A connection in plain text or not: one type, so that HTTP is compiled once.
type Stream = Box<dyn ReadWrite>;

/// What a connection can do.
trait ReadWrite: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> ReadWrite for T {}

/// What clients may take up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Connections at a time; more wait to be accepted.
    pub connections: usize,
    /// Bytes of the head of a request, at least 8192.
    pub head: usize,
    /// Time for the handshake of TLS.
    pub handshake_time: Duration,
    /// Time to send the head.
    pub head_time: Duration,
    /// Time from connect to the end of the answer.
    pub whole_time: Duration,
}

impl Default for Bounds {
    fn default() -> Self {
        Bounds {
            connections: 100,
            head: 8192,
            handshake_time: Duration::from_secs(5),
            head_time: Duration::from_secs(5),
            whole_time: Duration::from_secs(15),
        }
    }
}

/// What answers the paths of one address.
pub type Answers = Arc<dyn Fn(&str) -> Answer + Send + Sync>;

/// Where to serve.
#[derive(Debug, Clone, Copy)]
pub struct Place {
    /// The flag or field that says so, for the log.
    pub setting: &'static str,
    /// The address.
    pub address: SocketAddr,
    /// How it is bound.
    pub bind: fn(SocketAddr) -> io::Result<TcpListener>,
}

/// Serves an address until told to stop; one that cannot be bound is tried again and again, and
/// `on_failure` hears of the first time.
pub async fn serve(
    place: Place,
    transport: Transport,
    answers: Answers,
    stop: CancellationToken,
    on_failure: impl FnOnce(&io::Error),
) {
    let bound = stop.run_until_cancelled(bind_at_last(place, BIND_AGAIN, on_failure)).await;
    if let Some(listener) = bound {
        accept(listener, Bounds::default(), transport, answers, stop).await;
    }
}

/// Binds an address, however long that takes; the first failure is said.
pub(super) async fn bind_at_last(
    place: Place,
    retry: Duration,
    on_failure: impl FnOnce(&io::Error),
) -> TcpListener {
    let Place { setting, address, bind } = place;
    let mut on_failure = Some(on_failure);
    loop {
        match bind(address) {
            Ok(listener) => {
                debug!(%address, setting, "serving");
                return listener;
            }
            Err(error) => {
                if let Some(on_failure) = on_failure.take() {
                    warn!(
                        %address, setting, %error, ?retry,
                        "cannot serve, another program may do so"
                    );
                    on_failure(&error);
                }
            }
        }
        tokio::time::sleep(retry).await;
    }
}

/// Binds an address; the unspecified IPv4 one stands for both families, as in Go.
pub fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    if address.ip() == IpAddr::from([0, 0, 0, 0]) {
        let both = SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), address.port());
        // A host without IPv6 refuses that for reasons of its own.
        match bind_as(both, Families::Both) {
            Err(error) if error.kind() != io::ErrorKind::AddrInUse => {}
            result => return result,
        }
    }
    bind_as(address, Families::Both)
}

/// Binds an address of which the unspecified ones stand for their own family.
pub fn bind_one_family(address: SocketAddr) -> io::Result<TcpListener> {
    bind_as(address, Families::Own)
}

/// What the unspecified IPv6 address stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Families {
    Own,
    Both,
}

fn bind_as(address: SocketAddr, families: Families) -> io::Result<TcpListener> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    if address.ip() == IpAddr::from(Ipv6Addr::UNSPECIFIED) {
        setsockopt(&socket, sockopt::Ipv6V6Only, &(families == Families::Own))?;
    }
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Accepts connections until told to stop, then lets the open ones end.
pub async fn accept(
    listener: TcpListener,
    bounds: Bounds,
    transport: Transport,
    answers: Answers,
    stop: CancellationToken,
) {
    let places = Arc::new(Semaphore::new(bounds.connections));
    let open = TaskTracker::new();
    let accepting = async {
        loop {
            // Who comes when all places are taken waits in the kernel, and costs us nothing.
            let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
            match listener.accept().await {
                Ok((stream, _)) => {
                    let talk = answer(stream, bounds, transport.now(), Arc::clone(&answers));
                    let talk = converse(talk, bounds, stop.clone());
                    open.spawn(async move {
                        talk.await;
                        drop(place);
                    });
                }
                Err(error) => {
                    debug!(%error, "cannot accept a connection");
                    tokio::time::sleep(ACCEPT_AGAIN).await;
                }
            }
        }
    };
    stop.run_until_cancelled(accepting).await;
    // Whoever takes over the address need not wait for the last clients.
    drop(listener);
    open.close();
    open.wait().await;
}

/// Lets a conversation go on for as long as it may.
async fn converse(
    talk: impl Future<Output = io::Result<()>>,
    bounds: Bounds,
    stop: CancellationToken,
) {
    let mut talk = std::pin::pin!(timeout(bounds.whole_time, talk));
    tokio::select! {
        result = &mut talk => if let Ok(Err(error)) = result {
            debug!(%error, "connection ended early");
        },
        // What a client misses at the end is of no consequence.
        () = stop.cancelled() => drop(timeout(LAST_WORDS, talk).await),
    }
}

/// Answers one request on a connection.
async fn answer(
    stream: TcpStream,
    bounds: Bounds,
    tls: Option<Arc<ServerConfig>>,
    answers: Answers,
) -> io::Result<()> {
    let (stream, answers) = match tls {
        None => (Box::new(stream) as Stream, answers),
        Some(tls) => timeout(bounds.handshake_time, shake_hands(stream, tls, answers)).await??,
    };
    let service = service_fn(move |request| {
        let response = respond(&answers, &request);
        async move { Ok::<_, Infallible>(response) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(bounds.head_time)
        .max_buf_size(bounds.head)
        // An idle connection would hold a place that a probe may need.
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service);
    connection.await.map_err(io::Error::other)
}

/// The stream inside of TLS; or, for a client that speaks none, the stream as it is, where all
/// that is asked has one answer.
async fn shake_hands(
    stream: TcpStream,
    tls: Arc<ServerConfig>,
    answers: Answers,
) -> io::Result<(Stream, Answers)> {
    let mut first = [0];
    stream.peek(&mut first).await?;
    if first != [HANDSHAKE] {
        return Ok((Box::new(stream), Arc::new(|_| Answer::needs_tls())));
    }
    Ok((Box::new(TlsAcceptor::from(tls).accept(stream).await?), answers))
}

fn respond(answers: &Answers, request: &Request<Incoming>) -> Response<Full<Bytes>> {
    let answer = answers(request.uri().path());
    let mut response = Response::new(Full::new(Bytes::from(answer.body)));
    *response.status_mut() = answer.status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(answer.content_type));
    let sniff = HeaderName::from_static("x-content-type-options");
    headers.insert(sniff, HeaderValue::from_static("nosniff"));
    if let Some(weight) = answer.endpoint_weight {
        let name = HeaderName::from_static("x-load-balancing-endpoint-weight");
        headers.insert(name, HeaderValue::from(weight));
    }
    response
}
