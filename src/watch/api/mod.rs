//! Objects from an API server: lists and watches of every kind, for ever.
//!
//! ```text
//!  connect ──client──▶ reflector (one per kind: list, watch, again) ──Update──▶ channel
//!                        │ resource: paths and selectors   │ event: lines of a watch
//!                        │ pace: waits                     │ availability: what is said about it
//!          ──client──▶ events (one task, writes)
//! ```
//! Parity: selectors are those of the reference (spec 1.1).
//! Invariant: the API server is never a reason to stop; what is known stays until it answers.

mod availability;
mod connect;
mod event;
pub mod events;
mod pace;
mod reflector;
mod resource;

use std::path::PathBuf;
use std::sync::Arc;

use futures::future::join4;
use kube::Client;
use tokio::sync::mpsc::Sender;
use tokio::time::sleep;
use tracing::info;

use self::availability::Availability;
pub use self::connect::files_of;
use self::events::Recorder;
use self::pace::Backoff;
pub use self::pace::Timing;
use self::reflector::{Failure, Reflector};
use self::resource::Resource;
use super::{Error, send};
use crate::cluster::{Kind, Update};
use crate::telemetry::metrics::Metrics;
use crate::telemetry::refused::Refused;

/// Which objects tell the endpoints of Services.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum EndpointsSource {
    /// Slices where the API server has them, else core/v1 Endpoints.
    #[default]
    Auto,
    /// `discovery.k8s.io/v1` EndpointSlices.
    Slices,
    /// core/v1 Endpoints.
    Endpoints,
}

/// Which API server, and what to read of it.
#[derive(Debug, Clone, Default)]
pub struct ApiSettings {
    /// The kubeconfig file; without it and `master`, the environment of a pod.
    pub kubeconfig: Option<PathBuf>,
    /// The URL to use instead of the kubeconfig's.
    pub master: Option<String>,
    /// The name of the own Node.
    pub node_name: String,
    /// Which objects tell the endpoints.
    pub endpoints: EndpointsSource,
    /// Where kinds are named that cannot be read.
    pub refused: Refused,
    /// Waits and limits.
    pub timing: Timing,
}

/// An API server to read from.
pub struct ApiSource {
    client: Client,
    node_name: String,
    endpoints: EndpointsSource,
    timing: Timing,
    availability: Arc<Availability>,
}

impl ApiSource {
    /// Reads the configuration; the API server itself is not contacted yet.
    pub async fn connect(settings: ApiSettings) -> Result<Self, Error> {
        let ApiSettings { kubeconfig, master, node_name, endpoints, refused, timing } = settings;
        let (client, address) = connect::client(kubeconfig.as_deref(), master.as_deref()).await?;
        let availability = Arc::new(Availability::new(address, refused));
        Ok(ApiSource { client, node_name, endpoints, timing, availability })
    }

    /// Who writes Events to the same server.
    pub fn recorder(&self, metrics: Metrics) -> Recorder {
        Recorder::new(self.client.clone(), self.node_name.clone(), self.timing, metrics)
    }

    /// Lists and watches every kind until nobody receives the updates.
    pub(super) async fn run(self, updates: Sender<Update>) {
        join4(
            self.reflect(Resource::services(), &updates),
            self.reflect(Resource::node(&self.node_name), &updates),
            self.reflect(Resource::service_cidrs(), &updates),
            self.reflect_endpoints(&updates),
        )
        .await;
    }

    async fn reflect(&self, resource: Resource, updates: &Sender<Update>) {
        Reflector::new(
            self.client.clone(),
            resource,
            updates.clone(),
            self.timing,
            self.availability.clone(),
        )
        .run()
        .await;
    }

    async fn reflect_endpoints(&self, updates: &Sender<Update>) {
        let has_slices = match self.endpoints {
            EndpointsSource::Auto => self.has_slices().await,
            EndpointsSource::Slices => true,
            EndpointsSource::Endpoints => false,
        };
        let (resource, unused) = if has_slices {
            (Resource::endpoint_slices(), Kind::Endpoints)
        } else {
            info!("core/v1 Endpoints are read instead of EndpointSlices");
            (Resource::endpoints(), Kind::EndpointSlice)
        };
        for update in [Update::ListStarted(unused), Update::ListDone(unused)] {
            if send(updates, update).await.is_err() {
                return;
            }
        }
        self.reflect(resource, updates).await;
    }

    /// Asks which API the server has, for as long as it takes to get an answer.
    async fn has_slices(&self) -> bool {
        let kind = Kind::EndpointSlice;
        let mut backoff = Backoff::new(self.timing);
        loop {
            let request = resource::get("/apis/discovery.k8s.io/v1");
            let answer = reflector::within(self.timing.answer, self.client.request_text(request));
            let has_slices = match answer.await {
                Ok(_) => Ok(true),
                Err(Failure::Refused { code: 404, .. }) => Ok(false),
                // Whoever may not ask can still be allowed to read.
                Err(Failure::Refused { code: 401 | 403, .. }) => Ok(true),
                Err(failure) => Err(failure),
            };
            match has_slices {
                Ok(has_slices) => {
                    self.availability.works(kind);
                    return has_slices;
                }
                Err(failure) => self.availability.failed(kind, &failure),
            }
            sleep(backoff.next_wait()).await;
        }
    }
}
