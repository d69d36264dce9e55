//! The command line: kube-proxy's flag names and meanings, and a few of our own.
//!
//! Values stay text here; [`super::resolve`] gives them meaning, so that every problem of a
//! command line is told at once. [`parse`] lists every unknown flag, not only the first.

mod accepted;
mod spelling;

use std::collections::BTreeMap;
use std::ffi::OsString;

use clap::parser::ValueSource;
use clap::{ArgMatches, Args, CommandFactory, FromArgMatches, Parser, Subcommand};

pub use self::accepted::{Accepted, AcceptedFlags, accepted};
use self::spelling::{suggest_folder, with_command_first, without_unknown};
use super::problem::Problems;
use crate::status::Asked;

/// Keeps a node's kernel in the state that the cluster's Services ask for, on IPVS.
///
/// Takes the place of kube-proxy's ipvs mode; flags that both have mean the same.
#[derive(Debug, Clone, Parser)]
#[command(name = NAME, version, disable_version_flag = true)]
#[command(args_override_self = true, args_conflicts_with_subcommands = true)]
pub struct Flags {
    /// What to do instead of running the daemon.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// How to run the daemon.
    #[command(flatten)]
    pub daemon: DaemonFlags,
    /// Print the version and exit.
    #[arg(long, action = clap::ArgAction::Version, help_heading = "Run")]
    pub version: Option<bool>,
    /// Flags of the daemon that the command line names, without dashes, and their values.
    #[arg(skip)]
    pub given: Given,
}

/// Flags without their dashes, and their values.
pub type Given = BTreeMap<String, String>;

/// Commands other than the daemon.
#[derive(Debug, Clone, Subcommand)]
pub enum Command {
    /// Print what would be programmed for a folder of manifests; needs no privilege.
    #[command(args_override_self = true)]
    Render(Box<RenderFlags>),
    /// Print what the running daemon has programmed, with live connections; as root, on the node.
    ///
    /// What others took away or changed is told at once: virtual and real servers, bound addresses,
    /// the device, sets or all entries of one, and rules. Settings and single entries of sets are
    /// left to the next audit, and it is told when that is.
    ///
    /// With an address, tell whose it is, at one port or all, and who asks for it in vain.
    ///
    /// Exit status 0 if the kernel has what is printed as the daemon left it, and with an address,
    /// if a Service has it; 1 if not, or if that cannot be told, as where no daemon answers.
    #[command(args_override_self = true)]
    Status(StatusFlags),
}

/// Flags of the daemon.
#[derive(Debug, Clone, Args)]
pub struct DaemonFlags {
    /// Where objects come from.
    #[command(flatten)]
    pub source: SourceFlags,
    /// What decides rows.
    #[command(flatten)]
    pub policy: PolicyFlags,
    /// When to sync.
    #[command(flatten)]
    pub periods: PeriodFlags,
    /// Where to answer.
    #[command(flatten)]
    pub serve: ServeFlags,
    /// What kind of run.
    #[command(flatten)]
    pub run: RunFlags,
    /// What means nothing here.
    #[command(flatten)]
    pub accepted: AcceptedFlags,
}

/// Flags of `render`.
#[derive(Debug, Clone, Args)]
pub struct RenderFlags {
    /// File of kube-proxy's configuration, which counts as it does for the daemon.
    #[arg(long, value_name = "FILE", default_value = "", hide_default_value = true)]
    #[arg(help_heading = SOURCE)]
    pub config: String,
    /// Folder of YAML or JSON files with Services, EndpointSlices or Endpoints, and the Node.
    #[arg(long, value_name = "DIR", default_value = "", help_heading = SOURCE)]
    pub manifests: String,
    /// What decides rows.
    #[command(flatten)]
    pub policy: PolicyFlags,
    /// What the node is taken for.
    #[command(flatten)]
    pub host: HostFlags,
    /// Flags that the command line names, without dashes, and their values.
    #[arg(skip)]
    pub given: Given,
}

/// Flags of `status`.
#[derive(Debug, Clone, Args)]
pub struct StatusFlags {
    /// An address, or one port of it, such as 10.96.0.1, fd00::1 or 10.96.0.1:443.
    #[arg(value_name = "VIP[:PORT]")]
    pub address: Option<Asked>,
}

