//! Virtual and real servers: first what was asked for, then a second try where the kernel holds
//! something else than the mirror says.
//!
//! Invariant: nothing is ever deleted to be made anew. Kernel: deleted destinations stay on a
//! list for minutes, and every new one searches that list.

use std::fmt::Display;

use nix::errno::Errno;

use super::{LinuxKernel, convert, refused};
use crate::kernel::ipvs::Commands;
use crate::kernel::netlink::{self, Message};
use crate::kernel::{Error, Failure};
use crate::model::ipvs::{RealKey, RealServer, ServerKey, VirtualServer};
use crate::plan::step::Change;

type ServerChange = Change<ServerKey, VirtualServer>;
type RealChange = Change<(ServerKey, RealKey), RealServer>;

/// How a change is put to the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// As something new.
    New,
    /// As another value of what is there.
    Set,
    /// As a removal.
    Delete,
}

/// What a refusal means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    /// Things are as wanted already.
    Met,
    /// The kernel holds something else than was thought.
    TryInstead(Way),
    /// It cannot be done.
    Failed,
}

impl LinuxKernel {
    /// Adds, changes or removes virtual servers.
    pub(super) fn apply_servers(&mut self, changes: &[ServerChange]) -> Vec<Failure> {
        self.apply_twice(changes, server_message, server_verdict)
            .into_iter()
            .map(|(index, way, cause)| Failure {
                index,
                error: server_error(&changes[index], way, cause),
            })
            .collect()
    }

    /// Adds, changes or removes real servers.
    pub(super) fn apply_reals(&mut self, changes: &[RealChange]) -> Vec<Failure> {
        self.apply_twice(changes, real_message, real_verdict)
            .into_iter()
            .map(|(index, way, cause)| {
                let (server, real) = &changes[index].key;
                let key = format!("{real} of {server}");
                Failure { index, error: failed("real server", way, &key, cause) }
            })
            .collect()
    }

    /// Sends all changes, judges the refusals, and sends those that have another way once more.
    fn apply_twice<K, V>(
        &mut self,
        changes: &[Change<K, V>],
        message: fn(Commands, &Change<K, V>, Way) -> Message,
        verdict: fn(Way, &netlink::Error) -> Verdict,
    ) -> Vec<(usize, Way, netlink::Error)> {
        let commands = self.ipvs.commands();
        let first = changes.iter().map(|change| message(commands, change, first_way(change)));
        let outcomes = self.ipvs.execute(first);
        let (mut failures, mut again) = (Vec::new(), Vec::new());
        for (index, outcome) in outcomes.into_iter().enumerate() {
            let (Err(cause), way) = (outcome, first_way(&changes[index])) else { continue };
            match verdict(way, &cause) {
                Verdict::Met => {}
                Verdict::TryInstead(way) => again.push((index, way)),
                Verdict::Failed => failures.push((index, way, cause)),
            }
        }
        let second = again.iter().map(|(index, way)| message(commands, &changes[*index], *way));
        let outcomes = self.ipvs.execute(second);
        let refused = again.into_iter().zip(outcomes);
        failures.extend(
            refused.filter_map(|((index, way), outcome)| Some((index, way, outcome.err()?))),
        );
        failures
    }
}

fn first_way<K, V>(change: &Change<K, V>) -> Way {
    match (&change.from, &change.to) {
        (_, None) => Way::Delete,
        (None, Some(_)) => Way::New,
        (Some(_), Some(_)) => Way::Set,
    }
}

fn server_message(commands: Commands, change: &ServerChange, way: Way) -> Message {
    match (way, &change.to) {
        (Way::Delete, _) | (_, None) => commands.delete_service(&convert::service_key(&change.key)),
        (Way::New, Some(value)) => commands.new_service(&convert::service(&change.key, value)),
        (Way::Set, Some(value)) => commands.set_service(&convert::service(&change.key, value)),
    }
}

