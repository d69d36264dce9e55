//! The loop: waits, paces, calls the engine, reports.
//!
//! It has a thread of its own, because the kernel edge blocks; a runtime of that one thread waits
//! for whichever is first, an update or the next moment to act.
//! Invariant: everything that is queued is taken in before a sync, so a burst costs one.

pub mod auditor;
mod doubt;
pub mod engine;
pub mod log;
mod news;
pub mod once;
pub mod pace;
pub mod report;
pub mod status;
pub mod view;
mod wires;

use std::io;
use std::time::{Instant, SystemTime};

use tokio::runtime::{Builder, Runtime};

use crate::cluster::Update;
use crate::config::{Periods, Policy};
use crate::kernel::Kernel;
use auditor::{Auditor, Told};
use engine::Engine;
use log::Log;
use news::Known;
use report::Report;
use status::Status;
pub use wires::{Ends, Wires};

/// The host has other addresses than before, or may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HostChanged;

/// Somebody wants an audit before its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AuditAsked;

/// A configuration that differs in what can change while the work goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reconfigured {
    /// What decides rows; the node has the name that it had.
    pub policy: Policy,
    /// When to act.
    pub periods: Periods,
}

/// Why the loop ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// It was told to.
    Stopped,
    /// Nobody tells about the cluster any more.
    SourceGone,
}

/// Keeps the kernel in line with the cluster, on the calling thread, until told to stop.
pub fn run(engine: Engine, kernel: impl Kernel, wires: Wires) -> io::Result<Ended> {
    let mut cycle = Cycle::new(engine, kernel, wires);
    // Cost: the lists are on their way meanwhile, and wait for less once they are here.
    cycle.kernel.read_ahead();
    Ok(runtime()?.block_on(cycle.run()))
}

fn runtime() -> io::Result<Runtime> {
    Builder::new_current_thread().enable_time().build()
}

/// The loop with everything it holds.
struct Cycle<K> {
    engine: Engine,
    kernel: K,
    wires: Wires,
    status: Status,
    known: Known,
    log: Log,
    node_was_known: bool,
    /// Revision of the drains that were told last.
    drains_told: u64,
}

impl<K: Kernel> Cycle<K> {
    fn new(engine: Engine, kernel: K, wires: Wires) -> Self {
        Cycle {
            engine,
            kernel,
            wires,
            status: Status::default(),
            known: Known::default(),
            log: Log::default(),
            node_was_known: false,
            drains_told: 0,
        }
    }

    async fn run(&mut self) -> Ended {
        loop {
            match self.wait().await {
                Ok(()) => drop(self.sync()),
                Err(ended) => return ended,
            }
        }
    }

    /// Takes in what the cluster says until a sync is due.
    async fn wait(&mut self) -> Result<(), Ended> {
        loop {
            self.take_queued();
            let due = self.due();
            // Cost: a timer is as late as the end of its millisecond, even one that is overdue.
            let is_due = due.is_some_and(|due| due <= Instant::now());
            if is_due && !self.wires.stop.is_cancelled() {
                return Ok(());
            }
            tokio::select! {
                biased;
                () = self.wires.stop.cancelled() => return Err(Ended::Stopped),
                () = until(due) => return Ok(()),
                update = self.wires.updates.recv() => match update {
                    Some(update) => self.note(update),
                    None => return Err(Ended::SourceGone),
                },
                Some(HostChanged) = self.wires.host.recv() => self.note_host_changed(),
                Some(AuditAsked) = self.wires.audits.recv(), if !self.is_auditing() => {
                    self.ask_for_audit();
                }
                Ok(()) = self.wires.configuration.changed() => self.reconfigure(),
                Some(question) = self.wires.questions.recv() => self.answer(question),
                // Order: last, so that no change of the cluster waits behind a comparison.
                Some(told) = told(&mut self.wires.auditor) => self.note_audit(told),
            }
        }
    }

    /// When to sync next; never before every kind was listed once.
    fn due(&self) -> Option<Instant> {
        let is_ready = self.engine.is_ready();
        is_ready.then(|| self.engine.next_sync().unwrap_or_else(Instant::now))
    }

