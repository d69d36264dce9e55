//! Kernel settings below `/proc/sys` (spec section 6).

/// Path below `/proc/sys`, such as `net/ipv4/vs/conntrack`, and the text it holds.
pub type Settings = std::collections::BTreeMap<String, String>;

/// Whether a setting tunes connection tracking, so that no Service waits for it.
pub fn is_tuning(path: &str) -> bool {
    path.starts_with("net/netfilter/nf_conntrack_")
}
