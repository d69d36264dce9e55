//! From flags to configuration: every check, also those across flags.
//!
//! Invariant: nothing is read but the arguments; all problems are found in one go.

mod policy;
mod serve;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use super::flags::{DaemonFlags, HostFlags, PeriodFlags, RunFlags, SourceFlags};
use super::problem::{Name, Problem, Problems};
use super::{Config, EndpointsSource, Periods, Policy, RenderConfig, Run, SourceConfig, value};
use crate::model::observed::Host;
use crate::spelling::nearest;

const ENDPOINTS_SOURCES: [&str; 3] = ["auto", "endpointslices", "endpoints"];

/// Kernel: names of interfaces have 15 letters at most; in a prefix one is taken by the `+`.
const LONGEST_INTERFACE: usize = 15;

/// Most of `-v`.
const MOST_VERBOSE: u8 = 10;

/// Lowest and highest score of the kernel's choice of what to end when memory is short.
const OOM_SCORES: (i16, i16) = (-1000, 1000);

/// Where values come from that no flag gave: flags without dashes, and the fields of a file.
pub type Origins = BTreeMap<&'static str, Name>;

/// Resolves the flags of the daemon; `problems` were found before.
pub fn daemon(
    flags: &DaemonFlags,
    os_host_name: &str,
    problems: Problems,
) -> Result<Config, Problems> {
    with_origins(flags, Origins::default(), os_host_name, problems)
}

/// The same, with problems that name where values come from.
pub fn with_origins(
    flags: &DaemonFlags,
    origins: Origins,
    os_host_name: &str,
    problems: Problems,
) -> Result<Config, Problems> {
    let mut resolver = Resolver { problems, origins };
    let policy = resolver.policy(&flags.policy, os_host_name);
    let periods = resolver.periods(&flags.periods);
    let source = resolver.source(&flags.source);
    let (healthz, metrics) = resolver.addresses(&flags.serve);
    let metrics_tls = resolver.metrics_tls(&flags.serve);
    let score = &flags.run.oom_score_adj;
    let oom_score = resolver.take("oom-score-adj", score, value::score(score, OOM_SCORES));
    resolver.bind_address(&flags.accepted.bind_address);
    let run = resolver.run(&flags.run);
    let removes_leftovers = resolver.truth("remove-leftovers", &flags.run.remove_leftovers);
    let verbosity = resolver.take("v", &flags.run.v, value::number(&flags.run.v, MOST_VERBOSE));
    let config = || {
        Some(Config {
            policy: Policy { removes_leftovers: removes_leftovers?, ..policy? },
            periods: periods?,
            source: source?,
            healthz,
            metrics,
            metrics_tls,
            oom_score: oom_score?,
            verbosity: verbosity?,
            run: run?,
            state: path(&flags.run.state_dir),
            write_to: path(&flags.run.write_config_to),
        })
    };
    config().filter(|_| resolver.problems.is_empty()).ok_or(resolver.problems)
}

/// Resolves the flags that `render` alone has, beside the policy of a configuration that was right;
/// `problems` were found before.
pub fn render(
    policy: Option<Policy>,
    flags: &HostFlags,
    manifests: Option<&str>,
    origins: Origins,
    problems: Problems,
) -> Result<RenderConfig, Problems> {
    let mut resolver = Resolver { problems, origins };
    let host = resolver.host(flags);
    let manifests = manifests.and_then(path);
    if manifests.is_none() {
        resolver.complain("manifests", "", "must name the folder to render");
    }
    match (policy, manifests, host) {
        (Some(policy), Some(manifests), Some(host)) if resolver.problems.is_empty() => {
            Ok(RenderConfig { policy, manifests, host })
        }
        _ => Err(resolver.problems),
    }
}

/// Resolves flag by flag and collects what is wrong; `None` stands for a value with a problem.
struct Resolver {
    problems: Problems,
    origins: Origins,
}

impl Resolver {
    fn host(&mut self, flags: &HostFlags) -> Option<Host> {
        let text = &flags.node_addresses;
        let addresses = self.take("node-addresses", text, value::addresses(text));
        let text = &flags.node_families;
        let families = self.take("node-families", text, value::families(text));
        let text = &flags.kernel_version;
        let kernel = self.take("kernel-version", text, value::version(text));
        let random_fully = self.truth("iptables-random-fully", &flags.iptables_random_fully);
        let text = &flags.router_advertised;
        let names = value::interfaces(text, LONGEST_INTERFACE);
        let router_advertised = self.take("router-advertised", text, names);
        Some(Host {
            families: families?,
            kernel: kernel?,
            random_fully: random_fully?,
            router_advertised: router_advertised?,
            addresses: addresses?,
            // No flag tells them, as what they decide is the machine's and not the node's.
            cpus: 0,
            conntrack_buckets: None,
            // It decides nothing.
            iptables: String::new(),
            iptables_version: None,
        })
    }

