//! Another configuration while the work goes on.

use std::time::Instant;

use super::Engine;
use crate::config::{Periods, Policy};
use crate::plan::Extent;

impl Engine {
    /// Takes over another configuration; true if a sync is due for it, which computes all rows
    /// anew.
    ///
    /// The node's name must be the same: what the store knows was asked for by that name.
    pub fn reconfigure(&mut self, policy: Policy, periods: Periods, now: Instant) -> bool {
        self.pace.set_periods(periods);
        if self.policy == policy {
            return false;
        }
        self.desired.leave_out(&policy.excluded);
        self.drains.set_timeouts(policy.drain_timeouts);
        // No row tells how long a drain may take, so none is touched by it.
        let draining = self.drains.deadlines().map(|drain| drain.server).collect();
        self.track(&draining, now);
        if self.policy.removes_leftovers != policy.removes_leftovers {
            self.desired.remove_leftovers(policy.removes_leftovers);
            self.unfinished = Some(Extent::All);
        }
        self.policy = policy;
        self.dirty.node = true;
        self.dirty.service_cidrs = true;
        self.dirty.services.extend(self.desired.services().cloned());
        self.pace.request(now);
        true
    }
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::time::Duration;

    use tracing::Level;

    use super::*;
    use crate::cluster::Update;
    use crate::config::{Conntrack, DetectLocal, NodePortAddresses};
    use crate::model::net::PerFamily;
    use crate::plan::step::Step;
    use crate::testing::fake_kernel::{FakeKernel, Fault, Faults};
    use crate::testing::log::logged;
    use crate::testing::node::Node;
    use crate::testing::objects::*;

    const PERIODS: Periods = Periods {
        sync: Duration::from_secs(7),
        min_sync: Duration::ZERO,
        audit: Duration::from_secs(3600),
    };

    fn objects() -> [Update; 2] {
        let web = service("default/web", &["10.96.0.1", "fd00::1"], &["tcp 80", "udp 53"]);
        let pods = ["10.244.0.1", "10.244.0.2"].map(|address| on_node(endpoint(address)));
        [web.applied(), slice_applied("default/web", &["tcp 8080", "udp 5353"], &pods)]
    }

    fn policies() -> [Policy; 6] {
        let plain = policy();
        let ranges = PerFamily { v4: "10.244.0.0/16".parse().ok(), v6: None };
        let conntrack = Conntrack { udp: Duration::from_secs(9), ..Conntrack::default() };
        [
            Policy { scheduler: "sh".into(), ..plain.clone() },
            Policy { masquerade_all: true, masquerade_bit: 3, ..plain.clone() },
            Policy { detect_local: DetectLocal::ClusterCidr(ranges), ..plain.clone() },
            Policy { service_cidrs: vec!["10.96.0.0/12".parse().unwrap()], ..plain.clone() },
            Policy { node_port_addresses: NodePortAddresses::Primary, ..plain.clone() },
            Policy { strict_arp: true, conntrack, ..plain },
        ]
    }

    #[test]
    fn a_change_comes_to_what_a_start_comes_to() {
        for policy in policies() {
            let mut node = Node::new(objects());
            node.sync();
            node.engine.reconfigure(policy.clone(), PERIODS, node.now);
            assert!(node.sync().is_complete());
            let mut fresh = Node::with(policy.clone(), FakeKernel::default(), objects());
            fresh.sync();
            assert_eq!(node.kernel.tables, fresh.kernel.tables, "{policy:?}");
            let writes = node.kernel.writes;
            node.sync();
            assert_eq!(node.kernel.writes, writes, "{policy:?}");
        }
    }

    #[test]
    fn ranges_that_are_left_to_others_are_left_at_once_and_taken_back() {
        let mut node = Node::new(objects());
        node.sync();
        let (with, servers) = (policy(), node.kernel.tables.servers.clone());
        let excluded = vec!["10.96.0.0/12".parse().unwrap()];
        let without = Policy { excluded, ..policy() };
        node.engine.reconfigure(without, PERIODS, node.now);
        node.sync();
        assert!(!node.engine.rejected().is_empty());
        assert_eq!(node.kernel.tables.servers, servers);
        node.engine.reconfigure(with, PERIODS, node.now);
        node.sync();
        assert_eq!(node.engine.rejected(), []);
        let mut fresh = Node::new(objects());
        fresh.sync();
        assert_eq!(node.kernel.tables, fresh.kernel.tables);
    }

    /// A node whose IPv4 Services have just been left to others.
    fn leaving() -> Node {
        let mut node = Node::new(objects());
        node.sync();
        let excluded = vec!["10.96.0.0/12".parse().unwrap()];
        node.engine.reconfigure(Policy { excluded, ..policy() }, PERIODS, node.now);
        node
    }

    /// What is said, while something runs, of servers that are left to others.
    fn named(run: impl FnOnce()) -> Vec<String> {
        let mut lines = logged(Level::WARN, run);
        lines.retain(|line| line.contains("made here are left to others"));
        lines
    }

    #[test]
    fn servers_are_named_while_something_tells_still_that_they_were_made_here() {
        let mut node = leaving();
        node.kernel.faults = Faults::When(|_| panic!("killed"), Fault::Refused);
        let lines = named(|| {
            catch_unwind(AssertUnwindSafe(|| node.sync())).expect_err("nothing was to be done");
        });
        let expected = "count=2 servers=\"udp 10.96.0.1:53, tcp 10.96.0.1:80\" fix=";
        assert!(lines.len() == 1 && lines[0].contains(expected), "{lines:?}");
    }

    #[test]
    fn servers_are_named_once_each_time_that_they_are_left_to_others() {
        let mut node = leaving();
        node.kernel.faults = Faults::When(|step| matches!(step, Step::Entries(_)), Fault::Refused);
        let syncs = |node: &mut Node| {
            let sync = |node: &mut Node| {
                node.wait(60);
                named(|| drop(node.sync())).len()
            };
            [sync(node), sync(node)]
        };
        assert_eq!(syncs(&mut node), [1, 0], "removals from the record fail");
        node.kernel.faults = Faults::None;
        assert_eq!(syncs(&mut node), [0, 0]);
        node.engine.reconfigure(policy(), PERIODS, node.now);
        assert_eq!(syncs(&mut node), [0, 0]);
        let excluded = vec!["10.96.0.0/12".parse().unwrap()];
        node.engine.reconfigure(Policy { excluded, ..policy() }, PERIODS, node.now);
        assert_eq!(syncs(&mut node), [1, 0]);
    }

    #[test]
    fn other_periods_alone_ask_for_no_sync() {
        let mut node = Node::new(objects());
        node.sync();
        assert!(!node.engine.reconfigure(policy(), PERIODS, node.now));
        assert_eq!(node.engine.next_sync(), Some(node.now + PERIODS.sync));
    }
}
