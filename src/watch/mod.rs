//! The edge towards the cluster: objects of a source in, [`Update`]s out, and Events back.
//!
//! ```text
//!  API server ──api──────┐
//!                        ├──▶ cluster::objects::read ──▶ bounded channel ──▶ reconcile
//!  folder ──manifests────┘
//! ```
//! The only code that knows how objects reach us; what they mean is decided in `cluster`.
//! Invariant: each source lists every [`Kind`](crate::cluster::Kind), those it lacks as empty,
//! and never reports a list as done before all of it was sent.

pub mod api;
pub mod changes;
mod error;
pub mod files;
pub mod manifests;

use tokio::sync::mpsc::Sender;
use tokio_util::sync::CancellationToken;

use self::api::events::Recorder;
pub use self::error::Error;
use crate::cluster::Update;
use crate::telemetry::metrics::Metrics;

/// Where the cluster's objects come from.
pub enum Source {
    /// An API server.
    Api(Box<api::ApiSource>),
    /// A folder of manifest files.
    Manifests(Box<manifests::ManifestSource>),
}

impl Source {
    /// Who writes Events, where there is an API server to write them to.
    pub fn recorder(&self, metrics: &Metrics) -> Option<Recorder> {
        match self {
            Source::Api(source) => Some(source.recorder(metrics.clone())),
            Source::Manifests(_) => None,
        }
    }

    /// Sends updates until told to stop or until nobody receives them.
    ///
    /// Whatever happens to the source later is waited for; only a source that cannot start fails.
    pub async fn run(
        self,
        updates: Sender<Update>,
        shutdown: CancellationToken,
    ) -> Result<(), Error> {
        let running = async {
            match self {
                Source::Api(source) => {
                    source.run(updates).await;
                    Ok(())
                }
                Source::Manifests(source) => source.run(&updates).await,
            }
        };
        shutdown.run_until_cancelled(running).await.unwrap_or(Ok(()))
    }
}

/// Nobody receives updates any more: the program is ending.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct ReceiverGone;

async fn send(updates: &Sender<Update>, update: Update) -> Result<(), ReceiverGone> {
    updates.send(update).await.map_err(|_| ReceiverGone)
}
