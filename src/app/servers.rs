//! The servers that the configuration asks for: health, metrics, health checks of Services.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde_json::Value;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::certificate::Kept;
use crate::config::flags::Given;
use crate::config::layers::Loaded;
use crate::config::{Config, TlsFiles};
use crate::reconcile::status::Status;
use crate::reconcile::view::Question;
use crate::serve::health::Health;
use crate::serve::listen::{Answers, Place};
use crate::serve::systemd::Manager;
use crate::serve::tls::Transport;
use crate::serve::zpages::Pages;
use crate::serve::{listen, metrics, service_health, status as status_socket};
use crate::telemetry::events::Sink;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::refused::Refused;

/// The servers that run; they stop when told to, or with the daemon.
pub(super) struct Servers {
    sources: Sources,
    running: Vec<Running>,
    in_force: watch::Sender<InForce>,
}

/// A server as the configuration asks for it: one that is asked for as before goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Wanted {
    /// The service manager is told.
    Manager { period: Duration },
    /// The health address.
    Health { address: SocketAddr, period: Duration },
    /// The health checks of Services.
    ServiceHealth { period: Duration },
    /// The socket of `status`.
    Status,
    /// The metrics address.
    Metrics { address: SocketAddr, tls: Option<TlsFiles> },
}

/// A server at work.
struct Running {
    wanted: Wanted,
    stop: CancellationToken,
    task: JoinHandle<()>,
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
    /// By what the metrics are served, whichever server does so.
    pub(super) certificate: Kept,
}

impl Servers {
    /// Starts the servers that are configured.
    pub(super) fn start(loaded: &Loaded, sources: Sources) -> Self {
        let (in_force, _) = watch::channel(InForce::of(loaded));
        let mut servers = Servers { sources, running: Vec::new(), in_force };
        servers.start_missing(wanted(&loaded.config));
        servers
    }

    /// Follows another configuration; servers that it asks for as before go on, unless they broke
    /// off.
    pub(super) async fn adopt(&mut self, new: &Loaded) {
        self.in_force.send_replace(InForce::of(new));
        let wanted = wanted(&new.config);
        let goes_on =
            |running: &Running| wanted.contains(&running.wanted) && !running.task.is_finished();
        let (stay, go): (Vec<_>, Vec<_>) = self.running.drain(..).partition(goes_on);
        go.iter().for_each(|running| running.stop.cancel());
        // Order: one server may ask for the address that another one leaves.
        ended(go).await;
        self.running = stay;
        self.start_missing(wanted);
    }

    /// Waits until they have stopped.
    pub(super) async fn wait(self) {
        ended(self.running).await;
    }

    fn start_missing(&mut self, wanted: Vec<Wanted>) {
        if !wanted.iter().any(|wanted| matches!(wanted, Wanted::Metrics { tls: Some(_), .. })) {
            self.sources.certificate.forget();
        }
        for wanted in wanted {
            if self.running.iter().all(|running| running.wanted != wanted) {
                let stop = self.sources.stop.child_token();
                let task = self.serve(&wanted, stop.clone());
                self.running.push(Running { wanted, stop, task });
            }
        }
    }

    fn serve(&self, wanted: &Wanted, stop: CancellationToken) -> JoinHandle<()> {
        let Sources { status, ask, refused, events, manager, certificate, .. } = &self.sources;
        match wanted {
            Wanted::Manager { period } => {
                let (health, status) = (self.health(*period), status.clone());
                match manager.clone() {
                    None => tokio::spawn(std::future::ready(())),
                    Some(manager) => tokio::spawn(manager.follow(health, status, stop)),
                }
            }
            Wanted::Health { address, period } => {
                let health = self.health(*period);
                let answers = Arc::new(move |path: &str| health.answer(path));
                tokio::spawn(plain(place("healthz-bind-address", *address), answers, stop))
            }
            Wanted::ServiceHealth { period } => {
                let (status, events) = (status.clone(), events.clone());
                tokio::spawn(service_health::run(status, *period * 2, events, stop))
            }
            Wanted::Status => tokio::spawn(status_socket::run(ask.clone(), refused.clone(), stop)),
            Wanted::Metrics { address, tls } => {
                let (place, answers) = (place("metrics-bind-address", *address), self.metrics());
                match tls.clone() {
                    None => tokio::spawn(plain(place, answers, stop)),
                    Some(files) => {
                        tokio::spawn(certificate.clone().serve(files, place, answers, stop))
                    }
                }
            }
        }
    }

    fn health(&self, period: Duration) -> Health {
        let Sources { metrics, status, refused, .. } = &self.sources;
        Health::new(status.clone(), metrics.clone(), refused.clone(), period)
    }

