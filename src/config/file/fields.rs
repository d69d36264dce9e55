//! The fields of the file, one line each: what it looks like, and the flag that it stands for.
//!
//! Invariant: a field has no meaning of its own. What its flag does, it does; fields without a
//! flag mean nothing here, and are known to be told from misspelt ones.

/// One field.
#[derive(Debug, Clone, Copy)]
pub struct Field {
    /// Names from the top down, with dots between.
    pub path: &'static str,
    /// What its value looks like.
    pub shape: Shape,
    /// What it does.
    pub meaning: Meaning,
    /// Values besides null that mean the default.
    pub unset: Unset,
}

/// What a value looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// Text.
    Text,
    /// Texts without commas.
    List,
    /// true or false.
    Truth,
    /// A whole number.
    Whole,
    /// A number.
    Number,
    /// Text such as `1m30s`.
    Duration,
    /// Names, each with true or false.
    Gates,
    /// Whatever it is.
    Any,
}

/// What a field does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Meaning {
    /// The same as a flag, named without dashes.
    Flag(&'static str),
    /// Nothing; kube-proxy's default, in JSON.
    Nothing(&'static str),
}

/// Values besides null that mean the default.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unset {
    /// None.
    Never,
    /// An empty text or list.
    Empty,
    /// An empty text, and 0.
    EmptyOrZero,
}

const fn field(path: &'static str, shape: Shape, meaning: Meaning) -> Field {
    Field { path, shape, meaning, unset: Unset::Empty }
}

const fn flag(path: &'static str, shape: Shape, flag: &'static str) -> Field {
    field(path, shape, Meaning::Flag(flag))
}

/// A field whose 0 is no value but its default, as kube-proxy has it.
const fn not_zero(path: &'static str, shape: Shape, name: &'static str) -> Field {
    Field { unset: Unset::EmptyOrZero, ..flag(path, shape, name) }
}

/// A field whose empty text is a value.
const fn even_empty(path: &'static str, shape: Shape, name: &'static str) -> Field {
    Field { unset: Unset::Never, ..flag(path, shape, name) }
}

const fn nothing(path: &'static str, shape: Shape, default: &'static str) -> Field {
    field(path, shape, Meaning::Nothing(default))
}

/// Top level of the settings that kube-proxy does not have.
pub const OWN: &str = "kubeIpvsProxy";

/// Sections of which nothing means anything here.
pub const OF_OTHER_MODES: [&str; 2] = ["nftables", "winkernel"];

