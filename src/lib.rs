//! Kubernetes node service proxy on IPVS.
//!
//! ```text
//!  watch ──▶ cluster ──▶ desired ──▶ plan ──▶ kernel
//!  (edge)    parsed      rows        steps    (edge)
//! ```

pub mod app;
pub mod causes;
pub mod cleanup;
pub mod cluster;
pub mod config;
pub mod counted;
pub mod desired;
pub mod init;
pub mod kernel;
pub mod model;
pub mod plan;
pub mod reconcile;
pub mod render;
pub mod serve;
pub mod spelling;
pub mod state;
pub mod status;
pub mod telemetry;
#[cfg(feature = "testing")]
pub mod testing;
pub mod watch;
