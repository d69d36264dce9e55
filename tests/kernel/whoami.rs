//! What pods and clients say to each other: who answers, and whom it sees asking.
//!
//! A request and its answer are the same bytes over every transport: a trivial HTTP/1.1 exchange,
//! so that `curl` can ask as well.

use std::net::{IpAddr, SocketAddr};

use socket2::{Protocol, Type};

/// Ends a connection after the answer.
pub const LAST_REQUEST: &str = "GET / HTTP/1.1\r\nHost: lab\r\nConnection: close\r\n\r\n";
/// Leaves the connection open for more.
pub const REQUEST: &str = "GET / HTTP/1.1\r\nHost: lab\r\n\r\n";

const END_OF_HEAD: &str = "\r\n\r\n";
const SCTP: i32 = 132;

/// A transport protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    Tcp,
    Udp,
    Sctp,
}

/// A pod's answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The pod's name.
    pub pod: String,
    /// The client's address as the pod sees it.
    pub peer: SocketAddr,
}

impl Transport {
    pub const ALL: [Self; 3] = [Self::Tcp, Self::Udp, Self::Sctp];

    pub fn socket_type(self) -> Type {
        match self {
            Self::Tcp | Self::Sctp => Type::STREAM,
            Self::Udp => Type::DGRAM,
        }
    }

    pub fn protocol(self) -> Protocol {
        match self {
            Self::Tcp => Protocol::TCP,
            Self::Udp => Protocol::UDP,
            Self::Sctp => Protocol::from(SCTP),
        }
    }
}

impl Answer {
    /// The client's IP address as the pod sees it.
    pub fn source(&self) -> IpAddr {
        self.peer.ip()
    }

    /// The bytes on the wire.
    pub fn render(&self) -> String {
        let body = format!("{} {}\n", self.pod, self.peer);
        format!("HTTP/1.1 200 OK\r\nContent-Length: {}{END_OF_HEAD}{body}", body.len())
    }

    /// The answer, once all of it is there.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(bytes).ok()?;
        let (_, body) = text.split_once(END_OF_HEAD)?;
        let (pod, peer) = body.strip_suffix('\n')?.split_once(' ')?;
        Some(Self { pod: pod.into(), peer: peer.parse().ok()? })
    }
}

/// Whether the bytes hold a whole request.
pub fn is_request(bytes: &[u8]) -> bool {
    bytes.ends_with(END_OF_HEAD.as_bytes())
}

/// Whether the client wants the connection closed after the answer.
pub fn is_last_request(bytes: &[u8]) -> bool {
    bytes == LAST_REQUEST.as_bytes()
}
