//! A server in a pod that tells who it is and whom it sees; see [`crate::whoami`].

use std::io::{self, Read, Write};
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use socket2::{Domain, Socket};

use crate::namespace::Namespace;
use crate::whoami::{self, Answer, Transport};

/// How long a blocked thread may take to see that the server is to stop.
const PATIENCE: Duration = Duration::from_millis(50);
const BACKLOG: i32 = 1024;

/// A listening server; stops when dropped.
pub struct PodServer {
    stopping: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

/// What every thread of one server shares.
struct Pod {
    name: String,
    stopping: Arc<AtomicBool>,
}

impl PodServer {
    /// Listens at each of these; returns once clients can connect.
    pub fn start(
        namespace: &Namespace,
        name: &str,
        transport: Transport,
        places: &[SocketAddr],
    ) -> Self {
        let stopping = Arc::new(AtomicBool::new(false));
        let listen = |at: &SocketAddr| {
            let socket = namespace.run(|| bind(transport, *at)).unwrap_or_else(|error| {
                panic!("{name} cannot listen on {transport:?} {at}: {error}")
            });
            let pod = Pod { name: name.into(), stopping: Arc::clone(&stopping) };
            thread::spawn(move || match transport {
                Transport::Tcp | Transport::Sctp => pod.accept(&socket),
                Transport::Udp => pod.answer_datagrams(&socket.into()),
            })
        };
        let threads = places.iter().map(listen).collect();
        Self { stopping, threads }
    }

    /// Stops; returns when new clients are refused and old connections are closed.
    pub fn stop(self) {
        drop(self);
    }
}

impl Drop for PodServer {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            // Its panic has been printed, and the client's failure tells the test.
            let _ = thread.join();
        }
    }
}

impl Pod {
    /// Ends when all connections have.
    fn accept(&self, listener: &Socket) {
        thread::scope(|scope| {
            while !self.is_stopping() {
                if let Ok((connection, peer)) = listener.accept() {
                    let peer = peer.as_socket().expect("an IP address");
                    // A client that goes away in the middle has its own error to report.
                    scope.spawn(move || self.converse(&connection, peer).ok());
                }
            }
        });
    }

    fn converse(&self, mut connection: &Socket, peer: SocketAddr) -> io::Result<()> {
        connection.set_read_timeout(Some(PATIENCE))?;
        let mut request = Vec::new();
        let mut buffer = [0; 512];
        while !self.is_stopping() {
            match connection.read(&mut buffer) {
                Ok(0) => break,
                Ok(length) => request.extend_from_slice(&buffer[..length]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
                Err(error) => return Err(error),
            }
            if whoami::is_request(&request) {
                connection.write_all(self.answer(peer).as_bytes())?;
                if whoami::is_last_request(&request) {
                    break;
                }
                request.clear();
            }
        }
        Ok(())
    }

    fn answer_datagrams(&self, socket: &UdpSocket) {
        let mut buffer = [0; 512];
        while !self.is_stopping() {
            if let Ok((_, peer)) = socket.recv_from(&mut buffer) {
                // An answer that cannot be sent is missed by the client.
                let _ = socket.send_to(self.answer(peer).as_bytes(), peer);
            }
        }
    }

    fn answer(&self, peer: SocketAddr) -> String {
        let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
        Answer { pod: self.name.clone(), peer }.render()
    }

    fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }
}

fn bind(transport: Transport, at: SocketAddr) -> io::Result<Socket> {
    let socket =
        Socket::new(Domain::for_address(at), transport.socket_type(), Some(transport.protocol()))?;
    if at.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    socket.set_reuse_address(true)?;
    // Bounds accept as well.
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.bind(&at.into())?;
    if transport != Transport::Udp {
        socket.listen(BACKLOG)?;
    }
    Ok(socket)
}
