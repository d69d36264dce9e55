//! The daemon's tasks: started in order, stopped in order.
//!
//! ```text
//!  source task ──updates──▶ reconcile thread ──status──▶ health and metrics tasks
//!  host thread ──changes──▶
//!  audit thread ──parts──▶
//! ```
//! Invariant: whatever ends the daemon, the data plane stays as it is.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::{AbortOnDropHandle, TaskTracker};
use tracing::{info, warn};

use super::edges::{self, Counted};
use super::origin::Origin;
use super::{Exit, audit, host};
use crate::cluster::store::Store;
use crate::cluster::{Kind, Update};
use crate::config::Config;
use crate::config::layers::Loaded;
use crate::kernel::addresses::Changes;
use crate::kernel::lock::{self, Lock};
use crate::reconcile::engine::Engine;
use crate::reconcile::once::{self, Patience};
use crate::reconcile::report::Report;
use crate::reconcile::status::Status;
use crate::reconcile::{self, Ended, HostChanged, Wires};
use crate::serve::health::Health;
use crate::serve::{listen, metrics, service_health};
use crate::telemetry::metrics::Metrics;
use crate::watch::{Error, Source};

/// Updates on their way to the loop; when it is busy, the source waits.
const QUEUE: usize = 1024;

/// How long a sync under way may take to end once we are told to stop.
const LAST_SYNC: Duration = Duration::from_secs(10);

/// How long one run tries.
///
/// Drains of endpoints that are no longer known are over after 10 s.
const PATIENCE: Patience =
    Patience { lists: Duration::from_secs(30), attempts: 5, drains: Duration::from_secs(13) };

/// Runs until a signal, or until something ends that should not.
pub(super) fn run(_origin: &Origin, loaded: Loaded) -> anyhow::Result<Exit> {
    let config = loaded.config;
    edges::set_oom_score(config.oom_score);
    runtime()?.block_on(async {
        // Signals count from the start: a stop while edges open must not be lost.
        let signals = Signals::new()?;
        let mut parts = Parts::open(&config).await?;
        parts.wires.auditor = Some(audit::start()?);
        let stop = parts.wires.stop.clone();
        let servers = serve(&config, &parts.wires.metrics, &parts.status, &stop);
        // Order: what changes after the first look at the host is heard of.
        let changes = Changes::open().context("cannot follow the addresses of the host")?;
        host::follow(changes, parts.host.clone())?;
        let Working { mut source, mut done, lock: _held } = parts.start(reconcile::run)?;
        let outcome = tokio::select! {
            biased;
            name = signals.next() => {
                info!(signal = name, "stopping, the data plane stays in place");
                stop.cancel();
                end_of_loop(&mut done).await
            }
            ended = &mut done => match ended {
                Ok(Ok(Ended::Stopped)) => Ok(()),
                Ok(Ok(Ended::SourceGone)) => Err(why(source.await)),
                Ok(Err(error)) => Err(error).context("cannot run the loop"),
                Err(_) => Err(anyhow::anyhow!("the loop broke off")),
            },
            ended = &mut source => Err(why(ended)),
        };
        stop.cancel();
        servers.wait().await;
        outcome.map(|()| Exit::Done)
    })
}

/// Syncs until all is in place, or patience ends.
pub(super) fn once(config: Config) -> anyhow::Result<Report> {
    runtime()?.block_on(async {
        let parts = Parts::open(&config).await?;
        let job = |engine, kernel, wires| once::run(engine, kernel, wires, PATIENCE);
        let Working { mut source, done, lock: _held } = parts.start(job)?;
        tokio::select! {
            biased;
            ended = done => Ok(ended.context("the loop broke off")??),
            ended = &mut source => Err(why(ended)),
        }
    })
}

/// Waits for the sync that is under way.
async fn end_of_loop(done: &mut oneshot::Receiver<io::Result<Ended>>) -> anyhow::Result<()> {
    match timeout(LAST_SYNC, done).await {
        Ok(_) => Ok(()),
        Err(_) => {
            warn!("the last sync does not end, leaving it");
            Ok(())
        }
    }
}

