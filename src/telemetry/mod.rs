//! Logs and metrics: how they are set up, and the one list of names they use.
//!
//! Invariant: a log message is a constant phrase; whatever varies is a field out of [`FIELDS`].

pub mod events;
pub mod metrics;

use tracing_subscriber::EnvFilter;

/// Names of the fields of log events; no event uses another.
pub const FIELDS: [&str; 37] = [
    // One sync: its number, how long it took, what it did.
    "sync",
    "took",
    "added",
    "changed",
    "removed",
    "failed",
    "postponed",
    "deferred",
    "rejected",
    "drains",
    "audit",
    // What something is about.
    "address",
    "count",
    "file",
    "flag",
    "folder",
    "ignored",
    "kind",
    "line",
    "module",
    "name",
    "node",
    "object",
    "operation",
    "process",
    "row",
    "server",
    "setting",
    "signal",
    "used",
    "value",
    "version",
    // Why, and what next.
    "code",
    "error",
    "failure",
    "reason",
    "retry",
];

/// Changes how much is logged, to what another `-v` asks for.
pub type SetVerbosity = Box<dyn Fn(u8) + Send>;

/// Starts logging as text on standard error, as much as `-v` asks for.
///
/// `RUST_LOG` overrides it, for the rare case that one module is of interest.
pub fn start_log(verbosity: u8) -> SetVerbosity {
    let given = EnvFilter::try_from_default_env();
    let is_given = given.is_ok();
    let filter = given.unwrap_or_else(|_| EnvFilter::new(directives(verbosity)));
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let log = log.with_filter_reloading();
    let handle = log.reload_handle();
    // A second start keeps the first: tests of the whole program share a process.
    drop(log.try_init());
    Box::new(move |verbosity| {
        if !is_given {
            // It fails only where nothing is logged any more.
            drop(handle.reload(EnvFilter::new(directives(verbosity))));
        }
    })
}

/// What each level of `-v` shows; libraries stay quiet longer than we do.
///
/// The API client logs every failure of a request as an error; those are ours to tell, once.
fn directives(verbosity: u8) -> &'static str {
    match verbosity {
        0..=1 => "warn,kube_client=off,kube_ipvs_proxy=info",
        2..=3 => "warn,kube_client=off,kube_ipvs_proxy=debug",
        4..=5 => "debug",
        6.. => "trace",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_level_is_a_filter_that_parses() {
        for verbosity in [0, 1, 2, 3, 4, 5, 6, 10, u8::MAX] {
            assert!(EnvFilter::try_new(directives(verbosity)).is_ok(), "{verbosity}");
        }
    }
}
