//! What the set subsystem says no with.
//!
//! Invariant: error numbers above 4096 are the subsystem's own and always get words; all others
//! keep the meaning they have everywhere.

use nix::errno::Errno;

use crate::kernel::netlink::{self, Refusal};

/// Numbers of the subsystem (`IPSET_ERR_*`).
const PROTOCOL: i32 = 4097;
pub(super) const FIND_TYPE: i32 = 4098;
const MAX_SETS: i32 = 4099;
const BUSY: i32 = 4100;
const SWAP_TYPES: i32 = 4102;
pub(super) const EXIST: i32 = 4103;
const INVALID_CIDR: i32 = 4104;
const INVALID_FAMILY: i32 = 4106;
const REFERENCED: i32 = 4108;
const NEEDS_IPV4: i32 = 4109;
const NEEDS_IPV6: i32 = 4110;
pub(super) const FULL: i32 = 4352;
const NULL_ELEMENT: i32 = 4353;
const INVALID_PROTOCOL: i32 = 4354;
const MISSING_PROTOCOL: i32 = 4355;
const OWN_NUMBERS: i32 = 4096;

/// Why a set or an entry is not as asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The set holds as many entries as it takes.
    #[error("set is full: maxelem {maxelem}")]
    Full {
        /// Most entries it takes.
        maxelem: u32,
    },
    /// A set of this name exists and is of another kind.
    #[error("it exists as {found}, but {wanted} is wanted: destroy it first")]
    OtherKind {
        /// Type, family and capacity it has.
        found: String,
        /// Type, family and capacity it should have.
        wanted: String,
    },
    /// The kernel lacks a set type.
    #[error("the kernel has no set type {type_name}: load {module}: modprobe {module}")]
    NoType {
        /// The type.
        type_name: &'static str,
        /// The module that brings it.
        module: String,
    },
    /// The kernel lacks sets altogether.
    #[error("the kernel has no sets: load ip_set: modprobe ip_set, or CONFIG_IP_SET=m")]
    NoSubsystem,
    /// The kernel speaks no version of the protocol that we speak.
    #[error("the kernel speaks versions {min} to {max} of the set protocol; 6 or 7 is needed")]
    Protocol {
        /// Its lowest version.
        min: u8,
        /// Its highest version.
        max: u8,
    },
    /// A refusal with a number of the subsystem's own.
    #[error("{words} (ipset error {number})")]
    Refused {
        /// The number, above 4096.
        number: i32,
        /// What it means.
        words: &'static str,
    },
    /// Anything else between the request and its answer.
    #[error(transparent)]
    Netlink(netlink::Error),
}

impl Error {
    /// Whether there is no set of the name, or no such entry.
    pub fn is_gone(&self) -> bool {
        match self {
            Error::Netlink(error) => error.is_refusal(Errno::ENOENT),
            _ => false,
        }
    }

    /// Whether the set or the entry is there already.
    pub fn is_already_there(&self) -> bool {
        match self {
            Error::Netlink(error) => error.is_refusal(Errno::EEXIST),
            Error::Refused { number, .. } => *number == EXIST,
            _ => false,
        }
    }

    /// Whether a rule still uses the set.
    pub fn is_in_use(&self) -> bool {
        matches!(self, Error::Refused { number: BUSY | REFERENCED, .. })
    }

    /// The netlink error beneath, if there is one.
    pub fn netlink(&self) -> Option<&netlink::Error> {
        match self {
            Error::Netlink(error) => Some(error),
            _ => None,
        }
    }
}

impl From<netlink::Error> for Error {
    fn from(error: netlink::Error) -> Self {
        match error {
            netlink::Error::Refused(Refusal { number, .. }) if number > OWN_NUMBERS => {
                Error::Refused { number, words: words(number) }
            }
            error => Error::Netlink(error),
        }
    }
}

fn words(number: i32) -> &'static str {
    match number {
        PROTOCOL => "entry or request is malformed, or of another family than the set",
        FIND_TYPE => "the kernel has no set type of this name, family and revision",
        MAX_SETS => "the kernel takes no more sets",
        BUSY => "set is in use by a rule or another set",
        SWAP_TYPES => "sets of different types cannot be swapped",
        EXIST => "entry is already there, or already gone",
        INVALID_CIDR => "prefix length is not one that the set takes",
        INVALID_FAMILY => "set type does not have this family",
        REFERENCED => "set is in use by a rule or another set",
        NEEDS_IPV4 => "set takes IPv4 addresses",
        NEEDS_IPV6 => "set takes IPv6 addresses",
        FULL => "set is full",
        NULL_ELEMENT => "entry is empty: an address of all zeroes",
        INVALID_PROTOCOL => "set does not take this transport protocol",
        MISSING_PROTOCOL => "entry lacks its transport protocol",
        _ => "the set subsystem refused",
    }
}
