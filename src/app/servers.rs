//! The servers that the configuration asks for: health, metrics, health checks of Services.

use std::sync::Arc;
use std::time::SystemTime;

use serde_json::Value;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::certificate;
use crate::config::Config;
use crate::config::flags::Given;
use crate::config::layers::Loaded;
use crate::reconcile::status::Status;
use crate::reconcile::view::Question;
use crate::serve::health::Health;
use crate::serve::listen::Place;
use crate::serve::systemd::Manager;
use crate::serve::tls::Transport;
use crate::serve::zpages::Pages;
use crate::serve::{listen, metrics, service_health, status as status_socket};
use crate::telemetry::events::Sink;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::refused::Refused;

/// Running servers; they stop when told to, or with the daemon.
pub(super) struct Servers {
    sources: Sources,
    tasks: TaskTracker,
    stop: CancellationToken,
    in_force: watch::Sender<InForce>,
}

/// The configuration as it is shown.
struct InForce {
    file: Value,
    flags: Given,
}

impl InForce {
    fn of(loaded: &Loaded) -> Self {
        InForce { file: loaded.effective.clone(), flags: loaded.flags.clone() }
    }
}

/// What the answers are made of.
pub(super) struct Sources {
    pub(super) metrics: Metrics,
    pub(super) status: watch::Receiver<Status>,
    /// Where the loop is asked what is programmed.
    pub(super) ask: mpsc::Sender<Question>,
    /// Files that cannot be used.
    pub(super) refused: Refused,
    /// Where the cluster is told.
    pub(super) events: Sink,
    /// Ends the daemon.
    pub(super) stop: CancellationToken,
    /// Who is told the same as those that ask for health.
    pub(super) manager: Option<Arc<Manager>>,
}

impl Servers {
    /// Starts the servers that are configured.
    pub(super) fn start(loaded: &Loaded, sources: Sources) -> Self {
        let (tasks, stop) = (TaskTracker::new(), sources.stop.child_token());
        let (in_force, _) = watch::channel(InForce::of(loaded));
        let servers = Servers { sources, tasks, stop, in_force };
        servers.serve(&loaded.config);
        servers
    }

    /// Follows another configuration; addresses that stay the same go on being served.
    pub(super) async fn adopt(&mut self, old: &Config, new: &Loaded) {
        self.in_force.send_replace(InForce::of(new));
        if !are_alike(old, &new.config) {
            self.stop.cancel();
            self.wait().await;
            (self.tasks, self.stop) = (TaskTracker::new(), self.sources.stop.child_token());
            self.serve(&new.config);
        }
    }

    /// Waits until they have stopped.
    pub(super) async fn wait(&self) {
        self.tasks.wait().await;
    }

    fn serve(&self, config: &Config) {
        let Sources { metrics: counted, status, ask, refused, events, .. } = &self.sources;
        let period = config.periods.sync;
        let health = Health::new(status.clone(), counted.clone(), refused.clone(), period);
        if let Some(manager) = self.sources.manager.clone() {
            let told = manager.follow(health.clone(), status.clone(), self.stop.clone());
            self.tasks.spawn(told);
        }
        if let Some(address) = config.healthz {
            let setting = "healthz-bind-address";
            let place = Place { setting, address, bind: listen::bind };
            let (answers, stop) =
                (Arc::new(move |path: &str| health.answer(path)), self.stop.clone());
            self.tasks.spawn(listen::serve(place, Transport::Plain, answers, stop, |_| {}));
        }
        let longest_wait = config.periods.sync * 2;
        self.tasks.spawn(service_health::run(
            status.clone(),
            longest_wait,
            events.clone(),
            self.stop.clone(),
        ));
        self.tasks.spawn(status_socket::run(ask.clone(), refused.clone(), self.stop.clone()));
        self.serve_metrics(config);
        self.tasks.close();
    }

    fn serve_metrics(&self, config: &Config) {
        let Some(address) = config.metrics else { return };
        let (counted, in_force) = (self.sources.metrics.clone(), self.in_force.subscribe());
        let refused = self.sources.refused.clone();
        let answers = Arc::new(move |path: &str| {
            let InForce { file, flags } = &*in_force.borrow();
            let (started, refused) = (counted.started(), &refused.lines());
            let page = Pages { started, flags, refused }.answer(path, SystemTime::now());
            page.unwrap_or_else(|| metrics::answer(path, &counted, file))
        });
        let setting = "metrics-bind-address";
        let (place, stop) = (Place { setting, address, bind: listen::bind }, self.stop.clone());
        match config.metrics_tls.clone() {
            None => self.tasks.spawn(listen::serve(place, Transport::Plain, answers, stop, |_| {})),
            Some(files) => self.tasks.spawn(certificate::serve(files, place, answers, stop)),
        };
    }
}

/// Whether the same is served in the same way.
fn are_alike(old: &Config, new: &Config) -> bool {
    let is_same_address = old.healthz == new.healthz && old.metrics == new.metrics;
    is_same_address && old.metrics_tls == new.metrics_tls && old.periods.sync == new.periods.sync
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::layers;
    use crate::config::problem::Problems;

    fn config(flags: &[(&str, &str)]) -> Config {
        let given = flags.iter().map(|(flag, value)| (flag.to_string(), value.to_string()));
        layers::load(&given.collect(), None, "node-1", Problems::default()).unwrap().config
    }

    #[test]
    fn servers_start_anew_for_what_they_serve_otherwise_and_for_nothing_else() {
        const PAIR: [(&str, &str); 2] =
            [("metrics-tls-cert-file", "/tls.crt"), ("metrics-tls-private-key-file", "/tls.key")];
        let authority = [PAIR[0], PAIR[1], ("metrics-client-ca-file", "/ca.crt")];
        let different: [&[(&str, &str)]; 6] = [
            &[],
            &PAIR,
            &authority,
            &[("metrics-bind-address", "127.0.0.1:1")],
            &[("healthz-bind-address", "127.0.0.1:1")],
            &[("ipvs-sync-period", "1m")],
        ];
        for (i, one) in different.iter().enumerate() {
            for (j, other) in different.iter().enumerate() {
                assert_eq!(are_alike(&config(one), &config(other)), i == j, "{one:?} {other:?}");
            }
        }
        assert!(are_alike(&config(&[]), &config(&[("cluster-cidr", "10.0.0.0/8"), ("v", "2")])));
    }
}
