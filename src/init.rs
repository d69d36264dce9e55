//! `--init-only`: the settings that need more rights than the daemon has otherwise.
//!
//! Run once with those rights, it leaves the daemon with `CAP_NET_ADMIN` and a read-only
//! `/proc/sys` enough: a setting that holds what is wanted is never written.

use std::collections::BTreeSet;
use std::time::Instant;

use crate::config::Policy;
use crate::desired::{Desired, foundation};
use crate::kernel::{Error, Kernel};
use crate::model::leftover::Leftover;
use crate::model::observed::Scope;
use crate::model::tables::Tables;
use crate::plan::drain::Drains;
use crate::plan::mirror::Mirror;
use crate::plan::slow::Slow;
use crate::plan::{self, Extent, Inputs};
use crate::reconcile::report::Report;

/// What was done, and seen on the way.
#[derive(Debug)]
pub struct Outcome {
    /// The settings that were made.
    pub report: Report,
    /// What other modes of kube-proxy left behind.
    pub leftovers: BTreeSet<Leftover>,
}

/// Makes the settings, and nothing else.
pub fn run(kernel: &mut impl Kernel, policy: &Policy) -> Result<Outcome, Error> {
    let observed = kernel.observe(&Scope::Everything)?;
    let wanted = foundation::tables(policy, &observed.host, &[]);
    let mut desired = Desired::default();
    desired.set_foundation(only_settings(wanted));
    let mut mirror = Mirror::default();
    let leftovers = observed.tables.leftovers.clone();
    mirror.replace(only_settings(observed.tables));
    let mut report = Report::default();
    let (drains, slow) = (Drains::default(), Slow::default());
    // Nothing drains here, so the moment does not matter.
    let now = Instant::now();
    let inputs = Inputs { desired: &desired, mirror: &mirror, drains: &drains, slow: &slow, now };
    for step in plan::build(inputs, &Extent::All) {
        let failures = kernel.apply(&step);
        let failed: BTreeSet<usize> = failures.iter().map(|failure| failure.index).collect();
        mirror.note(&step, &failed);
        report.note(&step, &failures, |_| false);
    }
    Ok(Outcome { report, leftovers })
}

/// As if there were nothing else.
fn only_settings(tables: Tables) -> Tables {
    Tables { settings: tables.settings, ..Tables::default() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::net::Family;
    use crate::testing::fake_kernel::FakeKernel;
    use crate::testing::objects;

    #[test]
    fn settings_are_made_and_nothing_else() {
        let mut kernel = FakeKernel::default();
        let left_behind = BTreeSet::from([Leftover::Table(Family::V4)]);
        kernel.tables.leftovers.clone_from(&left_behind);
        let before = kernel.tables.clone();
        let policy = objects::policy();
        let Outcome { report, leftovers } = run(&mut kernel, &policy).expect("readable");
        assert_eq!(leftovers, left_behind);
        assert!(report.changes() > 0 && report.failed.is_empty(), "{report}");
        let wanted = foundation::tables(&policy, &kernel.host, &[]).settings;
        assert!(wanted.iter().all(|(path, value)| kernel.tables.settings.get(path) == Some(value)));
        assert_eq!(Tables { settings: before.settings.clone(), ..kernel.tables.clone() }, before);
        assert_eq!(run(&mut kernel, &policy).expect("readable").report.changes(), 0);
    }
}
