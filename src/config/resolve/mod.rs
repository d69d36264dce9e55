//! From flags to configuration: every check, also those across flags.
//!
//! Invariant: nothing is read but the arguments; all problems are found in one go.

use std::path::PathBuf;
use std::time::Duration;

use super::flags::{
    ConntrackFlags, DaemonFlags, HostFlags, PeriodFlags, PolicyFlags, RenderFlags, RunFlags,
    SourceFlags,
};
use super::problem::{Problem, Problems, nearest};
use super::{
    Config, Conntrack, DetectLocal, EndpointsSource, Periods, Policy, RenderConfig, Run,
    SourceConfig, value,
};
use crate::model::ipvs::SCHEDULERS;
use crate::model::observed::Host;

/// Ports that are appended to addresses without one, as in kube-proxy.
const HEALTHZ_PORT: u16 = 10256;
const METRICS_PORT: u16 = 10249;

const DETECT_LOCAL_MODES: [&str; 4] =
    ["ClusterCIDR", "NodeCIDR", "BridgeInterface", "InterfaceNamePrefix"];

const ENDPOINTS_SOURCES: [&str; 3] = ["auto", "endpointslices", "endpoints"];

/// Kernel: names of interfaces have 15 letters at most; in a prefix one is taken by the `+`.
const LONGEST_INTERFACE: usize = 15;

/// Most connections that the kernel's setting, a C `int`, can name.
const MOST_CONNECTIONS: u32 = 0x7fff_ffff;

/// Most of `-v`.
const MOST_VERBOSE: u8 = 10;

/// Resolves the flags of the daemon; `problems` were found before.
pub fn daemon(
    flags: &DaemonFlags,
    os_host_name: &str,
    problems: Problems,
) -> Result<Config, Problems> {
    let mut resolver = Resolver { problems };
    let policy = resolver.policy(&flags.policy, os_host_name);
    let periods = resolver.periods(&flags.periods);
    let source = resolver.source(&flags.source);
    let [healthz, metrics] = [
        ("healthz-bind-address", &flags.serve.healthz_bind_address, HEALTHZ_PORT),
        ("metrics-bind-address", &flags.serve.metrics_bind_address, METRICS_PORT),
    ]
    .map(|(flag, text, port)| resolver.take(flag, text, value::bind_address(text, port)).flatten());
    if healthz.is_some() && healthz == metrics {
        let text = &flags.serve.metrics_bind_address;
        resolver.problems.complain("metrics-bind-address", text, "is --healthz-bind-address too");
    }
    let run = resolver.run(&flags.run);
    let verbosity = resolver.take("v", &flags.run.v, value::number(&flags.run.v, MOST_VERBOSE));
    match (policy, periods, source, run, verbosity) {
        (Some(policy), Some(periods), Some(source), Some(run), Some(verbosity))
            if resolver.problems.is_empty() =>
        {
            Ok(Config { policy, periods, source, healthz, metrics, verbosity, run })
        }
        _ => Err(resolver.problems),
    }
}

