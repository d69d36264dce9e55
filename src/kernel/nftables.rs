//! Tables of nftables by name, over netlink: nfnetlink subsystem 10 (`linux/netfilter/nf_tables.h`).
//!
//! Enough to see and to delete what kube-proxy's nftables mode left behind, on hosts without the
//! `nft` program too.

use nix::errno::Errno;

use super::netlink::{Connection, Error, Message, Protocol};
use crate::model::net::Family;

/// Number of the subsystem within nfnetlink (`NFNL_SUBSYS_NFTABLES`).
const SUBSYSTEM: u16 = 10;

/// Commands (`NFT_MSG_*`).
mod command {
    pub const GET_TABLE: u16 = 1;
    pub const DELETE_TABLE: u16 = 2;
}

/// Begin and end of a transaction (`NFNL_MSG_BATCH_*`), which changes are made in.
mod batch {
    pub const BEGIN: u16 = 16;
    pub const END: u16 = 17;
}

/// Attribute with the name of a table (`NFTA_TABLE_NAME`).
const NAME: u16 = 1;

/// A connection to nftables in the network namespace of the opening thread.
pub struct Client {
    connection: Connection,
}

impl Client {
    /// Opens a connection; whether anybody listens there shows at the first request.
    pub fn open() -> Result<Self, Error> {
        Ok(Client { connection: Connection::open(Protocol::Netfilter)? })
    }

    /// Number of messages sent that were meant to change something.
    pub fn written(&self) -> u64 {
        self.connection.written()
    }

    /// Whether there is a table of this name; none where the kernel has no nftables.
    pub fn has_table(&mut self, family: Family, name: &str) -> Result<bool, Error> {
        match self.connection.query(table(command::GET_TABLE, family, name)) {
            Ok(_) => Ok(true),
            Err(error) if is_absent(&error) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Deletes a table with all that it holds, at once; one that is gone is a success.
    pub fn delete_table(&mut self, family: Family, name: &str) -> Result<(), Error> {
        // Kernel: the resource is the subsystem, in network order.
        let [high, low] = SUBSYSTEM.to_be_bytes();
        let edge = |kind| Message::new(kind, 0).with(&[0, 0, high, low]);
        let request = table(command::DELETE_TABLE, family, name);
        match self.connection.execute_within(edge(batch::BEGIN), request, edge(batch::END)) {
            Err(error) if is_absent(&error) => Ok(()),
            outcome => outcome,
        }
    }
}

/// Kernel: `EINVAL` is what nfnetlink says when no subsystem has the number.
fn is_absent(error: &Error) -> bool {
    [Errno::ENOENT, Errno::EINVAL, Errno::EAFNOSUPPORT, Errno::EOPNOTSUPP]
        .into_iter()
        .any(|errno| error.is_refusal(errno))
}

/// A request about one table.
fn table(command: u16, family: Family, name: &str) -> Message {
    let family = match family {
        Family::V4 => 2,
        Family::V6 => 10,
    };
    // Family, version, resource (`struct nfgenmsg`).
    let mut request = Message::new(SUBSYSTEM << 8 | command, 0).with(&[family, 0, 0, 0]);
    request.text(NAME, name);
    request
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As `nft delete table ip6 kube-proxy` sends it.
    #[test]
    fn a_request_names_family_and_table() {
        let request = table(command::DELETE_TABLE, Family::V6, "kube-proxy");
        let expected = b"\x0a\0\0\0\x0f\0\x01\0kube-proxy\0\0";
        assert_eq!(request.body(), expected);
    }
}
