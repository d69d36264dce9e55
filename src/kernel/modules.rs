//! Kernel modules, and the rights to use them.
//!
//! Most load by themselves on first use; those that do not are asked for with `modprobe`.
//! Invariant: nothing here is fatal in itself: what counts is whether the feature works after.

use std::fs;
use std::time::Duration;

use super::exec::{Call, Runner};

/// How long loading a module may take.
const LIMIT: Duration = Duration::from_secs(20);

/// Number of the capability to change the network (`CAP_NET_ADMIN`).
const NET_ADMIN: u32 = 12;

/// Asks for a module; whether it came is for the caller to see.
pub fn load(runner: &mut Runner, module: &str) {
    let arguments = ["-q", module];
    let package = "kmod";
    let call =
        Call { program: "modprobe", arguments: &arguments, input: "", package, limit: LIMIT };
    if let Err(error) = runner.run(&call) {
        tracing::debug!(module, error = %error, "module not loaded");
    }
}

/// Whether the calling thread may change the network; yes if that cannot be told.
pub fn has_net_admin() -> bool {
    fs::read_to_string("/proc/thread-self/status").map_or(true, |status| allows_net_admin(&status))
}

/// Whether the effective capabilities in a `/proc/…/status` text include the one for networks.
fn allows_net_admin(status: &str) -> bool {
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let mask = effective.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_none_or(|mask| mask & (1 << NET_ADMIN) != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_effective_capabilities() {
        for (status, expected) in [
            ("Name:\tx\nCapEff:\t0000000000001000\n", true),
            ("Name:\tx\nCapEff:\t0000000000000fff\n", false),
            ("CapEff:\t000001ffffffffff\n", true),
            ("Name:\tx\n", true),
        ] {
            assert_eq!(allows_net_admin(status), expected, "{status:?}");
        }
    }
}