    /// Takes in what is queued now; what comes meanwhile waits, so that a flood cannot hold us.
    fn take_queued(&mut self) {
        for _ in 0..self.wires.updates.len() {
            let Ok(update) = self.wires.updates.try_recv() else { break };
            self.note(update);
        }
        if let Ok(HostChanged) = self.wires.host.try_recv() {
            self.note_host_changed();
        }
        // Order: here too, as syncs that are due one after the other would keep them waiting.
        if self.wires.configuration.has_changed().is_ok_and(|has_changed| has_changed) {
            self.reconfigure();
        }
        if let Ok(question) = self.wires.questions.try_recv() {
            self.answer(question);
        }
        // No change of the cluster waits behind a comparison.
        if !self.engine.has_changes()
            && let Some(told) = self.wires.auditor.as_mut().and_then(Auditor::try_told)
        {
            self.note_audit(told);
        }
        // Order: after the end of the audit before.
        if !self.is_auditing()
            && let Ok(AuditAsked) = self.wires.audits.try_recv()
        {
            self.ask_for_audit();
        }
        self.publish();
    }

    fn answer(&self, view::Question { after, answer }: view::Question) {
        let mut view = self.engine.view(after, Instant::now());
        if view.rest.is_none() {
            view.rejected = self.known.rejected();
        }
        // Who asked may have gone meanwhile.
        drop(answer.send(view));
    }

    fn note(&mut self, update: Update) {
        let now = Instant::now();
        let told = update.object();
        let is_due = self.engine.note(update, now);
        if let Some(kind) = told {
            self.wires.metrics.heard(kind, is_due);
        }
        if is_due {
            self.requested(now);
        }
        let node = self.engine.node();
        self.node_was_known |= node.is_some();
        self.status.node_is_leaving = node.map_or(self.node_was_known, |node| node.is_leaving);
    }

    fn note_host_changed(&mut self) {
        let now = Instant::now();
        self.engine.note_host_changed(now);
        self.requested(now);
    }

    /// Whether an audit is being read: one that is asked for meanwhile waits, as this one may have
    /// passed what it is asked for.
    fn is_auditing(&self) -> bool {
        self.wires.auditor.as_ref().is_some_and(Auditor::is_busy)
    }

    fn ask_for_audit(&mut self) {
        self.engine.ask_for_audit(Instant::now());
        self.log.expect_audit();
    }

    fn reconfigure(&mut self) {
        let new = self.wires.configuration.borrow_and_update().clone();
        let Some(Reconfigured { policy, periods }) = new else { return };
        let now = Instant::now();
        if self.engine.reconfigure(policy, periods, now) {
            self.requested(now);
        }
    }

    fn note_audit(&mut self, told: Told) {
        let now = Instant::now();
        match told {
            Told::Part(part) => {
                if self.engine.note_part(&part, now) {
                    self.requested(now);
                }
            }
            Told::Ended { outcome, took } => {
                self.log.audit(took, &outcome);
                if self.engine.end_audit(outcome, now) {
                    self.wires.metrics.audited(took);
                }
            }
        }
    }

    fn requested(&mut self, now: Instant) {
        // Waiting for the first lists is no delay of ours.
        if self.engine.is_ready() {
            self.status.requested(now);
            self.wires.metrics.queued();
        }
    }

    fn sync(&mut self) -> Report {
        let started = Instant::now();
        self.wires.metrics.begin_sync();
        // A sync that hangs is to be seen from outside.
        self.status.requested(started);
        self.publish();
        if let Some(auditor) = &mut self.wires.auditor
            && auditor.is_idle()
            && self.engine.begin_audit(started)
        {
            auditor.begin();
        }
        let report = self.engine.sync(&mut self.kernel, Instant::now);
        let took = started.elapsed();
        let rejected = self.engine.rejected();
        let end = (Instant::now(), SystemTime::now());
        self.status.synced(&report, self.engine.state().0, end);
        self.status.node_addresses = self.engine.listening();
        self.wires.metrics.observe(&report, took);
        let defaulted = rejected.iter().filter(|one| one.cause.leaves_default()).count();
        let number = rejected.len() - defaulted;
        self.wires.metrics.rejected(number, defaulted);
        let news = self.known.update(&report, rejected);
        self.log.sync(&report, took, number, &news);
        news.events().into_iter().for_each(|event| self.wires.events.tell(event));
        self.log.left_behind(&report, self.engine.state());
        self.publish();
        self.tell_drains();
        report
    }

    fn tell_drains(&mut self) {
        let drains = self.engine.drains();
        if self.drains_told != drains.revision() {
            self.drains_told = drains.revision();
            self.wires.drains.send_replace(drains.deadlines().collect());
        }
    }

    fn publish(&self) {
        self.wires.publish.send_if_modified(|published| {
            let is_news = self.status.is_news_after(published);
            if *published != self.status {
                published.clone_from(&self.status);
            }
            is_news
        });
    }
}

/// What the auditor tells next; nothing, for ever, if there is none.
async fn told(auditor: &mut Option<Auditor>) -> Option<Told> {
    match auditor {
        Some(auditor) => auditor.told().await,
        None => std::future::pending().await,
    }
}

async fn until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due.into()).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests;