    fn periods(&mut self, flags: &PeriodFlags) -> Option<Periods> {
        let sync = self.positive("ipvs-sync-period", &flags.ipvs_sync_period);
        let text = &flags.ipvs_min_sync_period;
        let min_sync = self.take("ipvs-min-sync-period", text, value::duration(text));
        let audit = self.positive("audit-period", &flags.audit_period);
        let (sync, min_sync) = (sync?, min_sync?);
        if min_sync > sync {
            let (name, period) = (self.name("ipvs-sync-period"), &flags.ipvs_sync_period);
            let complaint = format!("must not be longer than {name}={period}");
            self.complain("ipvs-min-sync-period", text, complaint);
        }
        Some(Periods { sync, min_sync, audit: audit? })
    }

    fn source(&mut self, flags: &SourceFlags) -> Option<SourceConfig> {
        let endpoints = self.endpoints_source(&flags.endpoints_source);
        let master = self.take("master", &flags.master, value::server_url(&flags.master));
        let (endpoints, master) = (endpoints?, master?);
        let kubeconfig = path(&flags.kubeconfig);
        let Some(folder) = path(&flags.manifests) else {
            return Some(SourceConfig::ApiServer { kubeconfig, master, endpoints });
        };
        for (flag, text) in [("kubeconfig", &flags.kubeconfig), ("master", &flags.master)] {
            if !text.is_empty() {
                let manifests = self.name("manifests");
                let complaint = format!("objects come from {manifests}; allowed is one of the two");
                self.complain(flag, text, complaint);
            }
        }
        if endpoints != EndpointsSource::Auto {
            let manifests = self.name("manifests");
            let complaint = format!("is of no use with {manifests}, where both kinds are read");
            self.complain("endpoints-source", &flags.endpoints_source, complaint);
        }
        Some(SourceConfig::Manifests(folder))
    }

    fn endpoints_source(&mut self, text: &str) -> Option<EndpointsSource> {
        match self.choose("endpoints-source", text, &ENDPOINTS_SOURCES, "auto")? {
            "endpointslices" => Some(EndpointsSource::EndpointSlices),
            "endpoints" => Some(EndpointsSource::Endpoints),
            _ => Some(EndpointsSource::Auto),
        }
    }

    fn run(&mut self, flags: &RunFlags) -> Option<Run> {
        let once = self.truth("once", &flags.once);
        let cleanup = self.truth("cleanup", &flags.cleanup);
        let init_only = self.truth("init-only", &flags.init_only);
        let asked = [("once", once), ("cleanup", cleanup), ("init-only", init_only)];
        if !flags.write_config_to.is_empty() {
            for (flag, _) in asked.into_iter().filter(|(_, is_asked)| *is_asked == Some(true)) {
                self.complain(flag, "true", "cannot go with --write-config-to, which only writes");
            }
        }
        match (once?, cleanup?, init_only?) {
            (false, false, false) => Some(Run::Daemon),
            (true, false, false) => Some(Run::Once),
            (false, true, false) => Some(Run::Cleanup),
            (false, false, true) => Some(Run::InitOnly),
            (true, true, _) => {
                self.complain("once", &flags.once, "cannot go with --cleanup");
                None
            }
            _ => {
                let complaint = "cannot go with --once or --cleanup";
                self.complain("init-only", &flags.init_only, complaint);
                None
            }
        }
    }

    fn truth(&mut self, flag: &'static str, text: &str) -> Option<bool> {
        self.take(flag, text, value::truth(text))
    }

    fn positive(&mut self, flag: &'static str, text: &str) -> Option<Duration> {
        let duration = self.take(flag, text, value::duration(text))?;
        if duration.is_zero() {
            self.complain(flag, text, "must be longer than 0");
        }
        Some(duration)
    }

    /// One of some names; empty is the default, as in kube-proxy.
    fn choose(
        &mut self,
        flag: &'static str,
        given: &str,
        names: &[&'static str],
        default: &'static str,
    ) -> Option<&'static str> {
        if given.is_empty() {
            return Some(default);
        }
        let known = names.iter().copied().find(|name| *name == given);
        if known.is_none() {
            self.problems.add(Problem {
                name: self.name(flag),
                given: Some(given.to_string()),
                complaint: format!("must be one of {}", names.join(", ")),
                nearest: nearest(given, names).map(String::from),
            });
        }
        known
    }

    /// The value, or its complaint noted.
    fn take<T>(&mut self, flag: &'static str, given: &str, parsed: Result<T, String>) -> Option<T> {
        parsed.map_err(|complaint| self.complain(flag, given, complaint)).ok()
    }

    fn complain(&mut self, flag: &'static str, given: &str, complaint: impl Into<String>) {
        self.problems.complain(self.name(flag), given, complaint);
    }

    /// Adds to a complaint what the value is needed for.
    fn needed<T>(&self, parsed: Result<T, String>, flag: &str, mode: &str) -> Result<T, String> {
        parsed.map_err(|complaint| format!("{complaint}; {}={mode} needs it", self.name(flag)))
    }

    /// What a person calls the place that a value comes from.
    fn name(&self, flag: &str) -> Name {
        self.origins.get(flag).cloned().unwrap_or_else(|| Name::Flag(flag.to_string()))
    }
}

fn path(text: &str) -> Option<PathBuf> {
    (!text.is_empty()).then(|| PathBuf::from(text))
}

#[cfg(test)]
mod tests;
