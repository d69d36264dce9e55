//! From flags to configuration: every check, also those across flags.
//!
//! Invariant: nothing is read but the arguments; all problems are found in one go.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use super::flags::{
    ConntrackFlags, DaemonFlags, DrainFlags, HostFlags, PeriodFlags, PolicyFlags, RenderFlags,
    RunFlags, ServeFlags, SourceFlags, TimeoutFlags,
};
use super::problem::{Name, Problem, Problems, nearest};
use super::{
    Config, Conntrack, DetectLocal, DrainTimeouts, EndpointsSource, IpvsTimeouts, Periods, Policy,
    RenderConfig, Run, SourceConfig, TlsFiles, VipBinding, value,
};
use crate::model::ipvs::SCHEDULERS;
use crate::model::observed::Host;

const DETECT_LOCAL_MODES: [&str; 4] =
    ["ClusterCIDR", "NodeCIDR", "BridgeInterface", "InterfaceNamePrefix"];

const VIP_BINDINGS: [&str; 2] = ["address", "route"];

const ENDPOINTS_SOURCES: [&str; 3] = ["auto", "endpointslices", "endpoints"];

/// Kernel: names of interfaces have 15 letters at most; in a prefix one is taken by the `+`.
const LONGEST_INTERFACE: usize = 15;

const HEALTHZ: &str = "healthz-bind-address";

const CERTIFICATE: &str = "metrics-tls-cert-file";

const PRIVATE_KEY: &str = "metrics-tls-private-key-file";

const CLIENT_CA: &str = "metrics-client-ca-file";

/// Most connections that the kernel's setting, a C `int`, can name.
const MOST_CONNECTIONS: u32 = 0x7fff_ffff;

/// Most of `-v`.
const MOST_VERBOSE: u8 = 10;

/// Lowest and highest score of the kernel's choice of what to end when memory is short.
const OOM_SCORES: (i16, i16) = (-1000, 1000);

/// Longest that the kernel takes, a C `int` of seconds in its clock ticks.
///
/// Kernel: it refuses what would overflow at 1000 ticks a second.
const LONGEST_IPVS_TIMEOUT: Duration = Duration::from_secs(0x7fff_ffff / 1000);

/// Longest drain: more than a month is a slip, and the sum with the clock must not overflow.
const LONGEST_DRAIN: Duration = Duration::from_secs(720 * 3600);

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
        let (periods, source) = (periods?, source?);
        let policy = Policy { removes_leftovers: removes_leftovers?, ..policy? };
        let (oom_score, verbosity, run) = (oom_score?, verbosity?, run?);
        let state = path(&flags.run.state_dir);
        let write_to = path(&flags.run.write_config_to);
        Some(Config {
            policy,
            periods,
            source,
            healthz,
            metrics,
            metrics_tls,
            oom_score,
            verbosity,
            run,
            state,
            write_to,
        })
    };
    config().filter(|_| resolver.problems.is_empty()).ok_or(resolver.problems)
}

/// Resolves the flags of `render`; `problems` were found before.
pub fn render(
    flags: &RenderFlags,
    os_host_name: &str,
    problems: Problems,
) -> Result<RenderConfig, Problems> {
    render_with_origins(flags, Origins::default(), os_host_name, problems)
}

