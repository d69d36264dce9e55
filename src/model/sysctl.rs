//! Kernel settings below `/proc/sys` (spec section 6).

/// Path below `/proc/sys`, such as `net/ipv4/vs/conntrack`, and the text it holds.
pub type Settings = std::collections::BTreeMap<String, String>;
