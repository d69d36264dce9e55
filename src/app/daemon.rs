//! The daemon's tasks: started in order, stopped in order.
//!
//! ```text
//!  source task ──updates──▶ reconcile thread ──status──▶ health and metrics tasks
//!  host thread ──changes──▶
//!  audit thread ──parts──▶
//! ```
//! Invariant: whatever ends the daemon, the data plane stays as it is.

use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Context;
use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tracing::{info, warn};

use super::certificate::Kept;
use super::edges::{self, Counted};
use super::origin::Origin;
use super::reload::Reload;
use super::servers::{Servers, Sources};
use super::{Exit, audit, host};
use crate::causes;
use crate::cluster::store::Store;
use crate::cluster::{Kind, Update};
use crate::config::Config;
use crate::config::file::changes;
use crate::config::layers::Loaded;
use crate::kernel::addresses::Changes;
use crate::kernel::lock;
use crate::reconcile::engine::Engine;
use crate::reconcile::once::{self, Patience};
use crate::reconcile::report::Report;
use crate::reconcile::{self, AuditAsked, Ended, Ends, Reconfigured, Wires};
use crate::serve::systemd::Manager;
use crate::telemetry::SetVerbosity;
use crate::telemetry::events::{Event, Reason, Regarding, Told};
use crate::telemetry::metrics::Metrics;
use crate::telemetry::refused::Refused;
use crate::watch::{Error, Source};

/// How long a sync under way may take to end once we are told to stop.
const LAST_SYNC: Duration = Duration::from_secs(10);

/// How long one run tries.
///
/// Drains of endpoints that are no longer known are over after 10 s, unless told otherwise.
const PATIENCE: Patience =
    Patience { lists: Duration::from_secs(30), attempts: 5, drains: Duration::from_secs(13) };

/// Runs until a signal, or until something ends that should not.
pub(super) fn run(
    origin: &Origin,
    mut loaded: Loaded,
    set_verbosity: &SetVerbosity,
) -> anyhow::Result<Exit> {
    runtime()?.block_on(async {
        let metrics = Metrics::new();
        let refused = Refused::new(metrics.clone());
        // Signals count from the start: a stop while edges open must not be lost.
        let mut around = Around {
            signals: Signals::new()?,
            hang_up: signal(SignalKind::hangup())?,
            reload: Reload::new(origin, refused.clone()),
            certificate: Kept::new(refused.clone()),
            refused,
            manager: Manager::of_environment().map(Arc::new),
            origin,
            set_verbosity,
        };
        let mut source = edges::open_source(&loaded.config, &around.refused).await?;
        let _held = lock::take()?;
        edges::set_oom_score(loaded.config.oom_score);
        loop {
            let opened = Parts::open(&loaded.config, source, metrics.clone())?;
            let life = Life::start(opened, &loaded, &around)?;
            match life.run(&mut loaded, &mut around).await? {
                End::Stopped => return Ok(Exit::Done),
                End::Anew(new, opened) => (loaded, source) = (*new, opened),
            }
        }
    })
}

/// What outlives a configuration.
struct Around<'a> {
    signals: Signals,
    /// Asks for an audit. It is no reason to end: whoever sends it wants what a reload does elsewhere.
    hang_up: Signal,
    reload: Reload<'a>,
    refused: Refused,
    /// The service manager that started us, if one did.
    manager: Option<Arc<Manager>>,
    certificate: Kept,
    origin: &'a Origin,
    set_verbosity: &'a SetVerbosity,
}

impl Around<'_> {
    /// Follows what concerns neither the loop nor the servers; tells what has changed.
    fn adopt(&mut self, old: &Loaded, new: &Loaded) -> String {
        self.reload.accept();
        (self.set_verbosity)(new.config.verbosity);
        edges::set_oom_score(new.config.oom_score);
        self.origin.log(&new.notes);
        changes::between(&old.effective, &new.effective)
    }

    /// Opens the source of another configuration; without it, the one before stays.
    async fn open(&mut self, old: &Loaded, new: &Loaded) -> Option<Source> {
        match edges::open_source(&new.config, &self.refused).await {
            Ok(source) => {
                let changes = self.adopt(old, new);
                info!(
                    changes,
                    "configuration has changed, starting anew, the data plane stays in place"
                );
                Some(source)
            }
            Err(error) => {
                self.reload.refuse(&new.config, &causes::in_words(&error));
                None
            }
        }
    }
}

