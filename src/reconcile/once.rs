//! One run to completion, for `--once`: wait for the lists, sync until all is in place, stop.

use std::time::Duration;

use tokio::time::{Instant, timeout, timeout_at};

use super::engine::Engine;
use super::report::Report;
use super::{Cycle, Ended, Wires, runtime};
use crate::kernel::Kernel;

/// How long one run tries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// Longest wait for the first list of every kind.
    pub lists: Duration,
    /// Most syncs that fail in part.
    pub attempts: u32,
    /// Longest wait for drains to end, once nothing else is left to do.
    ///
    /// A run that never waited would leave even the short ones to the next.
    pub drains: Duration,
}

/// Why there was no sync at all.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Some lists did not come.
    #[error(
        "no list of {kinds} within {within:?}: \
         check that the API server is reachable and the role may list it"
    )]
    NoLists {
        /// Which lists, in words.
        kinds: String,
        /// How long they were waited for.
        within: Duration,
    },
    /// The loop was stopped, or its source ended.
    #[error("stopped before the first sync: {0:?}")]
    Ended(Ended),
    /// The thread could not wait.
    #[error("cannot start a timer")]
    Timer(#[from] std::io::Error),
}

/// Syncs until nothing fails, is left to do or drains, or patience ends; the report sums up all
/// syncs.
pub fn run(
    engine: Engine,
    kernel: impl Kernel,
    wires: Wires,
    patience: Patience,
) -> Result<Report, Error> {
    let mut cycle = Cycle::new(engine, kernel, wires);
    cycle.kernel.read_ahead();
    runtime()?.block_on(async {
        match timeout(patience.lists, cycle.wait()).await {
            Ok(waited) => waited.map_err(Error::Ended)?,
            Err(_) => return Err(no_lists(&cycle.engine, patience.lists)),
        }
        let report = sync_to_the_end(&mut cycle, patience).await;
        Ok(Report { rejected: cycle.engine.rejected(), ..report })
    })
}

async fn sync_to_the_end(cycle: &mut Cycle<impl Kernel>, patience: Patience) -> Report {
    let drained_by = Instant::now() + patience.drains;
    let mut total = cycle.sync();
    let mut attempts = 1;
    loop {
        let wait = cycle.wait();
        let waited = match (total.is_complete(), total.drains) {
            _ if total.deferred > 0 => wait.await,
            (true, 0) => return total,
            // Where one sync follows the other, no timer gets its turn.
            (true, _) if Instant::now() >= drained_by => return total,
            (true, _) => timeout_at(drained_by, wait).await.unwrap_or(Err(Ended::Stopped)),
            (false, _) if attempts == patience.attempts => return total,
            (false, _) => {
                attempts += 1;
                wait.await
            }
        };
        if waited.is_err() {
            return total;
        }
        total = cycle.sync().after(total);
    }
}

fn no_lists(engine: &Engine, within: Duration) -> Error {
    let kinds: Vec<String> = engine.awaited().map(|kind| kind.to_string()).collect();
    Error::NoLists { kinds: kinds.join(", "), within }
}