/// The same, with problems that name where values come from.
pub fn render_with_origins(
    flags: &RenderFlags,
    origins: Origins,
    os_host_name: &str,
    problems: Problems,
) -> Result<RenderConfig, Problems> {
    let mut resolver = Resolver { problems, origins };
    let policy = resolver.policy(&flags.policy, os_host_name);
    let host = resolver.host(&flags.host);
    let manifests = path(&flags.manifests);
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
    fn policy(&mut self, flags: &PolicyFlags, os_host_name: &str) -> Option<Policy> {
        if !["", "ipvs"].contains(&flags.proxy_mode.as_str()) {
            let complaint = "this program is kube-proxy's ipvs mode only; allowed: ipvs, or empty";
            self.complain("proxy-mode", &flags.proxy_mode, complaint);
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
        let vip_binding = self.vip_binding(&flags.vip_binding);
        let strict_arp = self.truth("ipvs-strict-arp", &flags.ipvs_strict_arp);
        let cidrs = &flags.ipvs_exclude_cidrs;
        let excluded = self.take("ipvs-exclude-cidrs", cidrs, value::ranges(cidrs));
        let ipvs_timeouts = self.ipvs_timeouts(&flags.timeouts);
        let ipvs_estimation = self.truth("ipvs-estimation", &flags.ipvs_estimation);
        let drain_timeouts = self.drain_timeouts(&flags.drains);
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
            ipvs_timeouts: ipvs_timeouts?,
            ipvs_estimation: ipvs_estimation?,
            drain_timeouts: drain_timeouts?,
            vip_binding: vip_binding?,
            conntrack: conntrack?,
            removes_leftovers: false,
        })
    }

    fn ipvs_timeouts(&mut self, flags: &TimeoutFlags) -> Option<IpvsTimeouts> {
        let [tcp, tcp_fin, udp] = [
            ("ipvs-tcp-timeout", &flags.ipvs_tcp_timeout),
            ("ipvs-tcpfin-timeout", &flags.ipvs_tcpfin_timeout),
            ("ipvs-udp-timeout", &flags.ipvs_udp_timeout),
        ]
        .map(|(flag, text)| {
            let time = self.take(flag, text, value::duration(text))?;
            if time > LONGEST_IPVS_TIMEOUT {
                let longest = LONGEST_IPVS_TIMEOUT.as_secs();
                self.complain(flag, text, format!("must not be longer than {longest}s"));
            }
            Some(time)
        });
        Some(IpvsTimeouts { tcp: tcp?, tcp_fin: tcp_fin?, udp: udp? })
    }

    fn drain_timeouts(&mut self, flags: &DrainFlags) -> Option<DrainTimeouts> {
        let [known, vanished] = [
            ("drain-timeout", &flags.drain_timeout),
            ("drain-timeout-vanished", &flags.drain_timeout_vanished),
        ]
        .map(|(flag, text)| {
            let time = self.take(flag, text, value::duration(text))?;
            if time > LONGEST_DRAIN {
                self.complain(flag, text, "must not be longer than 720h");
            }
            Some(time)
        });
        Some(DrainTimeouts { known: known?, vanished: vanished? })
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
            self.complain("hostname-override", given, complaint);
        }
        name
    }

    fn vip_binding(&mut self, text: &str) -> Option<VipBinding> {
        let is_route = self.choose("vip-binding", text, &VIP_BINDINGS, "address")? == "route";
        Some(if is_route { VipBinding::Route } else { VipBinding::Address })
    }

    fn detect_local(&mut self, flags: &PolicyFlags) -> Option<DetectLocal> {
        let (flag, text) = ("detect-local-mode", &flags.detect_local_mode);
        let bridge = &flags.pod_bridge_interface;
        let prefix = &flags.pod_interface_name_prefix;
        let mode = self.choose(flag, text, &DETECT_LOCAL_MODES, "ClusterCIDR");
        match mode.unwrap_or("ClusterCIDR") {
            "NodeCIDR" => Some(DetectLocal::NodeCidr),
            "BridgeInterface" => {
                let name = value::interface(bridge, LONGEST_INTERFACE);
                let name = self.needed(name, flag, "BridgeInterface");
                self.take("pod-bridge-interface", bridge, name).map(DetectLocal::BridgeInterface)
            }
            "InterfaceNamePrefix" => {
                let name = value::interface(prefix, LONGEST_INTERFACE - 1);
                let name = self.needed(name, flag, "InterfaceNamePrefix");
                let name = self.take("pod-interface-name-prefix", prefix, name);
                name.map(DetectLocal::InterfaceNamePrefix)
            }
            _ => {
                let ranges = value::range_per_family(&flags.cluster_cidr);
                let ranges = self.take("cluster-cidr", &flags.cluster_cidr, ranges);
                mode.and(ranges).map(DetectLocal::ClusterCidr)
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

    /// Where health and metrics are served.
    fn addresses(&mut self, flags: &ServeFlags) -> (Option<SocketAddr>, Option<SocketAddr>) {
        let [healthz, metrics] = [
            ("healthz", &flags.healthz_bind_address, &flags.healthz_port),
            ("metrics", &flags.metrics_bind_address, &flags.metrics_port),
        ]
        .map(|(server, text, port)| {
            let [of_address, of_port] = match server {
                "healthz" => [HEALTHZ, "healthz-port"],
                _ => ["metrics-bind-address", "metrics-port"],
            };
            let port = self.take(of_port, port, value::number(port, u16::MAX))?;
            self.take(of_address, text, value::bind_address(text, port)).flatten()
        });
        if healthz.is_some() && healthz == metrics {
            let complaint = format!("is {} too", self.name(HEALTHZ));
            self.complain("metrics-bind-address", &flags.metrics_bind_address, complaint);
        }
        (healthz, metrics)
    }

    /// The files by which metrics are served, none or all that it takes.
    fn metrics_tls(&mut self, flags: &ServeFlags) -> Option<TlsFiles> {
        let [certificate, private_key, client_ca] = [
            &flags.metrics_tls_cert_file,
            &flags.metrics_tls_private_key_file,
            &flags.metrics_client_ca_file,
        ]
        .map(|text| path(text));
        for (flag, text, needed, is_there) in [
            (CERTIFICATE, &flags.metrics_tls_cert_file, PRIVATE_KEY, private_key.is_some()),
            (PRIVATE_KEY, &flags.metrics_tls_private_key_file, CERTIFICATE, certificate.is_some()),
            (CLIENT_CA, &flags.metrics_client_ca_file, CERTIFICATE, certificate.is_some()),
        ] {
            if !text.is_empty() && !is_there {
                let complaint = format!("is of no use without {}", self.name(needed));
                self.complain(flag, text, complaint);
            }
        }
        Some(TlsFiles { certificate: certificate?, private_key: private_key?, client_ca })
    }

    /// Parity: it must be an address although it means nothing.
    fn bind_address(&mut self, text: &str) {
        let parsed = match text.is_empty() || text.parse::<IpAddr>().is_ok() {
            true => Ok(()),
            false => Err("must be an IP address without a port, or empty".to_string()),
        };
        self.take("bind-address", text, parsed);
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
