//! Logs and metrics: how they are set up, and the one list of names they use.
//!
//! Invariant: a log message is a constant phrase; whatever varies is a field out of [`FIELDS`].

pub mod events;
pub mod metrics;
pub mod refused;

use std::io;

use tracing::warn;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{fmt, registry, reload};

/// The variable that picks what is logged by module: `module=level`, separated by commas.
const FILTER: &str = "RUST_LOG";

/// Names of the fields of log events; no event uses another.
pub const FIELDS: [&str; 43] = [
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
    "changes",
    // What something is about.
    "address",
    "count",
    "file",
    "flag",
    "folder",
    "ignored",
    "kind",
    "leftover",
    "line",
    "module",
    "name",
    "node",
    "object",
    "operation",
    "port",
    "process",
    "row",
    "server",
    "servers",
    "setting",
    "signal",
    "used",
    "value",
    "version",
    // Why, and what next.
    "code",
    "effect",
    "error",
    "failure",
    "fix",
    "reason",
    "retry",
];

/// Changes how much is logged, to what another `-v` asks for.
pub type SetVerbosity = Box<dyn Fn(u8) + Send>;

/// Starts logging as text on standard error, as much as `-v` asks for.
///
/// `RUST_LOG` overrides it, for the rare case that one module is of interest.
pub fn start_log(verbosity: u8) -> SetVerbosity {
    let given = std::env::var(FILTER).ok().filter(|text| !text.is_empty());
    let parsed = given.as_deref().map(str::parse::<Targets>);
    let is_given = matches!(parsed, Some(Ok(_)));
    let (filter, error) = match parsed {
        Some(Ok(filter)) => (filter, None),
        Some(Err(error)) => (targets(verbosity), Some(error.to_string())),
        None => (targets(verbosity), None),
    };
    let (filter, handle) = reload::Layer::new(filter);
    // A second start keeps the first: tests of the whole program share a process.
    drop(registry().with(filter).with(fmt::layer().with_writer(io::stderr)).try_init());
    if let Some(error) = error {
        let value = given.unwrap_or_default();
        warn!(name = FILTER, value, error, "not understood, -v decides: give module=level,…");
    }
    Box::new(move |verbosity| {
        if !is_given {
            // It fails only where nothing is logged any more.
            drop(handle.reload(targets(verbosity)));
        }
    })
}

/// What each level of `-v` shows; libraries stay quiet longer than we do.
///
/// The API client logs every failure of a request as an error; those are ours to tell, once.
fn targets(verbosity: u8) -> Targets {
    let ours = |level| {
        Targets::new()
            .with_default(LevelFilter::WARN)
            .with_targets([("kube_client", LevelFilter::OFF), ("kube_ipvs_proxy", level)])
    };
    match verbosity {
        0..=1 => ours(LevelFilter::INFO),
        2..=3 => ours(LevelFilter::DEBUG),
        4..=5 => Targets::new().with_default(LevelFilter::DEBUG),
        6.. => Targets::new().with_default(LevelFilter::TRACE),
    }
}
