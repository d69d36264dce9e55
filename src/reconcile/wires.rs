//! What the loop is connected by: each channel is made here, whoever is at its other end.
//!
//! Invariant: nothing that others do with their ends, or leave undone, holds up the loop.

use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::auditor::Auditor;
use super::status::Status;
use super::view::Question;
use super::{AuditAsked, HostChanged, Reconfigured};
use crate::cluster::Update;
use crate::plan::drain::Deadline;
use crate::telemetry::events::{Sink, Told};
use crate::telemetry::metrics::Metrics;

/// Updates on their way to the loop; when it is busy, the source waits.
const QUEUE: usize = 1024;

/// What the loop is connected to.
#[derive(Debug)]
pub struct Wires {
    /// What the cluster says.
    pub updates: mpsc::Receiver<Update>,
    /// Word that the host has changed. One that waits stands for all until it is taken; nobody
    /// may be telling.
    pub host: mpsc::Receiver<HostChanged>,
    /// Word that an audit is wanted before its time. One that waits stands for all until it is
    /// taken; nobody may be asking.
    pub audits: mpsc::Receiver<AuditAsked>,
    /// Another configuration, the latest; nobody may be telling.
    pub configuration: watch::Receiver<Option<Reconfigured>>,
    /// Questions about what is programmed; nobody may be asking.
    pub questions: mpsc::Receiver<Question>,
    /// Who reads audits beside the work; without one, the loop reads them itself.
    pub auditor: Option<Auditor>,
    /// Deadlines of the drains under way, for whoever keeps them across a restart.
    pub drains: watch::Sender<Vec<Deadline>>,
    /// How we are doing, for whoever wants to know.
    pub publish: watch::Sender<Status>,
    /// What is counted.
    pub metrics: Metrics,
    /// What the cluster is told; nobody may be writing it.
    pub events: Sink,
    /// Ends the loop; the data plane stays as it is.
    pub stop: CancellationToken,
}

/// The other ends; those that nobody holds stay silent, except for `updates`, which ends the loop.
#[derive(Debug)]
pub struct Ends {
    /// Where the cluster is told.
    pub updates: mpsc::Sender<Update>,
    /// Where changes of the host are told.
    pub host: mpsc::Sender<HostChanged>,
    /// Where an audit is asked for.
    pub ask_for_audit: mpsc::Sender<AuditAsked>,
    /// Where another configuration is told.
    pub configuration: watch::Sender<Option<Reconfigured>>,
    /// Where questions are asked.
    pub ask: mpsc::Sender<Question>,
    /// Deadlines of the drains under way.
    pub drains: watch::Receiver<Vec<Deadline>>,
    /// How the loop is doing.
    pub status: watch::Receiver<Status>,
    /// What the cluster is to be told.
    pub events: mpsc::Receiver<Told>,
}

impl Wires {
    /// Wires without an auditor, and their other ends.
    pub fn new(metrics: Metrics) -> (Self, Ends) {
        let (tell_updates, updates) = mpsc::channel(QUEUE);
        let (tell_host, host) = mpsc::channel(1);
        let (ask_for_audit, audits) = mpsc::channel(1);
        let (tell_configuration, configuration) = watch::channel(None);
        let (ask, questions) = mpsc::channel(1);
        let (drains, told_drains) = watch::channel(Vec::new());
        let (publish, status) = watch::channel(Status::default());
        let (events, told_events) = Sink::new(metrics.clone());
        let (auditor, stop) = (None, CancellationToken::new());
        let wires = Wires {
            updates,
            host,
            audits,
            configuration,
            questions,
            auditor,
            drains,
            publish,
            metrics,
            events,
            stop,
        };
        let ends = Ends {
            updates: tell_updates,
            host: tell_host,
            ask_for_audit,
            configuration: tell_configuration,
            ask,
            drains: told_drains,
            status,
            events: told_events,
        };
        (wires, ends)
    }
}
