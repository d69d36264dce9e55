//! How many connections are remembered, and for how long: by connection tracking (spec 6.2), and by
//! IPVS (spec 2.7).
//!
//! Invariant: what is 0 in the configuration, or not this network namespace's to set, has no row.

use std::time::Duration;

use crate::config::{Conntrack, IpvsTimeouts};
use crate::model::observed::Host;
use crate::model::sysctl::{IPVS_TIMEOUTS, Settings};

/// Parity: more than this is not asked for by a number per CPU, whatever the least number says.
const MOST: u32 = 1 << 20;

/// Kernel: the table grows by pages, which hold this many buckets.
const BUCKETS_PER_PAGE: u32 = 512;

/// The rows of IPVS that the configuration asks for.
pub(super) fn ipvs(timeouts: &IpvsTimeouts) -> Settings {
    let IpvsTimeouts { tcp, tcp_fin, udp } = *timeouts;
    let rows = IPVS_TIMEOUTS.into_iter().zip([tcp, tcp_fin, udp]);
    rows.filter_map(|(name, time)| Some((name.to_string(), seconds(time)?))).collect()
}

/// The rows of connection tracking that the configuration asks for.
pub(super) fn settings(conntrack: &Conntrack, host: &Host) -> Settings {
    let mut settings = size(conntrack, host);
    for (name, time) in [
        ("tcp_timeout_established", conntrack.tcp_established),
        ("tcp_timeout_close_wait", conntrack.tcp_close_wait),
        ("udp_timeout", conntrack.udp),
        ("udp_timeout_stream", conntrack.udp_stream),
    ] {
        settings.extend(seconds(time).map(|seconds| (path(name), seconds)));
    }
    if conntrack.tcp_be_liberal {
        settings.insert(path("tcp_be_liberal"), "1".into());
    }
    settings
}

/// A time as the kernel counts it; none below a second, as 0 would end connections at once.
fn seconds(time: Duration) -> Option<String> {
    (time >= Duration::from_secs(1)).then(|| time.as_secs().to_string())
}

/// How large the table is: its limit, and buckets for a quarter of that.
fn size(conntrack: &Conntrack, host: &Host) -> Settings {
    let mut settings = Settings::new();
    let (Some(max), Some(buckets)) = (max(conntrack, host.cpus), host.conntrack_buckets) else {
        return settings;
    };
    settings.insert(path("max"), max.to_string());
    let wanted = (max / 4).next_multiple_of(BUCKETS_PER_PAGE);
    if buckets < wanted {
        settings.insert(path("buckets"), wanted.to_string());
    }
    settings
}

/// Limit of the table; none leaves it alone.
fn max(conntrack: &Conntrack, cpus: u32) -> Option<u32> {
    let scaled = conntrack.max_per_core.saturating_mul(cpus);
    match scaled {
        0 => None,
        _ if scaled > MOST => Some(MOST),
        _ => Some(scaled.max(conntrack.min)),
    }
}

fn path(name: &str) -> String {
    format!("net/netfilter/nf_conntrack_{name}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(max_per_core: u32, min: u32, cpus: u32, buckets: Option<u32>) -> Vec<String> {
        let conntrack = Conntrack { max_per_core, min, ..Conntrack::default() };
        let host = Host { cpus, conntrack_buckets: buckets, ..Host::default() };
        let rows = settings(&conntrack, &host).into_iter();
        rows.map(|(path, value)| format!("{} {value}", path.rsplit('_').next().unwrap())).collect()
    }

    #[test]
    fn size_follows_cpus_within_bounds() {
        let many = Some(1 << 20);
        for (given, expected) in [
            ((32768, 131_072, 8, many), &["max 262144"][..]),
            ((32768, 131_072, 2, many), &["max 131072"]),
            ((32768, 2_000_000, 64, many), &["max 1048576"]),
            ((u32::MAX, 0, 64, many), &["max 1048576"]),
            ((0, 131_072, 8, many), &[]),
            ((32768, 131_072, 0, many), &[]),
            // Buckets are added only, and by whole pages.
            ((1000, 0, 8, Some(2047)), &["buckets 2048", "max 8000"]),
            ((1000, 0, 8, Some(2048)), &["max 8000"]),
            // Another network namespace than the first has no say.
            ((32768, 131_072, 8, None), &[]),
        ] {
            let (max_per_core, min, cpus, buckets) = given;
            assert_eq!(rows(max_per_core, min, cpus, buckets), expected, "{given:?}");
        }
    }

    #[test]
    fn times_below_a_second_leave_settings_alone() {
        for (millis, expected) in [(0, None), (999, None), (1999, Some("1")), (90_000, Some("90"))]
        {
            let udp = Duration::from_millis(millis);
            let conntrack = Conntrack { udp, ..Conntrack::default() };
            let rows = settings(&conntrack, &Host::default());
            let row = rows.get("net/netfilter/nf_conntrack_udp_timeout");
            assert_eq!(row.map(String::as_str), expected, "{millis} ms");
            assert_eq!(rows.len(), usize::from(expected.is_some()));
            let timeouts = IpvsTimeouts { udp, ..IpvsTimeouts::default() };
            let rows: Vec<String> = ipvs(&timeouts).into_values().collect();
            assert_eq!(rows.first().map(String::as_str), expected, "{millis} ms");
        }
    }
}
