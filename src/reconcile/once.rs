//! One run to completion, for `--once`: wait for the lists, sync until all is in place, stop.

use std::time::Duration;

use super::engine::Engine;
use super::report::Report;
use super::{Cycle, Ended, Wires, runtime};
use crate::kernel::Kernel;

/// How long one run tries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// Longest wait for the first list of every kind.
    pub lists: Duration,
    /// Most syncs, until one has no failure.
    pub attempts: u32,
}

/// Why there was no sync at all.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The lists did not come.
    #[error("the cluster did not tell everything within {0:?}")]
    NoLists(Duration),
    /// The loop was stopped, or its source ended.
    #[error("stopped before the first sync: {0:?}")]
    Ended(Ended),
    /// The thread could not wait.
    #[error("cannot start a timer")]
    Timer(#[from] std::io::Error),
}

/// Syncs until nothing fails, or patience ends; the report sums up all syncs.
pub fn run(
    engine: Engine,
    kernel: impl Kernel,
    wires: Wires,
    patience: Patience,
) -> Result<Report, Error> {
    let mut cycle = Cycle::new(engine, kernel, wires);
    runtime()?.block_on(async {
        let first = tokio::time::timeout(patience.lists, cycle.wait()).await;
        first.map_err(|_| Error::NoLists(patience.lists))?.map_err(Error::Ended)?;
        let mut total = cycle.sync();
        for _ in 1..patience.attempts {
            if total.is_complete() || cycle.wait().await.is_err() {
                break;
            }
            total = cycle.sync().after(total);
        }
        Ok(total)
    })
}
