//! One instance per network namespace.
//!
//! The lock is a listening socket with an abstract name: such names belong to a network
//! namespace, and the kernel frees them when their holder dies, however it dies.
//!
//! Invariant: nothing ever accepts on the socket; connecting to it only tells who holds it.

use std::io;
use std::os::fd::AsRawFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, UnixAddr, connect, getsockopt, socket, sockopt,
};

/// The abstract name.
pub const NAME: &str = "kube-ipvs-proxy";

/// The lock, held until dropped.
#[derive(Debug)]
pub struct Lock {
    _listener: UnixListener,
}

/// Why the lock was not had.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another instance has it.
    #[error(
        "another instance runs in this network namespace, process {}: stop it first",
        describe(*.process)
    )]
    Held {
        /// Its process id in our process namespace, if it is visible there.
        process: Option<i32>,
    },
    /// The socket could not be made.
    #[error("cannot take the instance lock @{NAME}")]
    Socket(#[source] io::Error),
}

/// Takes the lock for the calling thread's network namespace.
pub fn take() -> Result<Lock, Error> {
    let address = SocketAddr::from_abstract_name(NAME).map_err(Error::Socket)?;
    match UnixListener::bind_addr(&address) {
        Ok(listener) => Ok(Lock { _listener: listener }),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            Err(Error::Held { process: holder().ok().flatten() })
        }
        Err(error) => Err(Error::Socket(error)),
    }
}

/// The process that listens; none if it is of another process namespace, an error if nobody does.
///
/// Does not wait: connections pile up, as nobody accepts them.
pub fn holder() -> Result<Option<i32>, Errno> {
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let asking = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
    connect(asking.as_raw_fd(), &UnixAddr::new_abstract(NAME.as_bytes())?)?;
    let process = getsockopt(&asking, sockopt::PeerCredentials)?.pid();
    // Kernel: 0 stands for a process of a namespace that is not visible from here.
    Ok((process > 0).then_some(process))
}

pub(crate) fn describe(process: Option<i32>) -> String {
    process.map_or("of another process namespace".to_owned(), |process| process.to_string())
}
