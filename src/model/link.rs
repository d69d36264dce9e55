//! The dummy device that holds the service addresses (spec section 3).

/// Name of the dummy device; other agents know and skip it by this name.
pub const DEVICE: &str = "kube-ipvs0";
