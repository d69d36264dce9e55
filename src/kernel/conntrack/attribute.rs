//! Numbers of commands and attributes (`IPCTNL_MSG_CT_*`, `CTA_*`).
//!
//! Invariant: part of the kernel's interface; they never change.

/// Number of the subsystem within nfnetlink (`NFNL_SUBSYS_CTNETLINK`).
pub const SUBSYSTEM: u16 = 1;

/// Length of the header in front of the attributes (`struct nfgenmsg`).
pub const HEADER_LENGTH: usize = 4;

/// Commands.
pub mod command {
    pub const GET: u16 = 1;
    pub const DELETE: u16 = 2;
}

/// Attributes of a flow.
pub mod top {
    pub const TUPLE_ORIG: u16 = 1;
    pub const TUPLE_REPLY: u16 = 2;
    pub const ID: u16 = 12;
    pub const ZONE: u16 = 18;
    pub const FILTER: u16 = 25;
}

/// Attributes of one direction of a flow.
pub mod tuple {
    pub const IP: u16 = 1;
    pub const PROTO: u16 = 2;
    pub const ZONE: u16 = 3;
}

/// Attributes of its addresses.
pub mod ip {
    pub const V4_SRC: u16 = 1;
    pub const V4_DST: u16 = 2;
    pub const V6_SRC: u16 = 3;
    pub const V6_DST: u16 = 4;
}

/// Attributes of its ports, which are in network order.
pub mod proto {
    pub const NUM: u16 = 1;
    pub const SRC_PORT: u16 = 2;
    pub const DST_PORT: u16 = 3;
}

/// What of the original tuple a listing is filtered by (`CTA_FILTER_F_*`, Linux 5.8).
pub mod filter {
    pub const ORIG_FLAGS: u16 = 1;
    pub const IP_DST: u32 = 1 << 1;
    pub const PROTO_NUM: u32 = 1 << 3;
    pub const PROTO_DST_PORT: u32 = 1 << 5;
}

/// Families (`NFPROTO_*`).
pub mod family {
    pub const IPV4: u8 = 2;
    pub const IPV6: u8 = 10;
}