/// What `render` takes the node for, as it looks at none.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Node")]
pub struct HostFlags {
    /// Addresses of the node, where its node ports are; those of its Node object if empty.
    #[arg(long, value_name = "IP[,IP]", default_value = "", hide_default_value = true)]
    pub node_addresses: String,
    /// Families that the node can program: ipv4, ipv6.
    #[arg(long, value_name = "FAMILY[,FAMILY]", default_value = "ipv4,ipv6")]
    pub node_families: String,
    /// Kernel of the node; old ones need other settings.
    #[arg(long, value_name = "VERSION", default_value = "6.1")]
    pub kernel_version: String,
    /// Whether the node's iptables knows MASQUERADE --random-fully, as 1.6.2 and later do.
    #[arg(long, value_name = "BOOL", default_value = "true")]
    #[arg(num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub iptables_random_fully: String,
    /// Interfaces that take IPv6 router advertisements, and shall still when the node forwards.
    #[arg(long, value_name = "NAME[,NAME]", default_value = "", hide_default_value = true)]
    pub router_advertised: String,
}

/// Where objects come from.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = SOURCE)]
pub struct SourceFlags {
    /// File of kube-proxy's configuration, KubeProxyConfiguration v1alpha1; followed as it changes.
    ///
    /// Most flags do not count besides it: see the README. Settings that kube-proxy does not have
    /// are in its block kubeIpvsProxy.
    #[arg(long, value_name = "FILE", default_value = "", hide_default_value = true)]
    pub config: String,
    /// File that says how to reach the API server; without it and --master, the pod's own account.
    #[arg(long, value_name = "FILE", default_value = "", hide_default_value = true)]
    pub kubeconfig: String,
    /// URL of the API server, before the one that the kubeconfig names.
    #[arg(long, value_name = "URL", default_value = "", hide_default_value = true)]
    pub master: String,
    /// Folder of YAML or JSON manifests to follow instead of an API server.
    #[arg(long, value_name = "DIR", default_value = "", hide_default_value = true)]
    pub manifests: String,
    /// Where endpoints are read from: auto (EndpointSlices if served), endpointslices, endpoints.
    ///
    /// With core/v1 Endpoints an endpoint that leaves drains for seconds only: they do not tell
    /// leaving from gone. In a folder of manifests Endpoints count for Services without a slice.
    #[arg(long, value_name = "KIND", default_value = "auto")]
    pub endpoints_source: String,
}

