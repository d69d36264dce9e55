//! What can go wrong on the host, as the rest of the daemon sees it.
//!
//! Invariant: the operation and its object are in the text, the cause is attached and never
//! repeated in the text, so that a chain of causes reads as one sentence each.

use std::io;
use std::sync::Arc;

use nix::errno::Errno;

use super::{exec, ipset, iptables, netlink, sysctl};
use crate::model::ipvs::ServerKey;
use crate::model::leftover::Leftover;

/// Why the host could not be looked at or changed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A request to the kernel failed.
    #[error("cannot {operation} {key}")]
    Netlink {
        /// What was tried, such as `add virtual server`.
        operation: &'static str,
        /// To what.
        key: String,
        /// Why it failed.
        #[source]
        cause: netlink::Error,
    },
    /// A set or an entry is not as wanted.
    #[error("cannot {operation} {key}")]
    Set {
        /// What was tried.
        operation: &'static str,
        /// To what.
        key: String,
        /// Why it failed.
        #[source]
        cause: ipset::Error,
    },
    /// Rules could not be listed or loaded.
    #[error("cannot {operation} {key}")]
    Rules {
        /// What was tried.
        operation: &'static str,
        /// Of which family.
        key: String,
        /// Why it failed.
        #[source]
        cause: Box<iptables::Error>,
    },
    /// What is to go is used by rules or sets of others.
    #[error("cannot {operation} {key}: others use it: {users}: delete what uses it first")]
    InUse {
        /// What was tried.
        operation: &'static str,
        /// To what.
        key: String,
        /// Who uses it.
        users: String,
    },
    /// A setting could not be read or written.
    #[error(transparent)]
    Setting(#[from] sysctl::Error),
    /// A file could not be read.
    #[error("{operation}")]
    Io {
        /// What was tried.
        operation: String,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// The kernel lacks something that we cannot do without.
    #[error("{what} is missing: {fix}")]
    Missing {
        /// What it lacks.
        what: String,
        /// What to do.
        fix: String,
        /// How that was found out, if by a refusal.
        #[source]
        cause: Option<netlink::Error>,
    },
    /// The kernel has no such scheduler; a virtual server of another one stays as it is.
    #[error(
        "scheduler {scheduler} for virtual server {server} is missing: load ip_vs_{scheduler}: \
         modprobe ip_vs_{scheduler}"
    )]
    NoScheduler {
        /// Its name.
        scheduler: Arc<str>,
        /// Which virtual server it is for.
        server: ServerKey,
        /// The refusal.
        #[source]
        cause: netlink::Error,
    },
    /// The process may not change the network.
    #[error(
        "CAP_NET_ADMIN is missing: run as root, or add NET_ADMIN to securityContext.capabilities"
    )]
    NotPermitted,
    /// What another mode of kube-proxy made may be in use by it.
    #[error(
        "cannot remove {leftover}: another program listens at port {port}, so kube-proxy may run: \
         stop it"
    )]
    KubeProxyRuns {
        /// What it made.
        leftover: Leftover,
        /// A port of kube-proxy.
        port: u16,
    },
    /// A device of our name is something else.
    #[error("device {name} is of type {kind:?}, not dummy: rename or delete it")]
    OtherDevice {
        /// The name.
        name: &'static str,
        /// What it is.
        kind: String,
    },
}

impl Error {
    /// Whether the object is not there, so that there was nothing to change or remove.
    pub fn is_gone(&self) -> bool {
        match self {
            Error::Set { cause, .. } => cause.is_gone(),
            // What is missing there is not the object but what it takes to make it.
            Error::Missing { .. } | Error::NoScheduler { .. } => false,
            _ => self
                .netlink()
                .is_some_and(|cause| GONE.into_iter().any(|errno| cause.is_refusal(errno))),
        }
    }

    /// Whether the change may have taken effect all the same.
    pub fn is_ambiguous(&self) -> bool {
        match self {
            Error::Rules { cause, .. } => match cause.as_ref() {
                iptables::Error::Program(cause) => !matches!(cause, exec::Error::Missing { .. }),
                // Kernel: the tables before the refused one are loaded.
                iptables::Error::Line { .. } => true,
                iptables::Error::Incompatible { .. } | iptables::Error::Version { .. } => false,
            },
            _ => self.netlink().is_some_and(netlink::Error::is_ambiguous),
        }
    }

    /// What the kernel or the host lacks, and what to do; the same words for all that fails for it.
    pub fn missing(&self) -> Option<String> {
        match self {
            Error::Missing { what, fix, .. } => Some(format!("{what} is missing: {fix}")),
            Error::NoScheduler { scheduler, .. } => Some(format!(
                "scheduler {scheduler} is missing: load ip_vs_{scheduler}: \
                 modprobe ip_vs_{scheduler}"
            )),
            Error::NotPermitted => Some(self.to_string()),
            _ => None,
        }
    }

    /// The netlink error beneath, if there is one.
    pub fn netlink(&self) -> Option<&netlink::Error> {
        match self {
            Error::Netlink { cause, .. } | Error::NoScheduler { cause, .. } => Some(cause),
            Error::Set { cause, .. } => cause.netlink(),
            Error::Missing { cause, .. } => cause.as_ref(),
            Error::Rules { .. }
            | Error::InUse { .. }
            | Error::Setting(_)
            | Error::Io { .. }
            | Error::NotPermitted
            | Error::KubeProxyRuns { .. }
            | Error::OtherDevice { .. } => None,
        }
    }
}

/// What the kernel says of missing services, destinations and sets, devices, addresses.
const GONE: [Errno; 5] =
    [Errno::ESRCH, Errno::ENOENT, Errno::ENODEV, Errno::EADDRNOTAVAIL, Errno::ENXIO];

#[cfg(test)]
mod tests {

    use super::*;
    use crate::kernel::netlink::Refusal;

    fn refused(errno: Errno) -> Error {
        let cause = netlink::Error::Refused(Refusal::of(errno as i32));
        let key = "tcp 10.96.0.1:443".to_owned();
        Error::Netlink { operation: "remove virtual server", key, cause }
    }

    #[test]
    fn a_lost_answer_is_ambiguous_and_a_refusal_is_not() {
        assert!(!refused(Errno::EBUSY).is_ambiguous());
        let cause = netlink::Error::NoAnswer;
        let error = Error::Netlink { operation: "add address", key: "10.96.0.1".to_owned(), cause };
        assert!(error.is_ambiguous());
    }

    #[test]
    fn says_each_cause_once() {
        let error = refused(Errno::ESRCH);
        assert_eq!(error.to_string(), "cannot remove virtual server tcp 10.96.0.1:443");
        let chain = format!("{:#}", anyhow::Error::from(error));
        let expected = "cannot remove virtual server tcp 10.96.0.1:443: \
                        the kernel refused: No such process (ESRCH)";
        assert_eq!(chain, expected);
    }
}