/// Every field; of two that stand for the same flag the later counts.
pub const FIELDS: [Field; 72] = [
    flag("featureGates", Shape::Gates, "feature-gates"),
    flag("clientConnection.kubeconfig", Shape::Text, "kubeconfig"),
    nothing("clientConnection.acceptContentTypes", Shape::Text, "\"\""),
    flag("clientConnection.contentType", Shape::Text, "kube-api-content-type"),
    not_zero("clientConnection.qps", Shape::Number, "kube-api-qps"),
    not_zero("clientConnection.burst", Shape::Whole, "kube-api-burst"),
    flag("logging.format", Shape::Text, "logging-format"),
    not_zero("logging.flushFrequency", Shape::Any, "log-flush-frequency"),
    not_zero("logging.verbosity", Shape::Whole, "v"),
    nothing("logging.vmodule", Shape::Any, "null"),
    nothing("logging.options", Shape::Any, "null"),
    flag("hostnameOverride", Shape::Text, "hostname-override"),
    flag("bindAddress", Shape::Text, "bind-address"),
    flag("healthzBindAddress", Shape::Text, "healthz-bind-address"),
    flag("metricsBindAddress", Shape::Text, "metrics-bind-address"),
    flag("bindAddressHardFail", Shape::Truth, "bind-address-hard-fail"),
    flag("enableProfiling", Shape::Truth, "profiling"),
    flag("showHiddenMetricsForVersion", Shape::Text, "show-hidden-metrics-for-version"),
    flag("mode", Shape::Text, "proxy-mode"),
    flag("iptables.masqueradeBit", Shape::Whole, "iptables-masquerade-bit"),
    flag("iptables.masqueradeAll", Shape::Truth, "masquerade-all"),
    flag("iptables.localhostNodePorts", Shape::Truth, "iptables-localhost-nodeports"),
    not_zero("iptables.syncPeriod", Shape::Duration, "iptables-sync-period"),
    not_zero("iptables.minSyncPeriod", Shape::Duration, "iptables-min-sync-period"),
    not_zero("ipvs.syncPeriod", Shape::Duration, "ipvs-sync-period"),
    flag("ipvs.minSyncPeriod", Shape::Duration, "ipvs-min-sync-period"),
    flag("ipvs.scheduler", Shape::Text, "ipvs-scheduler"),
    flag("ipvs.excludeCIDRs", Shape::List, "ipvs-exclude-cidrs"),
    flag("ipvs.strictARP", Shape::Truth, "ipvs-strict-arp"),
    flag("ipvs.tcpTimeout", Shape::Duration, "ipvs-tcp-timeout"),
    flag("ipvs.tcpFinTimeout", Shape::Duration, "ipvs-tcpfin-timeout"),
    flag("ipvs.udpTimeout", Shape::Duration, "ipvs-udp-timeout"),
    nothing("nftables.masqueradeBit", Shape::Whole, "14"),
    nothing("nftables.masqueradeAll", Shape::Truth, "false"),
    nothing("nftables.syncPeriod", Shape::Duration, "\"30s\""),
    nothing("nftables.minSyncPeriod", Shape::Duration, "\"1s\""),
    nothing("winkernel.enableDSR", Shape::Truth, "false"),
    nothing("winkernel.forwardHealthCheckVip", Shape::Truth, "false"),
    nothing("winkernel.networkName", Shape::Text, "\"\""),
    nothing("winkernel.rootHnsEndpointName", Shape::Text, "\"\""),
    nothing("winkernel.sourceVip", Shape::Text, "\"\""),
    nothing("windowsRunAsService", Shape::Truth, "false"),
    flag("detectLocalMode", Shape::Text, "detect-local-mode"),
    flag("detectLocal.bridgeInterface", Shape::Text, "pod-bridge-interface"),
    flag("detectLocal.interfaceNamePrefix", Shape::Text, "pod-interface-name-prefix"),
    flag("clusterCIDR", Shape::Text, "cluster-cidr"),
    flag("nodePortAddresses", Shape::List, "nodeport-addresses"),
    flag("oomScoreAdj", Shape::Whole, "oom-score-adj"),
    flag("conntrack.maxPerCore", Shape::Whole, "conntrack-max-per-core"),
    flag("conntrack.min", Shape::Whole, "conntrack-min"),
    flag("conntrack.tcpEstablishedTimeout", Shape::Duration, "conntrack-tcp-timeout-established"),
    flag("conntrack.tcpCloseWaitTimeout", Shape::Duration, "conntrack-tcp-timeout-close-wait"),
    flag("conntrack.tcpBeLiberal", Shape::Truth, "conntrack-tcp-be-liberal"),
    flag("conntrack.udpTimeout", Shape::Duration, "conntrack-udp-timeout"),
    flag("conntrack.udpStreamTimeout", Shape::Duration, "conntrack-udp-timeout-stream"),
    not_zero("configSyncPeriod", Shape::Duration, "config-sync-period"),
    flag("portRange", Shape::Text, "proxy-port-range"),
    flag("kubeIpvsProxy.manifests", Shape::Text, "manifests"),
    flag("kubeIpvsProxy.endpointsSource", Shape::Text, "endpoints-source"),
    flag("kubeIpvsProxy.serviceCIDRs", Shape::List, "service-cidr"),
    flag("kubeIpvsProxy.auditPeriod", Shape::Duration, "audit-period"),
    flag("kubeIpvsProxy.ipvsEstimation", Shape::Truth, "ipvs-estimation"),
    flag("kubeIpvsProxy.vipBinding", Shape::Text, "vip-binding"),
    flag("kubeIpvsProxy.drainTimeout", Shape::Duration, "drain-timeout"),
    flag("kubeIpvsProxy.drainTimeoutVanished", Shape::Duration, "drain-timeout-vanished"),
    flag("kubeIpvsProxy.removeLeftovers", Shape::Truth, "remove-leftovers"),
    even_empty("kubeIpvsProxy.stateDir", Shape::Text, "state-dir"),
    even_empty("kubeIpvsProxy.healthzBindAddress", Shape::Text, "healthz-bind-address"),
    even_empty("kubeIpvsProxy.metricsBindAddress", Shape::Text, "metrics-bind-address"),
    flag("kubeIpvsProxy.metricsTLSCertFile", Shape::Text, "metrics-tls-cert-file"),
    flag("kubeIpvsProxy.metricsTLSPrivateKeyFile", Shape::Text, "metrics-tls-private-key-file"),
    flag("kubeIpvsProxy.metricsClientCAFile", Shape::Text, "metrics-client-ca-file"),
];

/// Whether a flag is one that kube-proxy does not have, so that it counts besides a file.
pub fn is_own(flag: &str) -> bool {
    let mut fields = FIELDS.iter().filter(|field| field.flag() == Some(flag)).peekable();
    fields.peek().is_some() && fields.all(|field| field.path.starts_with(OWN))
}

impl Field {
    /// The flag that it stands for, if it does anything.
    pub fn flag(&self) -> Option<&'static str> {
        match self.meaning {
            Meaning::Flag(flag) => Some(flag),
            Meaning::Nothing(_) => None,
        }
    }
}
