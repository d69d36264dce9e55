//! Clients: one question over a fresh connection, or a conversation over one that stays open.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use socket2::{Domain, Socket};

use crate::namespace::Namespace;
use crate::whoami::{Answer, LAST_REQUEST, REQUEST, Transport};

/// How long connecting may take: shorter than a retransmitted SYN.
pub const TIMEOUT: Duration = Duration::from_millis(900);

/// Longer than an answer takes on a busy machine.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(3);

/// The same over SCTP: time for a request to be sent again.
///
/// Kernel: a request that comes while its association is being accepted can get lost in the
/// server's own socket, as captures in its namespace show; it is sent again after 3 s
/// (`net.sctp.rto_initial`).
const SCTP_ANSWER_TIMEOUT: Duration = Duration::from_secs(7);

/// Source ports of SCTP, in turn: below those that the kernel chooses, and no node ports.
///
/// Kernel: where a port comes back within seconds, IPVS drops the first INIT (`ip_vs_in` and
/// `conn_reuse_mode`), and chance has one come back now and then.
const SCTP_PORTS: std::ops::Range<u16> = 10_000..30_000;

/// Asks once, from inside a namespace, over a connection of its own.
pub fn ask(from: &Namespace, transport: Transport, to: SocketAddr) -> io::Result<Answer> {
    from.run(|| ask_here(transport, to))
}

/// Asks once over TCP; see [`ask`].
pub fn connect_tcp(from: &Namespace, to: SocketAddr) -> io::Result<Answer> {
    ask(from, Transport::Tcp, to)
}

/// Like [`ask`], from the namespace that the thread is in.
pub fn ask_here(transport: Transport, to: SocketAddr) -> io::Result<Answer> {
    ask_patiently(transport, to, TIMEOUT)
}

/// The same with another limit for connecting.
pub fn ask_patiently(
    transport: Transport,
    to: SocketAddr,
    patience: Duration,
) -> io::Result<Answer> {
    let mut socket = connect(transport, to, patience)?;
    let answer = exchange(&mut socket, LAST_REQUEST)?;
    if transport != Transport::Udp {
        // The pod closes first, so that ports do not run out on the client's side.
        socket.read_to_end(&mut Vec::new())?;
    }
    Ok(answer)
}

/// A connection that stays open between questions.
pub struct Conversation {
    socket: Socket,
}

impl Conversation {
    /// Connects from inside a namespace.
    pub fn open(from: &Namespace, transport: Transport, to: SocketAddr) -> io::Result<Self> {
        from.run(|| connect(transport, to, TIMEOUT)).map(|socket| Self { socket })
    }

    /// Asks over the open connection.
    pub fn ask(&mut self) -> io::Result<Answer> {
        exchange(&mut self.socket, REQUEST)
    }
}

fn connect(transport: Transport, to: SocketAddr, patience: Duration) -> io::Result<Socket> {
    let socket =
        Socket::new(Domain::for_address(to), transport.socket_type(), Some(transport.protocol()))?;
    let timeout = match transport {
        Transport::Sctp => SCTP_ANSWER_TIMEOUT,
        Transport::Tcp | Transport::Udp => ANSWER_TIMEOUT,
    };
    socket.set_read_timeout(Some(timeout))?;
    if transport == Transport::Sctp {
        socket.bind(&next_source(to).into())?;
    }
    socket.set_write_timeout(Some(TIMEOUT))?;
    socket.connect_timeout(&to.into(), patience)?;
    Ok(socket)
}

/// Where the next SCTP client of a server comes from.
fn next_source(to: SocketAddr) -> SocketAddr {
    static TAKEN: AtomicU16 = AtomicU16::new(0);
    let port = SCTP_PORTS.start + TAKEN.fetch_add(1, Ordering::Relaxed) % SCTP_PORTS.len() as u16;
    match to {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, port).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, port).into(),
    }
}

fn exchange(socket: &mut Socket, request: &str) -> io::Result<Answer> {
    socket.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    let mut buffer = [0; 512];
    loop {
        let length = socket.read(&mut buffer)?;
        if length == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        answer.extend_from_slice(&buffer[..length]);
        if let Some(answer) = Answer::parse(&answer) {
            return Ok(answer);
        }
    }
}
