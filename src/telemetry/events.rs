//! Events: what the owners of Services, and operators of nodes, are told in the cluster itself.
//!
//! A bounded queue stands between who has something to tell and who writes it to the API server
//! ([`crate::watch::api::events`]). Invariant: telling never waits; what there is no room for is
//! counted, and is in the log at any rate.

use std::time::Instant;

use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::mpsc::{Receiver, Sender, channel};

use super::metrics::{EventOutcome, Metrics};
use crate::cluster::{Kind, ObjectName};

/// Events that wait to be written; at the pace of writing, those of five minutes.
const QUEUE: usize = 32;

/// Something worth to be told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// What it is about.
    pub regarding: Regarding,
    /// What has happened.
    pub reason: Reason,
    /// The same in words, which do not name the node.
    pub note: String,
}

/// An Event in the queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    /// The Event.
    pub event: Event,
    /// When it was told.
    pub at: Instant,
}

/// What an Event is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Regarding {
    /// The Node that this is.
    ThisNode,
    /// Another object.
    Object(Kind, ObjectName),
}

/// Who has the same to tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// Every node: it follows from the objects and the configuration of the cluster.
    Cluster,
    /// One node, however often the daemon is started.
    Node,
    /// One start on one node.
    Start,
}

/// What has happened, in the words of the API.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    /// The daemon has started.
    Starting,
    /// An object, or a part of it, cannot be used.
    ObjectRejected,
    /// A default is in the place of a value that cannot be used.
    DefaultUsed,
    /// An older Service has the address and port.
    AddressConflict,
    /// An address is in a range that is left to others.
    AddressExcluded,
    /// The kernel lacks the scheduler that a Service names; it has the default.
    SchedulerMissing,
    /// The kernel, or the host, lacks something that all Services need.
    KernelFeatureMissing,
    /// Others had changed what is ours in the kernel.
    DriftRepaired,
    /// The health check of a Service cannot be served at an address.
    FailedToStartServiceHealthcheck,
}

impl Reason {
    /// The name in the API.
    pub fn name(self) -> &'static str {
        match self {
            Reason::Starting => "Starting",
            Reason::ObjectRejected => "ObjectRejected",
            Reason::DefaultUsed => "DefaultUsed",
            Reason::AddressConflict => "AddressConflict",
            Reason::AddressExcluded => "AddressExcluded",
            Reason::SchedulerMissing => "SchedulerMissing",
            Reason::KernelFeatureMissing => "KernelFeatureMissing",
            Reason::DriftRepaired => "DriftRepaired",
            Reason::FailedToStartServiceHealthcheck => "FailedToStartServiceHealthcheck",
        }
    }

    /// What was being done.
    ///
    /// Parity: `StartKubeProxy` and `Listen` are kube-proxy's.
    pub fn action(self) -> &'static str {
        match self {
            Reason::Starting => "StartKubeProxy",
            Reason::FailedToStartServiceHealthcheck => "Listen",
            Reason::DriftRepaired => "Audit",
            _ => "Program",
        }
    }

    /// `Normal` or `Warning`.
    pub fn severity(self) -> &'static str {
        match self {
            Reason::Starting => "Normal",
            _ => "Warning",
        }
    }

    /// Who has the same to tell.
    pub fn scope(self) -> Scope {
        match self {
            Reason::ObjectRejected
            | Reason::DefaultUsed
            | Reason::AddressConflict
            | Reason::AddressExcluded => Scope::Cluster,
            Reason::SchedulerMissing
            | Reason::KernelFeatureMissing
            | Reason::DriftRepaired
            | Reason::FailedToStartServiceHealthcheck => Scope::Node,
            Reason::Starting => Scope::Start,
        }
    }
}

/// Where Events are told; clones share one queue.
#[derive(Debug, Clone)]
pub struct Sink {
    queue: Sender<Told>,
    metrics: Metrics,
}

impl Sink {
    /// A queue, and who may tell; without a reader, nothing is told.
    pub fn new(metrics: Metrics) -> (Self, Receiver<Told>) {
        let (queue, events) = channel(QUEUE);
        (Sink { queue, metrics }, events)
    }

    /// Tells an Event if there is room for it.
    pub fn tell(&self, event: Event) {
        let told = Told { event, at: Instant::now() };
        if let Err(TrySendError::Full(_)) = self.queue.try_send(told) {
            self.metrics.event(EventOutcome::Dropped);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event() -> Event {
        let (regarding, reason) = (Regarding::ThisNode, Reason::Starting);
        Event { regarding, reason, note: String::new() }
    }

    #[test]
    fn what_there_is_no_room_for_is_dropped_and_counted() {
        let metrics = Metrics::new();
        let dropped = |line: &str| metrics.text().contains(line);
        let (sink, mut events) = Sink::new(metrics.clone());
        for _ in 0..QUEUE + 3 {
            sink.tell(event());
        }
        assert!(dropped("kubeipvs_events_total{outcome=\"dropped\"} 3\n"), "{}", metrics.text());
        let waiting = std::iter::from_fn(|| events.try_recv().ok()).count();
        assert_eq!(waiting, QUEUE);
        // With manifests there is nobody to write Events to, and none is missed.
        drop(events);
        sink.tell(event());
        assert!(dropped("kubeipvs_events_total{outcome=\"dropped\"} 3\n"), "{}", metrics.text());
    }
}
