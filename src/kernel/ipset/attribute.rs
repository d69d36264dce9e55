//! Numbers of commands and attributes (`IPSET_CMD_*`, `IPSET_ATTR_*` of `linux/ip_set.h`).
//!
//! Invariant: part of the kernel's interface; they never change.

/// Number of the subsystem within nfnetlink (`NFNL_SUBSYS_IPSET`).
pub const SUBSYSTEM: u16 = 6;

/// Length of the header in front of the attributes (`struct nfgenmsg`).
pub const HEADER_LENGTH: usize = 4;

/// Marks a number in network order (`NLA_F_NET_BYTEORDER`); the kernel insists on it.
pub const NETWORK_ORDER: u16 = 0x4000;

/// Commands.
pub mod command {
    pub const PROTOCOL: u16 = 1;
    pub const CREATE: u16 = 2;
    pub const DESTROY: u16 = 3;
    pub const SWAP: u16 = 6;
    pub const LIST: u16 = 7;
    pub const ADD: u16 = 9;
    pub const DEL: u16 = 10;
    pub const TYPE: u16 = 13;
}

/// Attributes of a command.
pub mod top {
    pub const PROTOCOL: u16 = 1;
    pub const SETNAME: u16 = 2;
    pub const TYPENAME: u16 = 3;
    pub const SETNAME2: u16 = 3;
    pub const REVISION: u16 = 4;
    pub const FAMILY: u16 = 5;
    pub const FLAGS: u16 = 6;
    pub const DATA: u16 = 7;
    pub const ADT: u16 = 8;
    pub const LINENO: u16 = 9;
    pub const PROTOCOL_MIN: u16 = 10;
    pub const REVISION_MIN: u16 = 10;
}

/// Attributes of a set's options and of an entry.
pub mod data {
    pub const IP: u16 = 1;
    pub const CIDR: u16 = 3;
    pub const PORT: u16 = 4;
    pub const PORT_TO: u16 = 5;
    pub const PROTO: u16 = 7;
    pub const LINENO: u16 = 9;
    pub const HASHSIZE: u16 = 18;
    /// Of an entry: the set that is a member of a list.
    pub const NAME: u16 = 18;
    pub const MAXELEM: u16 = 19;
    pub const IP2: u16 = 20;
    pub const CIDR2: u16 = 21;
    pub const ELEMENTS: u16 = 24;
}

/// Attributes of an address.
pub mod address {
    pub const IPV4: u16 = 1;
    pub const IPV6: u16 = 2;
}

/// Families (`NFPROTO_*`).
pub mod family {
    pub const UNSPECIFIED: u8 = 0;
    pub const IPV4: u8 = 2;
    pub const IPV6: u8 = 10;
}

/// List headers only (`IPSET_FLAG_LIST_HEADER`).
pub const FLAG_LIST_HEADER: u32 = 4;