    fn metrics(&self) -> Answers {
        let (counted, in_force) = (self.sources.metrics.clone(), self.in_force.subscribe());
        let refused = self.sources.refused.clone();
        Arc::new(move |path: &str| {
            let InForce { file, flags } = &*in_force.borrow();
            let (started, refused) = (counted.started(), &refused.lines());
            let page = Pages { started, flags, refused }.answer(path, SystemTime::now());
            page.unwrap_or_else(|| metrics::answer(path, &counted, file))
        })
    }
}

/// The servers that a configuration asks for.
fn wanted(config: &Config) -> Vec<Wanted> {
    let period = config.periods.sync;
    let health = config.healthz.map(|address| Wanted::Health { address, period });
    let tls = &config.metrics_tls;
    let metrics = config.metrics.map(|address| Wanted::Metrics { address, tls: tls.clone() });
    let always = [Wanted::Manager { period }, Wanted::ServiceHealth { period }, Wanted::Status];
    always.into_iter().chain(health).chain(metrics).collect()
}

async fn plain(place: Place, answers: Answers, stop: CancellationToken) {
    listen::serve(place, Transport::Plain, answers, stop, |_| {}).await;
}

fn place(setting: &'static str, address: SocketAddr) -> Place {
    Place { setting, address, bind: listen::bind }
}

