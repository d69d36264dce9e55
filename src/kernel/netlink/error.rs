//! What can go wrong between a request and its answer.
//!
//! Invariant: [`Error::is_ambiguous`] is true exactly when the kernel may have acted although no
//! success was reported.

use std::fmt;

use nix::errno::Errno;

use super::ANSWER_TIMEOUT;

/// Why a request has no success to report.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The kernel answered with an error number.
    #[error("the kernel refused: {0}")]
    Refused(Refusal),
    /// The kernel did not answer in time.
    #[error("no answer within {}s; whether it took effect is not known", ANSWER_TIMEOUT.as_secs())]
    NoAnswer,
    /// The socket's buffer overflowed and answers were dropped (`ENOBUFS`).
    #[error("answers were lost (ENOBUFS); whether it took effect is not known")]
    AnswersLost,
    /// An earlier request of the same batch broke the connection.
    #[error("not sent, because the connection broke on an earlier request")]
    NotSent,
    /// Every attempt at a listing was overtaken by a change (`NLM_F_DUMP_INTR`).
    #[error("the list changed each of the {0} times it was read")]
    Interrupted(u32),
    /// An answer that does not have the documented layout; names what was being read.
    #[error("malformed answer: {0}")]
    Malformed(&'static str),
    /// The kernel has no generic netlink family of this name.
    #[error("generic netlink family {0} is not there")]
    NoFamily(&'static str),
    /// A system call on the socket failed.
    #[error("netlink socket: {operation} failed")]
    Socket {
        /// The system call's purpose.
        operation: &'static str,
        /// Why it failed.
        #[source]
        errno: Errno,
    },
}

impl Error {
    /// A failed system call on the socket.
    pub(super) fn socket(operation: &'static str, error: &std::io::Error) -> Self {
        let errno = Errno::from_raw(error.raw_os_error().unwrap_or_default());
        match errno {
            Errno::ENOBUFS => Error::AnswersLost,
            errno => Error::Socket { operation, errno },
        }
    }

    /// The error number of a refusal, or of a failed system call.
    pub fn number(&self) -> Option<i32> {
        match self {
            Error::Refused(refusal) => Some(refusal.number),
            Error::Socket { errno, .. } => Some(*errno as i32),
            Error::AnswersLost => Some(Errno::ENOBUFS as i32),
            Error::NoAnswer
            | Error::NotSent
            | Error::Interrupted(_)
            | Error::Malformed(_)
            | Error::NoFamily(_) => None,
        }
    }

    /// Whether the kernel refused with this error number.
    pub fn is_refusal(&self, errno: Errno) -> bool {
        matches!(self, Error::Refused(refusal) if refusal.number == errno as i32)
    }

    /// Whether the request may have taken effect all the same.
    pub fn is_ambiguous(&self) -> bool {
        match self {
            Error::NoAnswer | Error::AnswersLost | Error::Malformed(_) | Error::Socket { .. } => {
                true
            }
            Error::Refused(_) | Error::NotSent | Error::Interrupted(_) | Error::NoFamily(_) => {
                false
            }
        }
    }
}

/// The kernel's reason for not doing what was asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The error number, positive; ipset has numbers of its own above 4096.
    pub number: i32,
    /// The kernel's own words (`NLMSGERR_ATTR_MSG`), where it gives any.
    pub reason: Option<String>,
    /// Body of the refused request where the kernel sends it back; ipset does for entries.
    pub request: Vec<u8>,
}

impl Refusal {
    /// A refusal that consists of nothing but an error number.
    pub fn of(number: i32) -> Self {
        Refusal { number, reason: None, request: Vec::new() }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match Errno::from_raw(self.number) {
            Errno::UnknownErrno => write!(f, "error {}", self.number)?,
            errno => write!(f, "{} ({errno:?})", errno.desc())?,
        }
        match &self.reason {
            Some(reason) => write!(f, ", {reason}"),
            None => Ok(()),
        }
    }
}