/// Whether the loop, the source and what is on record can stay; what the source is asked is asked
/// by the node's name.
fn can_change_live(old: &Config, new: &Config) -> bool {
    let is_same_node = old.policy.node_name == new.policy.node_name;
    is_same_node && old.source == new.source && old.state == new.state
}

/// How a life ends well.
enum End {
    /// By a signal.
    Stopped,
    /// Another configuration needs other edges; its source is open.
    Anew(Box<Loaded>, Source),
}

/// The daemon at work with one set of edges.
struct Life {
    servers: Servers,
    source: AbortOnDropHandle<Result<(), Error>>,
    done: oneshot::Receiver<io::Result<Ended>>,
    tell: watch::Sender<Option<Reconfigured>>,
    ask_for_audit: mpsc::Sender<AuditAsked>,
    stop: CancellationToken,
}

impl Life {
    fn start(
        (mut parts, ends): (Parts, Ends),
        loaded: &Loaded,
        around: &Around<'_>,
    ) -> anyhow::Result<Self> {
        parts.wires.auditor = Some(audit::start(parts.kernel.programs())?);
        parts.record(ends.events);
        let Wires { stop, metrics, events, .. } = &parts.wires;
        let sources = Sources {
            metrics: metrics.clone(),
            status: ends.status,
            ask: ends.ask,
            refused: around.refused.clone(),
            events: events.clone(),
            stop: stop.clone(),
            manager: around.manager.clone(),
            certificate: around.certificate.clone(),
        };
        let (stop, servers) = (stop.clone(), Servers::start(loaded, sources));
        // Order: what changes after the first look at the host is heard of.
        let changes = Changes::open().context("cannot follow the addresses of the host")?;
        host::follow(changes, ends.host)?;
        let Working { source, done } = parts.start(ends.updates, reconcile::run)?;
        let Ends { configuration: tell, ask_for_audit, .. } = ends;
        Ok(Life { servers, source, done, tell, ask_for_audit, stop })
    }

    /// Goes on until something ends it; follows what can be changed meanwhile.
    async fn run(mut self, loaded: &mut Loaded, around: &mut Around<'_>) -> anyhow::Result<End> {
        let end = loop {
            tokio::select! {
                biased;
                name = around.signals.next() => {
                    info!(signal = name, "stopping, the data plane stays in place");
                    around.manager.iter().for_each(|manager| manager.stopping());
                    self.end_loop().await;
                    break Ok(End::Stopped);
                }
                Some(()) = around.hang_up.recv() => self.audit(),
                ended = &mut self.done => break Err(match ended {
                    Ok(Ok(Ended::SourceGone)) => why(self.source.await),
                    other => why_loop(other),
                }),
                ended = &mut self.source => break Err(why(ended)),
                new = around.reload.next(loaded) => {
                    if can_change_live(&loaded.config, &new.config) {
                        self.change(loaded, new, around).await;
                    } else if let Some(source) = around.open(loaded, &new).await {
                        break match self.end_loop().await {
                            true => Ok(End::Anew(Box::new(new), source)),
                            false => Err(anyhow::anyhow!("cannot start anew")),
                        };
                    }
                }
            }
        };
        self.stop.cancel();
        self.servers.wait().await;
        end
    }

    fn audit(&self) {
        info!(
            signal = "SIGHUP",
            "an audit is asked for, configuration files are followed without being asked"
        );
        // One that waits to be taken stands for this one too.
        let _ = self.ask_for_audit.try_send(AuditAsked);
    }

    async fn change(&mut self, loaded: &mut Loaded, new: Loaded, around: &mut Around<'_>) {
        let changes = around.adopt(loaded, &new);
        info!(changes, "configuration has changed, and is in force");
        *loaded = new;
        let Config { policy, periods, .. } = &loaded.config;
        self.servers.adopt(loaded).await;
        let reconfigured = Reconfigured { policy: policy.clone(), periods: *periods };
        self.tell.send_replace(Some(reconfigured));
    }

