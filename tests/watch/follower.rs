//! The receiving end of a source: folds its updates into a store and waits for conditions.

use std::collections::BTreeSet;
use std::time::Duration;

use kube_ipvs_proxy::cluster::store::Store;
use kube_ipvs_proxy::cluster::{Kind, Update};
use kube_ipvs_proxy::watch::{Error, Source};
use tokio::sync::mpsc::{self, Receiver};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::golden;

/// How long a condition may take; only failing tests wait for it.
pub const DEADLINE: Duration = Duration::from_secs(20);

/// A running source and the store of what it sent.
pub struct Follower {
    /// What the source has said so far.
    pub store: Store,
    /// Names and kinds of the updates received, for what a state cannot show.
    pub log: Vec<String>,
    updates: Receiver<Update>,
    shutdown: CancellationToken,
    running: JoinHandle<Result<(), Error>>,
}

impl Follower {
    /// Runs a source.
    pub fn start(source: Source) -> Self {
        // A small channel, so that sources wait for the receiver in every test.
        let (sender, updates) = mpsc::channel(4);
        let shutdown = CancellationToken::new();
        let running = tokio::spawn(source.run(sender, shutdown.clone()));
        Follower { store: Store::new(&Kind::ALL), log: Vec::new(), updates, shutdown, running }
    }

    /// Folds updates until the condition holds.
    pub async fn until(&mut self, what: &str, condition: impl Fn(&Store) -> bool) {
        let folded = timeout(DEADLINE, async {
            while !condition(&self.store) {
                let update = self.updates.recv().await.expect("the source ended");
                self.note(&update);
                self.store.apply(update);
            }
        });
        if folded.await.is_err() {
            panic!("not within {DEADLINE:?}: {what}\n{:#?}", golden::lines(&self.store));
        }
    }

    /// Folds updates until the store is complete and says just this.
    pub async fn until_lines(&mut self, what: &str, lines: &BTreeSet<String>) {
        let folded = timeout(DEADLINE, async {
            while !(self.store.is_complete() && golden::lines(&self.store) == *lines) {
                let update = self.updates.recv().await.expect("the source ended");
                self.note(&update);
                self.store.apply(update);
            }
        });
        if folded.await.is_err() {
            let found = golden::lines(&self.store);
            let missing: Vec<_> = lines.difference(&found).collect();
            let surplus: Vec<_> = found.difference(lines).collect();
            panic!("not within {DEADLINE:?}: {what}\nmissing {missing:#?}\nsurplus {surplus:#?}");
        }
    }

    /// Folds updates until the other condition, outside of the store, holds.
    pub async fn until_true(&mut self, what: &str, mut condition: impl FnMut(&[String]) -> bool) {
        let folded = timeout(DEADLINE, async {
            let mut look = tokio::time::interval(Duration::from_millis(2));
            while !condition(&self.log) {
                tokio::select! {
                    _ = look.tick() => {}
                    update = self.updates.recv() => {
                        let update = update.expect("the source ended");
                        self.note(&update);
                        self.store.apply(update);
                    }
                }
            }
        });
        folded.await.unwrap_or_else(|_| panic!("not within {DEADLINE:?}: {what}"));
    }

    /// Stops the source and takes what is left; it must end without an error.
    pub async fn stop(mut self) {
        self.shutdown.cancel();
        let ended = timeout(DEADLINE, &mut self.running).await;
        ended.expect("the source does not stop").unwrap().unwrap();
    }

    fn note(&mut self, update: &Update) {
        self.log.push(match update {
            Update::ListStarted(kind) => format!("{kind} list started"),
            Update::Applied(kind, name, _) => format!("{kind} {name} applied"),
            Update::Deleted(kind, name) => format!("{kind} {name} deleted"),
            Update::ListDone(kind) => format!("{kind} list done"),
            Update::ListIncomplete(kind) => format!("{kind} list incomplete"),
        });
    }
}
