//! Opens the edges: the kernel, and the source of the cluster's objects.

use crate::config::{Config, EndpointsSource, SourceConfig};
use crate::kernel::linux::LinuxKernel;
use crate::kernel::{Error, Failure, Kernel};
use crate::model::observed::{Observed, Scope};
use crate::plan::step::Step;
use crate::telemetry::metrics::Metrics;
use crate::watch::api::{self, ApiSettings, ApiSource};
use crate::watch::{self, Source};

/// The name of this machine, empty if it has none.
pub(super) fn host_name() -> String {
    let name = nix::unistd::gethostname().unwrap_or_default();
    name.to_string_lossy().into_owned()
}

/// Opens the kernel; the error names what is missing and what to do.
pub(super) fn open_kernel() -> Result<LinuxKernel, Error> {
    LinuxKernel::new()
}

/// Opens the source of objects; nothing is read yet.
pub(super) async fn open_source(config: &Config) -> Result<Source, watch::Error> {
    match &config.source {
        SourceConfig::Manifests(folder) => {
            // Known at once, rather than after the host was looked at.
            let readable = std::fs::read_dir(folder).map(drop);
            readable.map_err(|source| watch::Error::Folder { path: folder.clone(), source })?;
            Ok(Source::Manifests(folder.clone()))
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
                ..ApiSettings::default()
            };
            ApiSource::connect(settings).await.map(|source| Source::Api(Box::new(source)))
        }
    }
}

/// The kernel, with what is done to it counted.
pub(super) struct Counted {
    pub(super) kernel: LinuxKernel,
    pub(super) metrics: Metrics,
}

impl Counted {
    fn count(&self) {
        let activity = self.kernel.activity();
        let writes = activity.netlink_writes + activity.setting_writes;
        self.metrics.activity(writes, activity.programs);
    }
}

impl Kernel for Counted {
    fn observe(&mut self, scope: &Scope) -> Result<Observed, Error> {
        let observed = self.kernel.observe(scope);
        self.count();
        observed
    }

    fn apply(&mut self, step: &Step) -> Vec<Failure> {
        let failures = self.kernel.apply(step);
        self.count();
        failures
    }
}