/// What decides rows.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Traffic")]
pub struct PolicyFlags {
    /// Name of this node in the cluster; the machine's host name if empty.
    #[arg(long, value_name = "NAME", default_value = "", hide_default_value = true)]
    pub hostname_override: String,
    /// Accepted for kube-proxy's sake: ipvs or empty.
    #[arg(long, value_name = "MODE", default_value = "", hide_default_value = true)]
    pub proxy_mode: String,
    /// How new connections are spread where a Service does not say: any scheduler of the kernel.
    ///
    /// One of rr, wrr, lc, wlc, lblc, lblcr, sh, dh, sed, nq, fo, ovf, mh, twos; each needs its
    /// kernel module, ip_vs_rr and so on. A Service says otherwise by the annotation
    /// ipvs.kube-ipvs-proxy.io/scheduler.
    #[arg(long, value_name = "NAME", default_value = "rr")]
    pub ipvs_scheduler: String,
    /// Answer ARP for an address on its own interface only; for load balancers that announce by
    /// ARP.
    #[arg(long, value_name = "BOOL", default_value = "false")]
    #[arg(num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub ipvs_strict_arp: String,
    /// How service addresses are made the node's own: address (on kube-ipvs0), or route.
    ///
    /// As addresses they are listed with the others, other agents see them, and processes of the
    /// node connect from them; binding takes the kernel longer the more there are. As routes, in
    /// the table local by lo with protocol 73, they are listed nowhere else, processes connect from
    /// the node's address, and the ten-thousandth costs what the first does. Can be changed by a
    /// restart, or in the configuration file while the daemon works, without a gap.
    #[arg(long, value_name = "WAY", default_value = "address")]
    pub vip_binding: String,
    /// Ranges of addresses that are left to others: virtual servers there are never touched.
    #[arg(long, value_name = "CIDR[,CIDR]", default_value = "", hide_default_value = true)]
    pub ipvs_exclude_cidrs: String,
    /// Hide every client of a cluster IP behind the node's address; pods no longer see who calls.
    #[arg(long, value_name = "BOOL", default_value = "false")]
    #[arg(num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub masquerade_all: String,
    /// Bit of the packet mark that asks for masquerade, 0 to 31; must be nobody else's.
    #[arg(long, value_name = "BIT", default_value = "14", allow_hyphen_values = true)]
    pub iptables_masquerade_bit: String,
    /// How pods are told from other clients, whose address is hidden from the endpoints.
    ///
    /// One of ClusterCIDR, NodeCIDR, BridgeInterface, InterfaceNamePrefix.
    #[arg(long, value_name = "MODE", default_value = "ClusterCIDR")]
    pub detect_local_mode: String,
    /// Ranges of pod addresses, one per family, for ClusterCIDR; empty hides no client but the
    /// node.
    #[arg(long, value_name = "CIDR[,CIDR]", default_value = "", hide_default_value = true)]
    pub cluster_cidr: String,
    /// Bridge that pods are attached to, for BridgeInterface.
    #[arg(long, value_name = "NAME", default_value = "", hide_default_value = true)]
    pub pod_bridge_interface: String,
    /// How names of pod interfaces begin, for InterfaceNamePrefix.
    #[arg(long, value_name = "PREFIX", default_value = "", hide_default_value = true)]
    pub pod_interface_name_prefix: String,
    /// Ranges of service addresses, in place of those that ServiceCIDR objects tell.
    ///
    /// An address in them that no Service has is refused at once.
    #[arg(long, value_name = "CIDR[,CIDR]", default_value = "", hide_default_value = true)]
    pub service_cidr: String,
    /// Ranges of node addresses that node ports are open on, or the word primary; all if empty.
    ///
    /// primary stands for the addresses of the Node object, the first of each family.
    #[arg(long, value_name = "CIDR[,CIDR]", default_value = "", hide_default_value = true)]
    pub nodeport_addresses: String,
    /// How long IPVS remembers connections.
    #[command(flatten)]
    pub timeouts: TimeoutFlags,
    /// Have IPVS gather counts and rates, for ipvsadm --stats and exporters.
    ///
    /// Without, they stand still, and what was not gathered appears once it is on; live connections
    /// are always shown. Gathering goes through all virtual and real servers every two seconds; up
    /// to Linux 6.1 that stops a processor for tens of milliseconds where there are many. Linux
    /// before 5.16 always gathers.
    #[arg(long, value_name = "BOOL", default_value = "false")]
    #[arg(num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub ipvs_estimation: String,
    /// How long real servers drain.
    #[command(flatten)]
    pub drains: DrainFlags,
    /// How the kernel tracks connections.
    #[command(flatten)]
    pub conntrack: ConntrackFlags,
}

/// How long IPVS remembers connections that are silent.
///
/// The table grows with them: an entry takes about 200 bytes of kernel memory for that long.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "IPVS connections")]
pub struct TimeoutFlags {
    /// How long IPVS remembers a silent TCP connection; 0 leaves it alone (15 minutes).
    #[arg(long, value_name = "DURATION", default_value = "0s", allow_hyphen_values = true)]
    pub ipvs_tcp_timeout: String,
    /// How long IPVS remembers a TCP connection after a FIN; 0 leaves it alone (2 minutes).
    #[arg(long, value_name = "DURATION", default_value = "0s", allow_hyphen_values = true)]
    pub ipvs_tcpfin_timeout: String,
    /// How long IPVS remembers a silent UDP flow; 0 leaves it alone (5 minutes).
    #[arg(long, value_name = "DURATION", default_value = "0s", allow_hyphen_values = true)]
    pub ipvs_udp_timeout: String,
}

/// How long endpoints that take no new connections keep those that they have.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Draining")]
pub struct DrainFlags {
    /// Longest drain of an endpoint that is terminating or unready; 0 resets its connections at once.
    #[arg(long, value_name = "DURATION", default_value = "15m", allow_hyphen_values = true)]
    pub drain_timeout: String,
    /// Longest drain of an endpoint that is no longer known; 0 resets its connections at once.
    ///
    /// With core/v1 Endpoints every endpoint that leaves is one of these.
    #[arg(long, value_name = "DURATION", default_value = "10s", allow_hyphen_values = true)]
    pub drain_timeout_vanished: String,
}