/// Resolves the flags of `render`; `problems` were found before.
pub fn render(
    flags: &RenderFlags,
    os_host_name: &str,
    problems: Problems,
) -> Result<RenderConfig, Problems> {
    let mut resolver = Resolver { problems };
    let policy = resolver.policy(&flags.policy, os_host_name);
    let host = resolver.host(&flags.host);
    let manifests = path(&flags.manifests);
    if manifests.is_none() {
        resolver.problems.complain("manifests", "", "must name the folder to render");
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
}

impl Resolver {
    fn policy(&mut self, flags: &PolicyFlags, os_host_name: &str) -> Option<Policy> {
        if !["", "ipvs"].contains(&flags.proxy_mode.as_str()) {
            let complaint = "this program is kube-proxy's ipvs mode only; allowed: ipvs, or empty";
            self.problems.complain("proxy-mode", &flags.proxy_mode, complaint);
        }
        let node_name = self.node_name(&flags.hostname_override, os_host_name);
        let scheduler = self.choose("ipvs-scheduler", &flags.ipvs_scheduler, &SCHEDULERS, "rr");
        let masquerade_all = self.truth("masquerade-all", &flags.masquerade_all);
        let bit = &flags.iptables_masquerade_bit;
        let masquerade_bit = self.take("iptables-masquerade-bit", bit, value::number(bit, 31));
        let detect_local = self.detect_local(flags);
        let cidrs = &flags.service_cidr;
        let service_cidrs = self.take("service-cidr", cidrs, value::ranges(cidrs));
        let addresses = &flags.nodeport_addresses;
        let node_port_addresses =
            self.take("nodeport-addresses", addresses, value::node_port_addresses(addresses));
        let strict_arp = self.truth("ipvs-strict-arp", &flags.ipvs_strict_arp);
        let excluded = &flags.ipvs_exclude_cidrs;
        let excluded = self.take("ipvs-exclude-cidrs", excluded, value::ranges(excluded));
        let conntrack = self.conntrack(&flags.conntrack);
        Some(Policy {
            node_name: node_name?.into(),
            scheduler: scheduler?.into(),
            strict_arp: strict_arp?,
            excluded: excluded?,
            masquerade_all: masquerade_all?,
            masquerade_bit: masquerade_bit?,
            detect_local: detect_local?,
            service_cidrs: service_cidrs?,
            node_port_addresses: node_port_addresses?,
            conntrack: conntrack?,
        })
    }

    fn conntrack(&mut self, flags: &ConntrackFlags) -> Option<Conntrack> {
        let mut number =
            |flag, text: &str| self.take(flag, text, value::number(text, MOST_CONNECTIONS));
        let max_per_core = number("conntrack-max-per-core", &flags.conntrack_max_per_core);
        let min = number("conntrack-min", &flags.conntrack_min);
        let mut duration = |flag, text: &str| self.take(flag, text, value::duration(text));
        let [tcp_established, tcp_close_wait, udp, udp_stream] = [
            ("conntrack-tcp-timeout-established", &flags.conntrack_tcp_timeout_established),
            ("conntrack-tcp-timeout-close-wait", &flags.conntrack_tcp_timeout_close_wait),
            ("conntrack-udp-timeout", &flags.conntrack_udp_timeout),
            ("conntrack-udp-timeout-stream", &flags.conntrack_udp_timeout_stream),
        ]
        .map(|(flag, text)| duration(flag, text));
        let tcp_be_liberal =
            self.truth("conntrack-tcp-be-liberal", &flags.conntrack_tcp_be_liberal);
        Some(Conntrack {
            max_per_core: max_per_core?,
            min: min?,
            tcp_established: tcp_established?,
            tcp_close_wait: tcp_close_wait?,
            udp: udp?,
            udp_stream: udp_stream?,
            tcp_be_liberal: tcp_be_liberal?,
        })
    }

    fn node_name(&mut self, given: &str, os_host_name: &str) -> Option<String> {
        let chosen = if given.is_empty() { os_host_name } else { given };
        let name = value::node_name(chosen);
        if name.is_none() {
            let complaint = match given.is_empty() {
                true => "is needed: this machine has no host name",
                false => "must be the name of this node, not blank",
            };
            self.problems.complain("hostname-override", given, complaint);
        }
        name
    }

    fn detect_local(&mut self, flags: &PolicyFlags) -> Option<DetectLocal> {
        let (flag, text) = ("detect-local-mode", &flags.detect_local_mode);
        let bridge = &flags.pod_bridge_interface;
        let prefix = &flags.pod_interface_name_prefix;
        match self.choose(flag, text, &DETECT_LOCAL_MODES, "ClusterCIDR")? {
            "NodeCIDR" => Some(DetectLocal::NodeCidr),
            "BridgeInterface" => {
                let name = value::interface(bridge, LONGEST_INTERFACE);
                let name = needed(name, flag, "BridgeInterface");
                self.take("pod-bridge-interface", bridge, name).map(DetectLocal::BridgeInterface)
            }
            "InterfaceNamePrefix" => {
                let name = value::interface(prefix, LONGEST_INTERFACE - 1);
                let name = needed(name, flag, "InterfaceNamePrefix");
                let name = self.take("pod-interface-name-prefix", prefix, name);
                name.map(DetectLocal::InterfaceNamePrefix)
            }
            _ => {
                let ranges = value::range_per_family(&flags.cluster_cidr);
                self.take("cluster-cidr", &flags.cluster_cidr, ranges).map(DetectLocal::ClusterCidr)
            }
        }
    }

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
        })
    }

    fn periods(&mut self, flags: &PeriodFlags) -> Option<Periods> {
        let sync = self.positive("ipvs-sync-period", &flags.ipvs_sync_period);
        let text = &flags.ipvs_min_sync_period;
        let min_sync = self.take("ipvs-min-sync-period", text, value::duration(text));
        let audit = self.positive("audit-period", &flags.audit_period);
        let (sync, min_sync) = (sync?, min_sync?);
        if min_sync > sync {
            let period = &flags.ipvs_sync_period;
            let complaint = format!("must not be longer than --ipvs-sync-period={period}");
            self.problems.complain("ipvs-min-sync-period", text, complaint);
        }
        Some(Periods { sync, min_sync, audit: audit? })
    }

    fn source(&mut self, flags: &SourceFlags) -> Option<SourceConfig> {
        let endpoints = self.endpoints_source(&flags.endpoints_source)?;
        let master = self.take("master", &flags.master, value::server_url(&flags.master))?;
        let kubeconfig = path(&flags.kubeconfig);
        let Some(folder) = path(&flags.manifests) else {
            return Some(SourceConfig::ApiServer { kubeconfig, master, endpoints });
        };
        for (flag, text) in [("kubeconfig", &flags.kubeconfig), ("master", &flags.master)] {
            if !text.is_empty() {
                let complaint = "objects come from --manifests; allowed is one of the two";
                self.problems.complain(flag, text, complaint);
            }
        }
        if endpoints != EndpointsSource::Auto {
            let complaint = "is of no use with --manifests, where both kinds are read";
            self.problems.complain("endpoints-source", &flags.endpoints_source, complaint);
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
        match (once?, cleanup?) {
            (false, false) => Some(Run::Daemon),
            (true, false) => Some(Run::Once),
            (false, true) => Some(Run::Cleanup),
            (true, true) => {
                self.problems.complain("once", &flags.once, "cannot go with --cleanup");
                None
            }
        }
    }

    fn truth(&mut self, flag: &str, text: &str) -> Option<bool> {
        self.take(flag, text, value::truth(text))
    }

    fn positive(&mut self, flag: &str, text: &str) -> Option<Duration> {
        let duration = self.take(flag, text, value::duration(text))?;
        if duration.is_zero() {
            self.problems.complain(flag, text, "must be longer than 0");
        }
        Some(duration)
    }

    /// One of some names; empty is the default, as in kube-proxy.
    fn choose(
        &mut self,
        flag: &str,
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
                flag: flag.to_string(),
                given: Some(given.to_string()),
                complaint: format!("must be one of {}", names.join(", ")),
                nearest: nearest(given, names).map(String::from),
            });
        }
        known
    }

    /// The value, or its complaint noted.
    fn take<T>(&mut self, flag: &str, given: &str, parsed: Result<T, String>) -> Option<T> {
        parsed.map_err(|complaint| self.problems.complain(flag, given, complaint)).ok()
    }
}

/// Adds to a complaint what the value is needed for.
fn needed<T>(parsed: Result<T, String>, flag: &str, mode: &str) -> Result<T, String> {
    parsed.map_err(|complaint| format!("{complaint}; --{flag}={mode} needs it"))
}

fn path(text: &str) -> Option<PathBuf> {
    (!text.is_empty()).then(|| PathBuf::from(text))
}

#[cfg(test)]
mod tests;