fn real_message(commands: Commands, change: &RealChange, way: Way) -> Message {
    let (server, real) = &change.key;
    let service = convert::service_key(server);
    match (way, &change.to) {
        (Way::Delete, _) | (_, None) => {
            commands.delete_destination(&service, &convert::destination_key(real))
        }
        (Way::New, Some(value)) => {
            commands.new_destination(&service, &convert::destination(real, value))
        }
        (Way::Set, Some(value)) => {
            commands.set_destination(&service, &convert::destination(real, value))
        }
    }
}

/// Kernel: a service that is gone is `ESRCH`.
fn server_verdict(way: Way, cause: &netlink::Error) -> Verdict {
    match way {
        Way::New if cause.is_refusal(Errno::EEXIST) => Verdict::TryInstead(Way::Set),
        Way::Set if cause.is_refusal(Errno::ESRCH) => Verdict::TryInstead(Way::New),
        Way::Delete if cause.is_refusal(Errno::ESRCH) => Verdict::Met,
        Way::New | Way::Set | Way::Delete => Verdict::Failed,
    }
}

/// Kernel: a destination that is gone is `ENOENT`, one whose service is gone `ESRCH`.
fn real_verdict(way: Way, cause: &netlink::Error) -> Verdict {
    let is_gone = cause.is_refusal(Errno::ENOENT);
    match way {
        Way::New if cause.is_refusal(Errno::EEXIST) => Verdict::TryInstead(Way::Set),
        Way::Set if is_gone => Verdict::TryInstead(Way::New),
        Way::Delete if is_gone || cause.is_refusal(Errno::ESRCH) => Verdict::Met,
        Way::New | Way::Set | Way::Delete => Verdict::Failed,
    }
}

/// Kernel: `ENOENT` about a service means that there is no such scheduler.
fn server_error(change: &ServerChange, way: Way, cause: netlink::Error) -> Error {
    match &change.to {
        Some(value) if cause.is_refusal(Errno::ENOENT) => {
            Error::NoScheduler { scheduler: value.scheduler.clone(), server: change.key, cause }
        }
        _ => failed("virtual server", way, &change.key, cause),
    }
}

fn failed(object: &'static str, way: Way, key: &dyn Display, cause: netlink::Error) -> Error {
    let operation = match way {
        Way::New => "add",
        Way::Set => "change",
        Way::Delete => "remove",
    };
    refused(operation, &format!("{object} {key}"), cause)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::netlink::Refusal;

    fn refusal(errno: Errno) -> netlink::Error {
        netlink::Error::Refused(Refusal::of(errno as i32))
    }

    #[test]
    fn what_the_kernel_holds_decides_the_second_way() {
        use Verdict::{Failed, Met, TryInstead};
        for (way, errno, server, real) in [
            (Way::New, Errno::EEXIST, TryInstead(Way::Set), TryInstead(Way::Set)),
            (Way::New, Errno::ENOENT, Failed, Failed),
            (Way::New, Errno::ESRCH, Failed, Failed),
            (Way::Set, Errno::ESRCH, TryInstead(Way::New), Failed),
            (Way::Set, Errno::ENOENT, Failed, TryInstead(Way::New)),
            (Way::Delete, Errno::ESRCH, Met, Met),
            (Way::Delete, Errno::ENOENT, Failed, Met),
            (Way::Delete, Errno::EINVAL, Failed, Failed),
        ] {
            assert_eq!(server_verdict(way, &refusal(errno)), server, "{way:?} {errno} server");
            assert_eq!(real_verdict(way, &refusal(errno)), real, "{way:?} {errno} real");
        }
        assert_eq!(server_verdict(Way::Delete, &netlink::Error::NoAnswer), Failed);
    }

    #[test]
    fn a_missing_scheduler_is_named() {
        let address = "10.96.0.1".parse().expect("an address");
        let protocol = crate::model::net::Protocol::Tcp;
        let key = ServerKey { address, port: 443, protocol };
        let value = VirtualServer { scheduler: "mh".into(), scheduler_flags: 0, persistence: None };
        let error = server_error(&Change::add(key, value), Way::New, refusal(Errno::ENOENT));
        let expected = "scheduler mh for virtual server tcp 10.96.0.1:443 is missing: \
                        load ip_vs_mh: modprobe ip_vs_mh";
        assert_eq!(error.to_string(), expected);
    }
}
