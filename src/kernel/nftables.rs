//! nf_tables over netlink: nfnetlink subsystem 10 (`linux/netfilter/nf_tables.h`).
//!
//! Enough to see and to delete tables that kube-proxy's nftables mode left behind, on hosts without
//! the `nft` program too, and to see whether any rule has changed: the generation is a number that
//! every change raises.

use nix::errno::Errno;

use super::netlink::{Attributes, Connection, Error, Message, Protocol};
use crate::model::net::Family;

/// Number of the subsystem within nfnetlink (`NFNL_SUBSYS_NFTABLES`).
const SUBSYSTEM: u16 = 10;

/// Commands (`NFT_MSG_*`).
mod command {
    pub const GET_TABLE: u16 = 1;
    pub const DELETE_TABLE: u16 = 2;
    pub const GET_GENERATION: u16 = 16;
}

/// Begin and end of a transaction (`NFNL_MSG_BATCH_*`), which changes are made in.
mod batch {
    pub const BEGIN: u16 = 16;
    pub const END: u16 = 17;
}

/// Attribute with the name of a table (`NFTA_TABLE_NAME`).
const NAME: u16 = 1;

/// Attribute with the generation (`NFTA_GEN_ID`).
const GENERATION: u16 = 1;

/// Length of the header in front of the attributes: family, version, resource (`struct nfgenmsg`).
const HEADER_LENGTH: usize = 4;

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

    /// The generation now. `EINVAL` if the kernel has no nf_tables.
    pub fn generation(&mut self) -> Result<u32, Error> {
        let of_any_family = Message::new(SUBSYSTEM << 8 | command::GET_GENERATION, 0);
        number(&self.connection.query(of_any_family.with(&[0; HEADER_LENGTH]))?, GENERATION)
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

/// The number that an answer has as one of its attributes.
fn number(answer: &[u8], kind: u16) -> Result<u32, Error> {
    for attribute in Attributes::after(answer, HEADER_LENGTH)? {
        let attribute = attribute?;
        if attribute.kind == kind {
            return attribute.to_u32_be();
        }
    }
    Err(Error::Malformed("answer of nf_tables without a number"))
}

/// A request about one table.
fn table(command: u16, family: Family, name: &str) -> Message {
    let mut request = request(command, family);
    request.text(NAME, name);
    request
}

fn request(command: u16, family: Family) -> Message {
    let family = match family {
        Family::V4 => 2,
        Family::V6 => 10,
    };
    Message::new(SUBSYSTEM << 8 | command, 0).with(&[family, 0, 0, 0])
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

    #[test]
    fn reads_a_generation() {
        // In the order of `nf_tables_fill_gen_info`.
        let answer = [
            0, 0, 0, 7, // nfgenmsg
            8, 0, 1, 0, 0, 0, 0, 7, // NFTA_GEN_ID
            8, 0, 2, 0, 0, 0, 1, 44, // NFTA_GEN_PROC_PID
        ];
        assert_eq!(number(&answer, GENERATION), Ok(7));
        assert!(number(&answer[..4], GENERATION).is_err());
        assert!(number(&answer[..2], GENERATION).is_err());
    }
}