/// Waits for servers that are told to stop.
async fn ended(servers: Vec<Running>) {
    for running in servers {
        // One that broke off has ended, too.
        drop(running.task.await);
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::net::Ipv4Addr;

    use tokio::net::TcpStream;
    use tokio::time::{Instant, sleep};
    use tokio_rustls::rustls::pki_types::CertificateDer;

    use super::*;
    use crate::config::layers;
    use crate::config::problem::Problems;
    use crate::testing::port::Port;
    use crate::testing::tls::{Authority, Client, certificate};

    /// Where the servers listen.
    const LOOPBACK: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 3);

    const LIMIT: Duration = Duration::from_secs(10);

    /// How long to wait before looking again.
    const PAUSE: Duration = Duration::from_millis(10);

    fn config(flags: &[(&str, &str)]) -> Config {
        let given = flags.iter().map(|(flag, value)| (flag.to_string(), value.to_string()));
        layers::load(&given.collect(), None, "node-1", Problems::default()).unwrap().config
    }

    #[test]
    fn servers_start_anew_for_what_they_serve_otherwise_and_for_nothing_else() {
        const PAIR: [(&str, &str); 2] =
            [("metrics-tls-cert-file", "/tls.crt"), ("metrics-tls-private-key-file", "/tls.key")];
        let authority = [PAIR[0], PAIR[1], ("metrics-client-ca-file", "/ca.crt")];
        let before = wanted(&config(&PAIR));
        let changed: [(&[(&str, &str)], usize); 8] = [
            (&PAIR, 0),
            (&[PAIR[0], PAIR[1], ("cluster-cidr", "10.0.0.0/8"), ("v", "2")], 0),
            (&[PAIR[0], PAIR[1], ("healthz-bind-address", "127.0.0.1:1")], 1),
            (&[PAIR[0], PAIR[1], ("metrics-bind-address", "127.0.0.1:1")], 1),
            (&[PAIR[0], PAIR[1], ("healthz-bind-address", "")], 0),
            (&[PAIR[0], PAIR[1], ("ipvs-sync-period", "1m")], 3),
            (&authority, 1),
            (&[], 1),
        ];
        for (flags, new) in changed {
            let wanted = wanted(&config(flags));
            let started = wanted.iter().filter(|one| !before.contains(one)).count();
            assert_eq!(started, new, "{flags:?}");
        }
    }

    fn sources(stop: &CancellationToken) -> (Sources, watch::Sender<Status>) {
        let (publish, status) = watch::channel(Status::default());
        let (ask, _) = mpsc::channel(1);
        let metrics = Metrics::new();
        let (events, _) = Sink::new(metrics.clone());
        let (refused, stop) = (Refused::new(metrics.clone()), stop.clone());
        let (manager, certificate) = (None, Kept::new(refused.clone()));
        let sources = Sources { metrics, status, ask, refused, events, stop, manager, certificate };
        (sources, publish)
    }

    /// The configuration of a pair, with its servers at these ports.
    fn loaded(files: &TlsFiles, [healthz, metrics]: [&Port; 2]) -> Loaded {
        let [certificate, key] =
            [&files.certificate, &files.private_key].map(|path| path.display().to_string());
        let flags = [
            ("healthz-bind-address", healthz.address().to_string()),
            ("metrics-bind-address", metrics.address().to_string()),
            ("metrics-tls-cert-file", certificate),
            ("metrics-tls-private-key-file", key),
        ];
        let given = flags.map(|(flag, value)| (flag.to_string(), value)).into();
        layers::load(&given, None, "node-1", Problems::default()).unwrap()
    }

    /// The configuration of metrics without a certificate, and of no health address.
    fn in_plain_text(metrics: &Port) -> Loaded {
        let metrics = metrics.address().to_string();
        let flags = [("healthz-bind-address", ""), ("metrics-bind-address", &metrics)];
        let given = flags.map(|(flag, value)| (flag.to_string(), value.to_string())).into();
        layers::load(&given, None, "node-1", Problems::default()).unwrap()
    }

    fn ports<const N: usize>() -> [Port; N] {
        [(); N].map(|()| Port::of(LOOPBACK))
    }

    /// By what metrics are served, as soon as they are.
    async fn served(client: &Client, port: &Port) -> CertificateDer<'static> {
        let limit = Instant::now() + LIMIT;
        loop {
            match client.get(port.address(), "/metrics").await {
                Ok(answered) => break answered.certificate,
                Err(error) => assert!(Instant::now() < limit, "{error}"),
            }
            sleep(PAUSE).await;
        }
    }

    #[tokio::test]
    async fn a_certificate_in_force_survives_another_configuration() {
        let authority = Authority::new("adopted");
        let (files, client) = (authority.issue("node"), authority.client(None));
        let [healthz, metrics, healthz_after, metrics_after] = ports();
        let stop = CancellationToken::new();
        let (sources, _publish) = sources(&stop);
        let refused = sources.refused.clone();
        let mut servers = Servers::start(&loaded(&files, [&healthz, &metrics]), sources);
        let first = certificate(&files.certificate);
        assert_eq!(served(&client, &metrics).await, first);
        fs::write(&files.certificate, "no certificate").unwrap();
        servers.adopt(&loaded(&files, [&healthz_after, &metrics])).await;
        let answered = client.get(metrics.address(), "/metrics").await;
        assert_eq!(answered.unwrap().certificate, first, "the server of metrics goes on");
        servers.adopt(&loaded(&files, [&healthz_after, &metrics_after])).await;
        assert_eq!(served(&client, &metrics_after).await, first);
        assert_eq!(refused.lines()[0].0, files.certificate.display().to_string());
        stop.cancel();
        servers.wait().await;
        assert_eq!(refused.lines(), []);
    }

    #[tokio::test]
    async fn a_server_that_broke_off_is_started_by_another_configuration() {
        let [port] = ports();
        let loaded = in_plain_text(&port);
        let stop = CancellationToken::new();
        let (sources, _publish) = sources(&stop);
        let mut servers = Servers::start(&loaded, sources);
        let of_metrics = |one: &&mut Running| matches!(one.wanted, Wanted::Metrics { .. });
        let broken = servers.running.iter_mut().find(of_metrics).unwrap();
        broken.task.abort();
        let limit = Instant::now() + LIMIT;
        while !broken.task.is_finished() {
            assert!(Instant::now() < limit, "never ends");
            tokio::task::yield_now().await;
        }
        servers.adopt(&loaded).await;
        while TcpStream::connect(port.address()).await.is_err() {
            assert!(Instant::now() < limit, "never serves");
            sleep(PAUSE).await;
        }
        stop.cancel();
        servers.wait().await;
    }

    #[tokio::test]
    async fn a_certificate_that_no_server_wants_is_forgotten() {
        let authority = Authority::new("unwanted");
        let (files, client) = (authority.issue("node"), authority.client(None));
        let [healthz, metrics] = ports();
        let stop = CancellationToken::new();
        let (sources, _publish) = sources(&stop);
        let refused = sources.refused.clone();
        let mut servers = Servers::start(&loaded(&files, [&healthz, &metrics]), sources);
        assert_eq!(served(&client, &metrics).await, certificate(&files.certificate));
        servers.adopt(&in_plain_text(&metrics)).await;
        fs::write(&files.certificate, "no certificate").unwrap();
        servers.adopt(&loaded(&files, [&healthz, &metrics])).await;
        let limit = Instant::now() + LIMIT;
        while refused.lines().is_empty() {
            assert!(Instant::now() < limit, "never refused");
            sleep(PAUSE).await;
        }
        let refusal = TcpStream::connect(metrics.address()).await.unwrap_err();
        assert_eq!(refusal.kind(), std::io::ErrorKind::ConnectionRefused);
        stop.cancel();
        servers.wait().await;
    }
}
