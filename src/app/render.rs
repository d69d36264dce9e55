//! `render`: what would be programmed for a folder of manifests, as text.
//!
//! The engine runs once on paper: a kernel that takes everything. So what is shown is what the
//! daemon would do, by the same code.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::Exit;
use crate::cluster::Kind;
use crate::cluster::store::Store;
use crate::config::{Periods, RenderConfig};
use crate::kernel::{Error, Failure, Kernel};
use crate::model::net::PerFamily;
use crate::model::observed::{Host, Observed, Scope};
use crate::plan::step::Step;
use crate::reconcile::engine::Engine;
use crate::render;
use crate::watch::manifests;

/// A period that no single sync sees the end of.
const NEVER: Duration = Duration::from_secs(3600);

/// Prints what would be programmed; failed if an object, or a part of one, would not be.
pub(super) fn run(config: &RenderConfig) -> anyhow::Result<Exit> {
    let updates = manifests::read_once(&config.manifests)?;
    let periods = Periods { sync: NEVER, min_sync: Duration::ZERO, audit: NEVER };
    let mut engine = Engine::new(config.policy.clone(), periods, Store::new(&Kind::ALL));
    let now = Instant::now();
    for update in updates {
        engine.note(update, now);
    }
    let node = engine.node().map(|node| node.addresses.clone()).unwrap_or_default();
    engine.sync(&mut Paper { addresses: node.into_iter().collect() }, || now);
    super::show(&render::text(engine.state().0.tables()))?;
    let rejected = engine.rejected();
    for rejected in &rejected {
        super::complain(&format!("rejected: {}: {}\n", rejected.object, rejected.reason));
    }
    Ok(if rejected.is_empty() { Exit::Done } else { Exit::Failed })
}

/// A node with nothing on it, that takes every step, has both families, and the addresses by which
/// its Node object knows it.
struct Paper {
    addresses: BTreeSet<IpAddr>,
}

impl Kernel for Paper {
    fn observe(&mut self, _: &Scope) -> Result<Observed, Error> {
        let host = Host {
            families: PerFamily { v4: true, v6: true },
            kernel: (6, 1),
            random_fully: true,
            addresses: self.addresses.clone(),
            ..Host::default()
        };
        Ok(Observed { host, ..Observed::default() })
    }

    fn apply(&mut self, _: &Step) -> Vec<Failure> {
        Vec::new()
    }
}