    /// Waits for the sync that is under way; false if it does not end.
    async fn end_loop(&mut self) -> bool {
        self.stop.cancel();
        let has_ended = timeout(LAST_SYNC, &mut self.done).await.is_ok();
        if !has_ended {
            warn!("the last sync does not end, leaving it");
        }
        has_ended
    }
}

/// Syncs until all is in place, or patience ends.
pub(super) fn once(config: Config) -> anyhow::Result<Report> {
    runtime()?.block_on(async {
        let metrics = Metrics::new();
        let source = edges::open_source(&config, &Refused::new(metrics.clone())).await?;
        let _held = lock::take()?;
        let (parts, ends) = Parts::open(&config, source, metrics)?;
        let job = |engine, kernel, wires| once::run(engine, kernel, wires, PATIENCE);
        let Working { mut source, done } = parts.start(ends.updates, job)?;
        tokio::select! {
            biased;
            ended = done => Ok(ended.context("the loop broke off")??),
            ended = &mut source => Err(why(ended)),
        }
    })
}

/// Why the loop ended although nobody told it to.
fn why_loop(ended: Result<io::Result<Ended>, oneshot::error::RecvError>) -> anyhow::Error {
    match ended {
        Ok(Ok(_)) => anyhow::anyhow!("the loop ended"),
        Ok(Err(error)) => anyhow::Error::from(error).context("cannot run the loop"),
        Err(_) => anyhow::anyhow!("the loop broke off"),
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
    /// Who keeps the deadlines of drains across a restart, if anybody.
    keeper: Option<JoinHandle<()>>,
}

/// What runs.
struct Working<T> {
    source: AbortOnDropHandle<Result<(), Error>>,
    done: oneshot::Receiver<T>,
}

impl Parts {
    fn open(config: &Config, source: Source, metrics: Metrics) -> anyhow::Result<(Self, Ends)> {
        let kernel = edges::open_kernel(metrics.clone())?;
        let store = Store::new(&Kind::ALL);
        let mut engine = Engine::new(config.policy.clone(), config.periods, store);
        let (wires, ends) = Wires::new(metrics);
        let keeper = edges::keep_drains(config, &mut engine, ends.drains.clone())?;
        Ok((Parts { source, engine, kernel, wires, keeper }, ends))
    }

    /// Starts who writes Events, if there is an API server; the first says that we have started.
    fn record(&self, events: mpsc::Receiver<Told>) {
        let Some(recorder) = self.source.recorder(&self.wires.metrics) else { return };
        let stop = self.wires.stop.clone();
        tokio::spawn(async move { stop.run_until_cancelled(recorder.run(events)).await });
        let (regarding, reason) = (Regarding::ThisNode, Reason::Starting);
        self.wires.events.tell(Event { regarding, reason, note: String::new() });
    }

    /// Starts the source, and the job on a thread of its own.
    fn start<T: Send + 'static>(
        self,
        updates: mpsc::Sender<Update>,
        job: impl FnOnce(Engine, Counted, Wires) -> T + Send + 'static,
    ) -> io::Result<Working<T>> {
        let Parts { source, engine, kernel, wires, keeper } = self;
        let source = tokio::spawn(source.run(updates, wires.stop.clone()));
        let (finished, done) = oneshot::channel();
        let work = move || {
            let outcome = job(engine, kernel, wires);
            // The wires are gone, so the keeper writes the last deadlines and ends.
            drop(keeper.map(JoinHandle::join));
            drop(finished.send(outcome));
        };
        std::thread::Builder::new().name("reconcile".into()).spawn(work)?;
        Ok(Working { source: AbortOnDropHandle::new(source), done })
    }
}

/// The signals that ask us to stop.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        let terminate = signal(SignalKind::terminate())?;
        Ok(Signals { terminate, interrupt: signal(SignalKind::interrupt())? })
    }

    /// Waits for one and tells its name.
    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}

fn runtime() -> io::Result<Runtime> {
    Builder::new_current_thread().enable_all().build()
}
