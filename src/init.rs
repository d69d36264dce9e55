//! `--init-only`: the settings that need more rights than the daemon has otherwise.
//!
//! Run once with those rights, it leaves the daemon with `CAP_NET_ADMIN` and a read-only
//! `/proc/sys` enough: a setting that holds what is wanted is never written.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Instant;

use crate::config::Policy;
use crate::desired::{Desired, foundation};
use crate::kernel::{Error, Kernel};
use crate::model::leftover::Leftover;
use crate::model::observed::Scope;
use crate::model::sysctl;
use crate::model::tables::Tables;
use crate::plan::drain::Drains;
use crate::plan::mirror::Mirror;
use crate::plan::slow::Slow;
use crate::plan::step::{Change, Step};
use crate::plan::{self, Extent, Inputs};
use crate::reconcile::report::Report;

/// Settings that are named at most; a node may have one for each of very many interfaces.
const MOST_NAMED: usize = 40;

/// What was done, and seen on the way.
#[derive(Debug)]
pub struct Outcome {
    /// How many settings were made, and what failed.
    pub report: Report,
    /// The settings that were made, in order.
    pub made: Vec<Change<String, String>>,
    /// Whether all are made that Services rely on.
    pub is_enough: bool,
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
    let (mut report, mut made, mut is_enough) = (Report::default(), Vec::new(), true);
    let (drains, slow) = (Drains::default(), Slow::default());
    // Nothing drains here, so the moment does not matter.
    let now = Instant::now();
    let inputs = Inputs { desired: &desired, mirror: &mirror, drains: &drains, slow: &slow, now };
    for step in plan::build(inputs, &Extent::All) {
        let failures = kernel.apply(&step);
        let failed: BTreeSet<usize> = failures.iter().map(|failure| failure.index).collect();
        mirror.note(&step, &failed);
        report.note(&step, &failures, |_| false);
        for (index, change) in settings(step).into_iter().enumerate() {
            match failed.contains(&index) {
                true => is_enough &= sysctl::is_tuning(&change.key),
                false => made.push(change),
            }
        }
    }
    Ok(Outcome { report, made, is_enough, leftovers })
}

fn settings(step: Step) -> Vec<Change<String, String>> {
    match step {
        Step::Settings(changes) => changes,
        _ => Vec::new(),
    }
}

/// As if there were nothing else.
fn only_settings(tables: Tables) -> Tables {
    Tables { settings: tables.settings, ..Tables::default() }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.report.fmt(f)?;
        if self.is_enough && !self.report.failed.is_empty() {
            writeln!(f, "no Service relies on what failed; the daemon tries it again")?;
        }
        for Change { key, from, to } in self.made.iter().take(MOST_NAMED) {
            let (name, value) = (sysctl::name(key), to.as_deref().unwrap_or_default());
            match from {
                Some(before) => writeln!(f, "  {name} = {value}, was {before}")?,
                None => writeln!(f, "  {name} = {value}")?,
            }
        }
        match self.made.len().saturating_sub(MOST_NAMED) {
            0 => Ok(()),
            more => writeln!(f, "  and {more} more"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::net::Family;
    use crate::testing::fake_kernel::{FakeKernel, Fault, Faults};
    use crate::testing::objects;

    #[test]
    fn settings_are_made_and_nothing_else() {
        let mut kernel = FakeKernel::default();
        let left_behind = BTreeSet::from([Leftover::Table(Family::V4)]);
        kernel.tables.leftovers.clone_from(&left_behind);
        let before = kernel.tables.clone();
        let policy = objects::policy();
        let outcome = run(&mut kernel, &policy).expect("readable");
        let Outcome { report, made, is_enough, leftovers } = outcome;
        assert_eq!((leftovers, is_enough), (left_behind, true));
        assert!(report.changes() > 0 && report.failed.is_empty(), "{report}");
        assert_eq!(made.len(), report.changes());
        let wanted = foundation::tables(&policy, &kernel.host, &[]).settings;
        assert!(wanted.iter().all(|(path, value)| kernel.tables.settings.get(path) == Some(value)));
        assert_eq!(Tables { settings: before.settings.clone(), ..kernel.tables.clone() }, before);
        assert_eq!(run(&mut kernel, &policy).expect("readable").report.changes(), 0);
    }

    #[test]
    fn settings_that_were_made_are_named_with_what_they_were() {
        const CONNTRACK: &str = "net/ipv4/vs/conntrack";
        const EXPIRE: &str = "net/ipv4/vs/expire_nodest_conn";
        let mut kernel = FakeKernel::default();
        let policy = objects::policy();
        let wanted = foundation::tables(&policy, &kernel.host, &[]).settings;
        kernel.tables.settings.clone_from(&wanted);
        for (path, value) in [(CONNTRACK, "0"), (EXPIRE, "0")] {
            assert!(kernel.tables.settings.insert(path.into(), value.into()).is_some(), "{path}");
        }
        let is_expire = |step: &Step| matches!(step, Step::Settings(all) if all[0].key == EXPIRE);
        kernel.faults = Faults::When(is_expire, Fault::Refused);
        let outcome = run(&mut kernel, &policy).expect("readable");
        let told = outcome.to_string();
        assert!(told.ends_with("\n  net.ipv4.vs.conntrack = 1, was 0\n"), "{told}");
        assert!(told.starts_with("0 added, 1 changed, 0 removed, 1 failed\n"), "{told}");
        assert!(!outcome.is_enough && !told.contains("no Service relies"), "{told}");
    }

    #[test]
    fn settings_that_only_tune_may_fail() {
        let mut kernel = FakeKernel::default();
        let policy = Policy { strict_arp: true, ..objects::policy() };
        let tunes =
            |step: &Step| matches!(step, Step::Settings(all) if sysctl::is_tuning(&all[0].key));
        kernel.faults = Faults::When(tunes, Fault::Refused);
        let outcome = run(&mut kernel, &policy).expect("readable");
        let failed = outcome.report.failed.len();
        assert!(outcome.is_enough && failed > sysctl::STRICT_ARP.len(), "{outcome}");
        assert!(outcome.to_string().contains("\nno Service relies on what failed;"), "{outcome}");
    }

    #[test]
    fn settings_are_named_up_to_a_bound() {
        let name = |number| format!("net/ipv6/conf/veth{number}/accept_ra");
        let made = (0..MOST_NAMED + 2).map(|number| Change::add(name(number), "2".to_string()));
        let (report, leftovers) = (Report::default(), BTreeSet::new());
        let outcome = Outcome { report, made: made.collect(), is_enough: true, leftovers };
        let told = outcome.to_string();
        assert_eq!(told.matches("accept_ra = 2\n").count(), MOST_NAMED);
        assert!(told.ends_with("\n  and 2 more\n"), "{told}");
    }
}
