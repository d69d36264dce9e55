//! Listing and deleting flows.

use nix::errno::Errno;

use super::message::{self, Filter};
use crate::kernel::netlink::{Connection, Error, Protocol};
use crate::model::conntrack::Flow;

/// A connection to connection tracking in the network namespace of the opening thread.
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

    /// The UDP flows that pass the filter and the predicate, in no order.
    ///
    /// `EINVAL` if the kernel has no such subsystem. Kernel: a list that grows while it is read may
    /// lack flows that are new, and tell others twice.
    pub fn flows(
        &mut self,
        filter: &Filter,
        is_wanted: impl Fn(&Flow) -> bool,
    ) -> Result<Vec<Flow>, Error> {
        let request = message::list(filter);
        self.connection.dump(request, |flows: &mut Vec<Flow>, body| {
            flows.extend(message::flow(body)?.filter(&is_wanted));
            Ok(())
        })
    }

    /// Deletes flows; one outcome for each, in order. One that is gone is a success.
    pub fn delete(&mut self, flows: impl IntoIterator<Item = Flow>) -> Vec<Result<(), Error>> {
        let requests = flows.into_iter().map(|flow| message::delete(&flow));
        let outcomes = self.connection.execute(requests).into_iter();
        let is_gone = |error: &Error| error.is_refusal(Errno::ENOENT);
        outcomes
            .map(|outcome| outcome.or_else(|e| if is_gone(&e) { Ok(()) } else { Err(e) }))
            .collect()
    }
}