/// How the kernel tracks connections.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Connection tracking")]
pub struct ConntrackFlags {
    /// Tracked connections for each CPU, a million in all at most; 0 leaves the limit alone.
    #[arg(long, value_name = "NUMBER", default_value = "32768", allow_hyphen_values = true)]
    pub conntrack_max_per_core: String,
    /// Tracked connections at least, unless --conntrack-max-per-core is 0.
    #[arg(long, value_name = "NUMBER", default_value = "131072", allow_hyphen_values = true)]
    pub conntrack_min: String,
    /// How long an established TCP connection may be silent; 0 leaves the setting alone.
    #[arg(long, value_name = "DURATION", default_value = "24h", allow_hyphen_values = true)]
    pub conntrack_tcp_timeout_established: String,
    /// How long a TCP connection may stay half closed; 0 leaves the setting alone.
    #[arg(long, value_name = "DURATION", default_value = "1h", allow_hyphen_values = true)]
    pub conntrack_tcp_timeout_close_wait: String,
    /// How long a UDP flow without an answer may be silent; 0 leaves the setting alone.
    #[arg(long, value_name = "DURATION", default_value = "0s", allow_hyphen_values = true)]
    pub conntrack_udp_timeout: String,
    /// How long a UDP flow with answers may be silent; 0 leaves the setting alone.
    #[arg(long, value_name = "DURATION", default_value = "0s", allow_hyphen_values = true)]
    pub conntrack_udp_timeout_stream: String,
    /// Take TCP packets outside the window for valid; false leaves the setting alone.
    #[arg(long, value_name = "BOOL", default_value = "false")]
    #[arg(num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub conntrack_tcp_be_liberal: String,
}

/// When to sync.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Periods")]
pub struct PeriodFlags {
    /// Longest time between two syncs; one with nothing to do writes nothing.
    #[arg(long, value_name = "DURATION", default_value = "30s", allow_hyphen_values = true)]
    pub ipvs_sync_period: String,
    /// Shortest time between two syncs; 0 follows every change at once.
    ///
    /// kube-proxy has 1s here, or 0s in its config file, because it rewrites whole tables. The
    /// cost of a sync of ours is that of the change, so nothing is won by waiting.
    #[arg(long, value_name = "DURATION", default_value = "0s", allow_hyphen_values = true)]
    pub ipvs_min_sync_period: String,
    /// Time between two comparisons with all of the kernel's state; each reads it whole.
    #[arg(long, value_name = "DURATION", default_value = "5m", allow_hyphen_values = true)]
    pub audit_period: String,
}

/// Where to answer.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Health and metrics")]
pub struct ServeFlags {
    /// Where /healthz, /livez and /readyz are served; empty disables them.
    #[arg(long, value_name = "IP[:PORT]", default_value = "0.0.0.0:10256")]
    pub healthz_bind_address: String,
    /// Where /metrics, /configz, /proxyMode, /statusz and /flagz are served; empty disables them.
    #[arg(long, value_name = "IP[:PORT]", default_value = "127.0.0.1:10249")]
    pub metrics_bind_address: String,
    /// Port of --healthz-bind-address if that has none; 0 disables it.
    #[arg(long, value_name = "PORT", default_value = "10256", allow_hyphen_values = true)]
    pub healthz_port: String,
    /// Port of --metrics-bind-address if that has none; 0 disables it.
    #[arg(long, value_name = "PORT", default_value = "10249", allow_hyphen_values = true)]
    pub metrics_port: String,
    /// Certificate of the metrics address, in PEM, followed by those that lead to its authority.
    ///
    /// Metrics are then served by HTTPS only. The files are followed as they change.
    #[arg(long, value_name = "FILE", default_value = "", hide_default_value = true)]
    pub metrics_tls_cert_file: String,
    /// Private key of --metrics-tls-cert-file, in PEM.
    #[arg(long, value_name = "FILE", default_value = "", hide_default_value = true)]
    pub metrics_tls_private_key_file: String,
    /// Authorities, in PEM: who has no certificate of theirs gets no metrics.
    #[arg(long, value_name = "FILE", default_value = "", hide_default_value = true)]
    pub metrics_client_ca_file: String,
}

