//! Opens the edges: the kernel, and the source of the cluster's objects.

use std::collections::BTreeSet;
use std::io;
use std::path::PathBuf;
use std::thread::JoinHandle;
use std::time::Instant;

use tracing::{Level, debug, enabled, warn};

use crate::config::{Config, EndpointsSource, SourceConfig};
use crate::kernel::linux::{LinuxKernel, Programs};
use crate::kernel::{Error, Failure, Kernel, listeners};
use crate::model::observed::{Observed, Scope};
use crate::plan::drain::Deadline;
use crate::plan::step::Step;
use crate::reconcile::engine::Engine;
use crate::state;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::refused::Refused;
use crate::watch::api::{self, ApiSettings, ApiSource};
use crate::watch::changes::Limits;
use crate::watch::manifests::ManifestSource;
use crate::watch::{self, Source};

/// The name of this machine, empty if it has none.
pub(super) fn host_name() -> String {
    let name = nix::unistd::gethostname().unwrap_or_default();
    name.to_string_lossy().into_owned()
}

/// Where the kernel reads how readily it ends this process when memory is short.
const OOM_SCORE: &str = "/proc/self/oom_score_adj";

/// Makes the process one that the kernel ends as readily as configured.
///
/// Parity: to go on without is better than not to serve.
pub(super) fn set_oom_score(score: i16) {
    if let Err(error) = std::fs::write(OOM_SCORE, score.to_string()) {
        let error = error.to_string();
        warn!(value = score, error, "cannot set the OOM score, needs CAP_SYS_RESOURCE");
    }
}

/// Opens the kernel; the error names what is missing and what to do.
pub(super) fn open_kernel(metrics: Metrics) -> Result<Counted, Error> {
    let mut opened = open_kernel_beside(metrics)?;
    opened.kernel.remove_halves()?;
    Ok(opened)
}

/// The same for a run that has no lock: what is half made may be a daemon's that is at it.
pub(super) fn open_kernel_beside(metrics: Metrics) -> Result<Counted, Error> {
    let kernel = LinuxKernel::new()?;
    warn_of_kube_proxy();
    Ok(Counted { kernel, metrics })
}

/// Says so if kube-proxy seems to run beside us.
fn warn_of_kube_proxy() {
    match listeners::port_of_kube_proxy() {
        Ok(None) => {}
        Ok(Some(port)) => {
            warn!(port, "kube-proxy may run, two proxies undo each other's work: stop it");
        }
        Err(error) => warn!(%error, "cannot tell whether kube-proxy runs"),
    }
}

/// Opens the source of objects; nothing is read yet.
pub(super) async fn open_source(
    config: &Config,
    refused: &Refused,
) -> Result<Source, watch::Error> {
    match &config.source {
        SourceConfig::Manifests(folder) => {
            // Known at once, rather than after the host was looked at.
            let readable = std::fs::read_dir(folder).map(drop);
            readable.map_err(|source| watch::Error::Folder { path: folder.clone(), source })?;
            Ok(Source::Manifests(Box::new(ManifestSource {
                folder: folder.clone(),
                node_name: config.policy.node_name.to_string(),
                refused: refused.clone(),
                limits: Limits::default(),
            })))
        }
        SourceConfig::ApiServer { kubeconfig, master, endpoints } => {
            let settings = ApiSettings {
                kubeconfig: kubeconfig.clone(),
                master: master.clone(),
                node_name: config.policy.node_name.to_string(),
                endpoints: match endpoints {
                    EndpointsSource::Auto => api::EndpointsSource::Auto,
                    EndpointsSource::EndpointSlices => api::EndpointsSource::Slices,
                    EndpointsSource::Endpoints => api::EndpointsSource::Endpoints,
                },
                refused: refused.clone(),
                ..ApiSettings::default()
            };
            ApiSource::connect(settings).await.map(|source| Source::Api(Box::new(source)))
        }
    }
}

/// The file of what a restart is to know, if any is kept.
pub(super) fn state_file(config: &Config) -> io::Result<Option<PathBuf>> {
    config.state.as_deref().map(state::path).transpose()
}

/// Tells the engine the deadlines of the run before, and starts who keeps those of this one.
pub(super) fn keep_drains(
    config: &Config,
    engine: &mut Engine,
    latest: tokio::sync::watch::Receiver<Vec<Deadline>>,
) -> io::Result<Option<JoinHandle<()>>> {
    let Some(path) = state_file(config)? else { return Ok(None) };
    engine.remember(state::recall(&path));
    state::keep(path, latest).map(Some)
}

/// The kernel, with what is done to it counted, and logged change by change.
pub(super) struct Counted {
    kernel: LinuxKernel,
    metrics: Metrics,
}

impl Counted {
    /// The programs that are used.
    pub(super) fn programs(&self) -> Programs {
        self.kernel.programs()
    }

    fn count(&self, operation: &'static str, start: Instant) {
        self.metrics.spent(operation, start.elapsed());
        let activity = self.kernel.activity();
        let writes = activity.netlink_writes + activity.setting_writes;
        self.metrics.activity(writes, activity.programs);
    }
}

impl Kernel for Counted {
    fn observe(&mut self, scope: &Scope) -> Result<Observed, Error> {
        let start = Instant::now();
        let observed = self.kernel.observe(scope);
        self.count("observe", start);
        observed
    }

    fn read_ahead(&mut self) {
        let start = Instant::now();
        self.kernel.read_ahead();
        self.count("read_ahead", start);
    }

    fn apply(&mut self, step: &Step) -> Vec<Failure> {
        let start = Instant::now();
        let failures = self.kernel.apply(step);
        self.count(step.kind(), start);
        log_changes(step, &failures);
        failures
    }
}

/// Logs each change of a step that took effect; the others are named where failures are.
fn log_changes(step: &Step, failures: &[Failure]) {
    if !enabled!(Level::DEBUG) {
        return;
    }
    let failed: BTreeSet<usize> = failures.iter().map(|failure| failure.index).collect();
    let kind = step.kind();
    for (index, line) in step.to_string().lines().enumerate() {
        if !failed.contains(&index) {
            let row = line.strip_prefix(kind).unwrap_or(line).trim_start();
            debug!(kind, row, "changed");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use tracing::Level;

    use super::*;
    use crate::model::link::Binding;
    use crate::plan::step::Change;
    use crate::testing::log::logged;

    #[test]
    fn each_change_that_took_effect_is_a_line() {
        let address = |last| IpAddr::from([10, 96, 0, last]);
        let step = Step::Addresses(vec![
            Change::add(address(1), Binding::ADDRESS),
            Change::add(address(2), Binding::ADDRESS),
            Change::remove(address(3), Binding::ADDRESS),
        ]);
        let failure = Failure { index: 1, error: Error::NotPermitted };
        let lines = logged(Level::DEBUG, || log_changes(&step, &[failure]));
        assert_eq!(
            lines,
            [
                "DEBUG changed kind=\"addresses\" row=\"+ 10.96.0.1\"",
                "DEBUG changed kind=\"addresses\" row=\"- 10.96.0.3\"",
            ]
        );
    }
}
