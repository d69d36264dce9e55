//! Flags of kube-proxy that mean nothing here: taken, so that a command line of its own works.
//!
//! Invariant: the help of each says why it means nothing; who gives one is told the same.

use std::collections::BTreeMap;

use clap::{Args, CommandFactory};

use super::Flags;
use crate::config::value;

/// Heads them in the help, and tells them from the others.
const HEADING: &str = "Accepted without effect";

/// What there is to tell about a flag without effect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Accepted {
    /// What it is without being given.
    pub default: String,
    /// Why it means nothing, as part of a sentence.
    pub reason: String,
}

impl Accepted {
    /// Whether a value is the default, in this spelling or another.
    pub fn is_default(&self, text: &str) -> bool {
        text == self.default
            || self.means(text, |text| value::duration(text).ok())
            || self.means(text, |text| text.parse::<f64>().ok())
            || self.means(text, |text| value::truth(text).ok())
    }

    /// Whether a value, read in one way, is the same as the default.
    fn means<T: PartialEq>(&self, text: &str, read: impl Fn(&str) -> Option<T>) -> bool {
        read(text).is_some_and(|value| read(&self.default) == Some(value))
    }
}

/// The flags without effect, without their dashes.
pub fn accepted() -> BTreeMap<String, Accepted> {
    let flags = Flags::command();
    let ours = flags.get_arguments().filter(|arg| arg.get_help_heading() == Some(HEADING));
    let told = ours.filter_map(|arg| {
        let default = arg.get_default_values().first()?.to_string_lossy().into_owned();
        let help = arg.get_help()?.to_string();
        let mut letters = help.trim_end_matches('.').chars();
        let first = letters.next()?.to_ascii_lowercase();
        let reason = first.to_string() + letters.as_str();
        Some((arg.get_long()?.to_string(), Accepted { default, reason }))
    });
    told.collect()
}

/// Flags without effect.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = HEADING)]
pub struct AcceptedFlags {
    /// The Node object tells who this node is; an IPv6 address moves the defaults of health and
    /// metrics to IPv6.
    #[arg(long, value_name = "IP", default_value = "0.0.0.0", hide_default_value = true)]
    #[arg(allow_hyphen_values = true)]
    pub bind_address: String,
    /// An address that cannot be served on is tried again every 5 seconds.
    #[arg(long, value_name = "BOOL", default_value = "false", hide_default_value = true)]
    #[arg(num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub bind_address_hard_fail: String,
    /// Watches tell every change; nothing is listed again for its age.
    #[arg(long, value_name = "DURATION", default_value = "15m", hide_default_value = true)]
    #[arg(allow_hyphen_values = true)]
    pub config_sync_period: String,
    /// Nothing here has a gate.
    #[arg(
        long,
        value_name = "NAME=BOOL[,NAME=BOOL]",
        default_value = "",
        hide_default_value = true
    )]
    #[arg(allow_hyphen_values = true)]
    pub feature_gates: String,
    /// Node ports do not answer on loopback, as in kube-proxy's ipvs mode.
    #[arg(long, value_name = "BOOL", default_value = "true", hide_default_value = true)]
    #[arg(num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub iptables_localhost_nodeports: String,
    /// Belongs to another mode; see --ipvs-min-sync-period.
    #[arg(long, value_name = "DURATION", default_value = "1s", hide_default_value = true)]
    #[arg(allow_hyphen_values = true)]
    pub iptables_min_sync_period: String,
    /// Belongs to another mode; see --ipvs-sync-period.
    #[arg(long, value_name = "DURATION", default_value = "30s", hide_default_value = true)]
    #[arg(allow_hyphen_values = true)]
    pub iptables_sync_period: String,
    /// Few requests are made: one list and one watch per kind.
    #[arg(long, value_name = "NUMBER", default_value = "10", hide_default_value = true)]
    #[arg(allow_hyphen_values = true)]
    pub kube_api_burst: String,
    /// Objects are asked for as JSON.
    #[arg(
        long,
        value_name = "TYPE",
        default_value = "application/vnd.kubernetes.protobuf",
        hide_default_value = true
    )]
    #[arg(allow_hyphen_values = true)]
    pub kube_api_content_type: String,
    /// Few requests are made: one list and one watch per kind.
    #[arg(long, value_name = "NUMBER", default_value = "5", hide_default_value = true)]
    #[arg(allow_hyphen_values = true)]
    pub kube_api_qps: String,
    /// Each line is written at once.
    #[arg(long, value_name = "DURATION", default_value = "5s", hide_default_value = true)]
    #[arg(allow_hyphen_values = true)]
    pub log_flush_frequency: String,
    /// Each line is written at once, as text.
    #[arg(long, value_name = "SIZE", default_value = "0", hide_default_value = true)]
    #[arg(allow_hyphen_values = true)]
    pub log_json_info_buffer_size: String,
    /// The log goes to standard error, as text.
    #[arg(long, value_name = "BOOL", default_value = "false", hide_default_value = true)]
    #[arg(num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub log_json_split_stream: String,
    /// Each line is written at once.
    #[arg(long, value_name = "SIZE", default_value = "0", hide_default_value = true)]
    #[arg(allow_hyphen_values = true)]
    pub log_text_info_buffer_size: String,
    /// The log goes to standard error.
    #[arg(long, value_name = "BOOL", default_value = "false", hide_default_value = true)]
    #[arg(num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub log_text_split_stream: String,
    /// The log is text.
    #[arg(long, value_name = "FORMAT", default_value = "text", hide_default_value = true)]
    #[arg(allow_hyphen_values = true)]
    pub logging_format: String,
    /// There is no profile to serve.
    #[arg(long, value_name = "BOOL", default_value = "false", hide_default_value = true)]
    #[arg(num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub profiling: String,
    /// No port is chosen here; kube-proxy ignores it, too.
    #[arg(long, value_name = "FROM-TO", default_value = "", hide_default_value = true)]
    #[arg(allow_hyphen_values = true)]
    pub proxy_port_range: String,
    /// No metric is hidden.
    #[arg(long, value_name = "VERSION", default_value = "", hide_default_value = true)]
    #[arg(allow_hyphen_values = true)]
    pub show_hidden_metrics_for_version: String,
    /// Names files of another program; RUST_LOG picks modules of this one.
    #[arg(
        long,
        value_name = "PATTERN=LEVEL[,PATTERN=LEVEL]",
        default_value = "",
        hide_default_value = true
    )]
    #[arg(allow_hyphen_values = true)]
    pub vmodule: String,
}
