//! A node in memory: the engine over the fake kernel, with a clock of its own.

use std::time::{Duration, Instant};

use super::fake_kernel::FakeKernel;
use super::{objects, parts};
use crate::cluster::store::Store;
use crate::cluster::{Kind, Update};
use crate::config::{Periods, Policy};
use crate::reconcile::engine::Engine;
use crate::reconcile::report::Report;

/// A node, ready for its first sync.
pub struct Node {
    /// The engine.
    pub engine: Engine,
    /// The host.
    pub kernel: FakeKernel,
    /// Time.
    pub now: Instant,
    policy: Policy,
}

impl Node {
    /// A node of a cluster with these objects.
    pub fn new(updates: impl IntoIterator<Item = Update>) -> Self {
        Node::on(FakeKernel::default(), updates)
    }

    /// The same on a host that is not empty.
    pub fn on(kernel: FakeKernel, updates: impl IntoIterator<Item = Update>) -> Self {
        Node::with(objects::policy(), kernel, updates)
    }

    /// The same with another policy.
    pub fn with(
        policy: Policy,
        kernel: FakeKernel,
        updates: impl IntoIterator<Item = Update>,
    ) -> Self {
        let engine = engine(&policy);
        let mut node = Node { engine, kernel, now: Instant::now(), policy };
        node.tell(objects::listed(updates));
        node
    }

    /// Something happens in the cluster.
    pub fn tell(&mut self, updates: impl IntoIterator<Item = Update>) {
        for update in updates {
            self.engine.note(update, self.now);
        }
    }

    /// The program starts anew and knows these objects.
    pub fn restart(&mut self, updates: impl IntoIterator<Item = Update>) {
        self.engine = engine(&self.policy);
        self.tell(objects::listed(updates));
    }

    /// The same, and knows the deadlines of drains that were on record.
    pub fn restart_on_record(&mut self, updates: impl IntoIterator<Item = Update>) {
        let deadlines = self.engine.drains().deadlines().collect();
        self.restart(updates);
        self.engine.remember(deadlines);
    }

    /// The same with another policy.
    pub fn restart_with(&mut self, policy: Policy, updates: impl IntoIterator<Item = Update>) {
        self.policy = policy;
        self.restart(updates);
    }

    /// Time passes.
    pub fn wait(&mut self, seconds: u64) {
        self.now += Duration::from_secs(seconds);
    }

    /// A little time passes.
    pub fn pass(&mut self, millis: u64) {
        self.now += Duration::from_millis(millis);
    }

    /// One sync.
    pub fn sync(&mut self) -> Report {
        self.kernel.history.clear();
        let now = self.now;
        self.engine.sync(&mut self.kernel, || now)
    }

    /// An audit is read, each part as the kernel is at that moment; something happens in between.
    pub fn tell_parts(&mut self, mut between: impl FnMut(&mut Self)) {
        for read in parts::READINGS {
            for part in read(&self.kernel) {
                between(self);
                self.engine.note_part(&part, self.now);
            }
        }
    }

    /// One sync, as the text of the operations that took effect.
    pub fn changes(&mut self) -> String {
        self.sync();
        self.kernel.history.iter().map(ToString::to_string).collect()
    }
}

fn engine(policy: &Policy) -> Engine {
    let periods = Periods {
        sync: Duration::from_secs(30),
        min_sync: Duration::ZERO,
        audit: Duration::from_secs(3600),
    };
    Engine::new(policy.clone(), periods, Store::new(&Kind::ALL))
}
