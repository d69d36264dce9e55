//! The generation of nf_tables: a number that every change of any of its rules raises.
//!
//! Numbers and layouts are those of `linux/netfilter/nf_tables.h` (`NFT_MSG_GETGEN`).

use crate::kernel::netlink::{Attributes, Connection, Error, Message, Protocol};

/// Number of the subsystem within nfnetlink (`NFNL_SUBSYS_NFTABLES`).
const SUBSYSTEM: u16 = 10;

/// Asks for the generation (`NFT_MSG_GETGEN`).
const GET: u16 = 16;

/// Length of the header in front of the attributes (`struct nfgenmsg`).
const HEADER_LENGTH: usize = 4;

/// The attribute that holds it (`NFTA_GEN_ID`).
const ID: u16 = 1;

/// A connection to nf_tables in the network namespace of the opening thread.
pub struct Client {
    connection: Connection,
}

impl Client {
    /// Opens a connection; whether anybody listens there shows at the first request.
    pub fn open() -> Result<Self, Error> {
        Ok(Client { connection: Connection::open(Protocol::Netfilter)? })
    }

    /// The generation now. `EINVAL` if the kernel has no nf_tables.
    pub fn read(&mut self) -> Result<u32, Error> {
        generation(&self.connection.query(request())?)
    }
}

fn request() -> Message {
    // Any family, version, resource (`struct nfgenmsg`).
    Message::new(SUBSYSTEM << 8 | GET, 0).with(&[0; HEADER_LENGTH])
}

fn generation(answer: &[u8]) -> Result<u32, Error> {
    for attribute in Attributes::after(answer, HEADER_LENGTH)? {
        let attribute = attribute?;
        if attribute.kind == ID {
            return attribute.to_u32_be();
        }
    }
    Err(Error::Malformed("generation of nf_tables without a number"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_a_generation() {
        // In the order of `nf_tables_fill_gen_info`.
        let answer = [
            0, 0, 0, 7, // nfgenmsg
            8, 0, 1, 0, 0, 0, 0, 7, // NFTA_GEN_ID
            8, 0, 2, 0, 0, 0, 1, 44, // NFTA_GEN_PROC_PID
        ];
        assert_eq!(generation(&answer), Ok(7));
        assert!(generation(&answer[..4]).is_err());
        assert!(generation(&answer[..2]).is_err());
    }

    #[test]
    fn asks_as_the_kernel_expects() {
        let request = request();
        assert_eq!(request.body(), [0; 4]);
    }
}
