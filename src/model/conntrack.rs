//! Flows of UDP, as the kernel's connection tracking knows them (spec section 8).

use std::fmt;
use std::net::SocketAddr;

use super::ipvs::{RealKey, ServerKey};
use super::net::Protocol;

/// A UDP flow: one entry of the kernel's table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Flow {
    /// Number that the kernel gave the entry (`CTA_ID`).
    pub id: u32,
    /// Who sends.
    pub client: SocketAddr,
    /// To where the client sends.
    pub destination: SocketAddr,
    /// From where the kernel expects the answers: the destination itself if nobody balanced it.
    pub answerer: SocketAddr,
}

impl Flow {
    /// The front that the client sends to, if it is one.
    pub fn front(&self) -> ServerKey {
        let (address, port) = (self.destination.ip(), self.destination.port());
        ServerKey { address, port, protocol: Protocol::Udp }
    }

    /// The real server that answers, if it is one.
    pub fn real(&self) -> RealKey {
        RealKey { address: self.answerer.ip(), port: self.answerer.port() }
    }
}

impl fmt::Display for Flow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} from {} > {}", self.front(), self.client, self.real())
    }
}