/// Why the source ended although nobody told it to.
fn why(ended: Result<Result<(), Error>, tokio::task::JoinError>) -> anyhow::Error {
    match ended {
        Ok(Err(error)) => error.into(),
        Ok(Ok(())) => anyhow::anyhow!("the source of objects ended"),
        Err(error) => anyhow::Error::from(error).context("the source of objects broke off"),
    }
}

/// Everything that is opened before anything runs.
struct Parts {
    source: Source,
    engine: Engine,
    kernel: Counted,
    wires: Wires,
    updates: mpsc::Sender<Update>,
    host: mpsc::Sender<HostChanged>,
    status: watch::Receiver<Status>,
    lock: Lock,
}

/// What runs.
struct Working<T> {
    source: AbortOnDropHandle<Result<(), Error>>,
    done: oneshot::Receiver<T>,
    /// Held as long as this process works; a pattern that leaves it out would drop it.
    lock: Lock,
}

impl Parts {
    async fn open(config: &Config) -> anyhow::Result<Self> {
        let source = edges::open_source(config).await?;
        let lock = lock::take()?;
        let metrics = Metrics::new();
        let kernel = edges::open_kernel(metrics.clone())?;
        let store = Store::new(&Kind::ALL);
        let engine = Engine::new(config.policy.clone(), config.periods, store);
        let (sender, updates) = mpsc::channel(QUEUE);
        let (publish, status) = watch::channel(Status::default());
        let (tell, host) = mpsc::channel(1);
        let stop = CancellationToken::new();
        let wires = Wires { updates, host, auditor: None, publish, metrics, stop };
        Ok(Parts { source, engine, kernel, wires, updates: sender, host: tell, status, lock })
    }

    /// Starts the source, and the job on a thread of its own.
    fn start<T: Send + 'static>(
        self,
        job: impl FnOnce(Engine, Counted, Wires) -> T + Send + 'static,
    ) -> io::Result<Working<T>> {
        let Parts { source, engine, kernel, wires, updates, lock, .. } = self;
        let source = tokio::spawn(source.run(updates, wires.stop.clone()));
        let (finished, done) = oneshot::channel();
        let work = move || drop(finished.send(job(engine, kernel, wires)));
        std::thread::Builder::new().name("reconcile".into()).spawn(work)?;
        Ok(Working { source: AbortOnDropHandle::new(source), done, lock })
    }
}

/// Starts the servers that are configured.
fn serve(
    config: &Config,
    counted: &Metrics,
    status: &watch::Receiver<Status>,
    stop: &CancellationToken,
) -> TaskTracker {
    let servers = TaskTracker::new();
    let start = |flag: &'static str, address: Option<SocketAddr>, answers: listen::Answers| {
        if let Some(address) = address {
            let place = listen::Place { setting: flag, address, bind: listen::bind };
            servers.spawn(listen::serve(place, answers, stop.clone()));
        }
    };
    let health = Health::new(status.clone(), counted.clone(), config.periods.sync);
    start("healthz-bind-address", config.healthz, Arc::new(move |path| health.answer(path)));
    let longest_wait = config.periods.sync * 2;
    servers.spawn(service_health::run(status.clone(), longest_wait, stop.clone()));
    let counted = counted.clone();
    let answers = Arc::new(move |path: &str| metrics::answer(path, &counted));
    start("metrics-bind-address", config.metrics, answers);
    servers.close();
    servers
}

/// The signals that ask us to stop.
struct Signals {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        let terminate = signal(SignalKind::terminate())?;
        Ok(Signals { terminate, interrupt: signal(SignalKind::interrupt())? })
    }

    /// Waits for one and tells its name.
    async fn next(mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}

fn runtime() -> io::Result<Runtime> {
    Builder::new_current_thread().enable_all().build()
}
