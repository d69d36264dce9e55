//! Ports that a test keeps until what it tests listens there.

use std::net::{Ipv4Addr, SocketAddr};

use tokio::net::TcpSocket;

/// A TCP port that nobody else is given, not even before somebody listens there.
///
/// Kernel: a port that is bound is given to nobody who asks for any port (`bind` to port 0). While
/// its holder does not listen, whoever names it may listen there, if both reuse addresses
/// (`SO_REUSEADDR`), as the servers under test do; until then connections are refused.
pub struct Port(TcpSocket);

impl Port {
    /// A port of an address of this host.
    ///
    /// # Panics
    /// If there is none.
    pub fn of(ip: Ipv4Addr) -> Self {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.set_reuseaddr(true).expect("an option that every socket has");
        socket.bind((ip, 0).into()).expect("a port");
        Port(socket)
    }

    /// The address with the port.
    ///
    /// # Panics
    /// Never: it is bound.
    pub fn address(&self) -> SocketAddr {
        self.0.local_addr().expect("bound")
    }

    /// The number of the port.
    pub fn number(&self) -> u16 {
        self.address().port()
    }
}
