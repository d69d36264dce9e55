//! The loop's end of the line to whoever reads audits beside the work.

use std::time::Duration;

use tokio::sync::mpsc;

use crate::kernel::Error;
use crate::model::observed::Part;

/// Word of an audit.
#[derive(Debug)]
pub enum Told {
    /// A part of the reading.
    Part(Part),
    /// The reading has ended.
    Ended {
        /// Whether it is whole.
        outcome: Result<(), Error>,
        /// From its begin to its end.
        took: Duration,
    },
}

/// Asks for audits, one at a time, and hears of them.
#[derive(Debug)]
pub struct Auditor {
    begin: mpsc::Sender<()>,
    told: mpsc::Receiver<Told>,
    is_busy: bool,
}

impl Auditor {
    /// The end of a line: `begin` asks for one audit, which `told` tells of until it has ended.
    pub fn new(begin: mpsc::Sender<()>, told: mpsc::Receiver<Told>) -> Self {
        Auditor { begin, told, is_busy: false }
    }

    /// Whether an audit is being read.
    pub(super) fn is_busy(&self) -> bool {
        self.is_busy
    }

    /// Whether the audit before has ended, and another can be asked for.
    pub(super) fn is_idle(&self) -> bool {
        !self.is_busy && !self.begin.is_closed()
    }

    pub(super) fn begin(&mut self) {
        self.is_busy = self.begin.try_send(()).is_ok();
    }

    /// The next word; nothing once nobody will say one.
    pub(super) async fn told(&mut self) -> Option<Told> {
        let told = self.told.recv().await;
        self.is_busy &= !matches!(told, None | Some(Told::Ended { .. }));
        told
    }

    /// The next word, if it is said already.
    pub(super) fn try_told(&mut self) -> Option<Told> {
        let told = self.told.try_recv().ok()?;
        self.is_busy &= !matches!(told, Told::Ended { .. });
        Some(told)
    }
}