/// What kind of run.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Run")]
pub struct RunFlags {
    /// Sync until all is in place, print a summary and exit.
    ///
    /// Exit status 1 if anything could not be programmed as it says: a file is broken, an object
    /// rejected or served with a default, or the kernel refused.
    #[arg(long, value_name = "BOOL", default_value = "false", hide_default_value = true)]
    #[arg(num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub once: String,
    /// Remove everything that this program and other modes of kube-proxy have made, and exit.
    ///
    /// Settings stay and are named, as are virtual servers of ours in --ipvs-exclude-cidrs, and
    /// kube-ipvs0 if addresses of others are bound to it. Exit status 1 if anything else is left:
    /// rules and sets of others that use it are named.
    #[arg(long, value_name = "BOOL", default_value = "false", hide_default_value = true)]
    #[arg(num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub cleanup: String,
    /// Remove what kube-proxy's iptables and nftables modes left behind, once every front
    /// that is to serve does.
    ///
    /// Not while kube-proxy runs, which its ports 10249 and 10256 tell. Without it a warning names
    /// what was found. --cleanup removes the same.
    #[arg(long, value_name = "BOOL", default_value = "false")]
    #[arg(num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub remove_leftovers: String,
    /// Make the settings below /proc/sys that need more rights than the daemon, and exit.
    ///
    /// It prints those that it made, with what they were, and those that failed. Exit status 1 if
    /// Services rely on one of these.
    #[arg(long, value_name = "BOOL", default_value = "false", hide_default_value = true)]
    #[arg(num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub init_only: String,
    /// Write the configuration that results, as KubeProxyConfiguration v1alpha1, and exit.
    #[arg(long, value_name = "FILE", default_value = "", hide_default_value = true)]
    pub write_config_to: String,
    /// Folder of what a restart is to know: deadlines of drains; empty keeps none.
    #[arg(long, value_name = "DIR", default_value = "/run/kube-ipvs-proxy")]
    pub state_dir: String,
    /// How readily the kernel ends this process when memory is short, -1000 (never) to 1000.
    #[arg(long, value_name = "SCORE", default_value = "-999", allow_hyphen_values = true)]
    pub oom_score_adj: String,
    /// How much to log: 0 syncs and failures, 2 every change, 4 libraries too, 6 all they say.
    #[arg(short, long, value_name = "LEVEL", default_value = "0", allow_hyphen_values = true)]
    pub v: String,
}

const SOURCE: &str = "Source";
const NAME: &str = "kube-ipvs-proxy";

/// What became of a command line.
#[derive(Debug)]
pub enum Parsed {
    /// Flags to resolve, and the problems that were found so far.
    Flags(Box<Flags>, Problems),
    /// Help, the version, or what is wrong with the syntax; and the problems found before.
    Answer(clap::Error, Problems),
}

/// Reads a command line, program name included.
pub fn parse(args: impl IntoIterator<Item = OsString>) -> Parsed {
    let (known, problems) = without_unknown(with_command_first(args.into_iter().collect()));
    let read = |matches: ArgMatches| {
        let command = Flags::command();
        let given = values(&command, &matches, true);
        let mut flags = Flags::from_arg_matches(&matches)?;
        if let (Some(Command::Render(render)), Some((name, matches))) =
            (&mut flags.command, matches.subcommand())
            && let Some(command) = command.find_subcommand(name)
        {
            render.given = values(command, matches, true);
        }
        Ok(Flags { given, ..flags })
    };
    match Flags::command().try_get_matches_from(known).and_then(read) {
        Ok(flags) => Parsed::Flags(Box::new(flags), problems),
        Err(mut error) => {
            suggest_folder(&mut error);
            Parsed::Answer(error, problems)
        }
    }
}

/// The daemon's flags with these values, and defaults for the others; all values by flag beside.
///
/// # Panics
/// On a flag that does not exist.
pub fn with_values(given: &Given) -> (DaemonFlags, Given) {
    let args = given.iter().map(|(flag, value)| format!("--{flag}={value}"));
    let args = [NAME.to_string()].into_iter().chain(args);
    let matches = Flags::command().try_get_matches_from(args).expect("flags that exist");
    let flags = DaemonFlags::from_arg_matches(&matches).expect("every flag has a default");
    (flags, values(&Flags::command(), &matches, false))
}

/// The values of the flags; only of those that the command line names, if asked for.
fn values(command: &clap::Command, matches: &ArgMatches, are_named: bool) -> Given {
    let named = command.get_arguments().filter_map(|arg| {
        let id = arg.get_id().as_str();
        let is_wanted = !are_named || matches.value_source(id) == Some(ValueSource::CommandLine);
        let value = matches.try_get_one::<String>(id).ok().flatten().filter(|_| is_wanted)?;
        Some((arg.get_long()?.to_string(), value.clone()))
    });
    named.collect()
}

#[cfg(test)]
mod tests;
