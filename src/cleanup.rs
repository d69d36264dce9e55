//! `--cleanup`: removes everything of ours and what other modes of kube-proxy left behind, and only
//! that.
//!
//! It is a plan toward nothing, so what is ours is decided where it always is. Settings stay:
//! what they were before is not known, and others may rely on them by now. That goes for estimation
//! too, which an administrator may have turned off before us; but as no other proxy turns it on
//! again, the command that does is told.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::time::Instant;

use crate::config::Policy;
use crate::desired::{Desired, foundation};
use crate::kernel::{Error, Kernel};
use crate::model::iptables::Ruleset;
use crate::model::ipvs::ServerKey;
use crate::model::link::DEVICE;
use crate::model::observed::{Observed, Scope};
use crate::model::sysctl::{self, RUN_ESTIMATION};
use crate::model::tables::Tables;
use crate::plan::drain::Drains;
use crate::plan::mirror::Mirror;
use crate::plan::slow::Slow;
use crate::plan::step::Step;
use crate::plan::{self, Extent, Inputs, guard, owned};
use crate::reconcile::log;
use crate::reconcile::report::Report;
use crate::render;

/// Rounds of looking and removing; what failed may be free in the next.
const ROUNDS: u32 = 3;

/// What a person calls the rows of a kind of step, where its own word is not clear by itself.
const WORDS: [(&str, &str); 7] = [
    ("addresses", "service addresses"),
    ("chains", "iptables chains, IPv4 and IPv6"),
    ("device", "device kube-ipvs0"),
    ("entries", "set entries"),
    ("reals", "real servers"),
    (RULES, "iptables rules, IPv4 and IPv6"),
    ("servers", "virtual servers"),
];

/// The kind of step that is one row however many rules it is about.
const RULES: &str = "rules";

/// The kind of step that is told by name, not by number.
const LEFTOVERS: &str = "leftovers";

/// What is said before the virtual servers that were ours and stay.
const LEFT: &str = "\
left to others by --ipvs-exclude-cidrs, although made here; to remove them:
";

/// What is said before addresses on the device that others bound.
const STRANGERS: &str = "\
kube-ipvs0 stays, as addresses are bound to it that are not ours; to remove it with them:
";

/// Kernel: `run_estimation` is 1 in a network namespace where nobody has set it.
const TURN_ON_ESTIMATION: &str = "\
to have IPVS gather counts and rates again, for ipvsadm --stats and exporters:
  sysctl net.ipv4.vs.run_estimation=1
";

/// What a cleanup came to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outcome {
    /// What was removed; failures are those of the last round.
    pub report: Report,
    /// Rules that were removed.
    pub rules: usize,
    /// What is there still, by kind.
    pub remaining: BTreeMap<&'static str, usize>,
    /// Virtual servers that were on record as ours, and are left to others as they were asked to be.
    pub left: BTreeSet<ServerKey>,
    /// Addresses of others that keep the device.
    pub strangers: BTreeSet<IpAddr>,
    /// Settings that are as the daemon wants them, and stay so.
    pub settings: Vec<(String, String)>,
}

/// Removes everything of ours, and of other modes of kube-proxy, from the kernel.
pub fn run(kernel: &mut impl Kernel, policy: &Policy) -> Result<Outcome, Error> {
    let mut outcome = Outcome::default();
    let mut nothing = Desired::leaving_out(&policy.excluded);
    nothing.remove_leftovers(true);
    for _ in 0..ROUNDS {
        let observed = kernel.observe(&Scope::Everything)?;
        outcome.settings = settings(&observed, policy);
        let seen = &observed.tables;
        let is_given_up = |key: &&ServerKey| owned::is_given_up(&nothing, seen, key);
        let left: BTreeSet<ServerKey> = seen.servers.keys().filter(is_given_up).copied().collect();
        // Whoever stops it halfway could not learn of them any more.
        log::given_up(left.difference(&outcome.left));
        outcome.left.extend(left);
        let (mut mirror, steps) = plan(observed, &nothing);
        if steps.is_empty() {
            outcome.strangers = strangers(&mirror.tables);
            return Ok(outcome);
        }
        let before = rules(&mirror);
        outcome.report = remove(kernel, &nothing, &mut mirror, steps).after(outcome.report);
        outcome.rules += before.saturating_sub(rules(&mirror));
    }
    let (mirror, steps) = plan(kernel.observe(&Scope::Everything)?, &nothing);
    for step in &steps {
        *outcome.remaining.entry(step.kind()).or_default() += step.len();
    }
    outcome.remaining.entry(RULES).and_modify(|number| *number = rules(&mirror));
    Ok(outcome)
}

/// The steps from what was seen to nothing.
fn plan(observed: Observed, nothing: &Desired) -> (Mirror, Vec<Step>) {
    let mut mirror = Mirror::default();
    mirror.replace(observed.tables);
    mirror.host_addresses = observed.host.addresses;
    let (drains, slow) = (Drains::default(), Slow::default());
    // No draining here, so the moment does not matter.
    let now = Instant::now();
    let inputs = Inputs { desired: nothing, mirror: &mirror, drains: &drains, slow: &slow, now };
    let steps = plan::build(inputs, &Extent::All);
    (mirror, steps)
}

fn remove(
    kernel: &mut impl Kernel,
    nothing: &Desired,
    mirror: &mut Mirror,
    steps: Vec<Step>,
) -> Report {
    let mut report = Report::default();
    for step in steps {
        let Some(step) = guard::admit(step, nothing, mirror, None) else { continue };
        let failures = kernel.apply(&step);
        let failed: BTreeSet<usize> = failures.iter().map(|failure| failure.index).collect();
        mirror.note(&step, &failed);
        report.note(&step, &failures, |_| false);
    }
    report
}

/// What is bound to the device when all of ours is gone.
fn strangers(seen: &Tables) -> BTreeSet<IpAddr> {
    let bound = seen.addresses.iter().filter(|(_, binding)| binding.address);
    bound.map(|(address, _)| *address).collect()
}

/// Rules of ours that are there, of both families.
fn rules(mirror: &Mirror) -> usize {
    mirror.tables.rulesets.values().map(Ruleset::number_of_rules).sum()
}

/// Settings of the daemon that the host has.
fn settings(observed: &Observed, policy: &Policy) -> Vec<(String, String)> {
    let wanted = foundation::tables(policy, &observed.host, &[]).settings;
    let there = &observed.tables.settings;
    wanted.into_iter().filter(|(path, value)| there.get(path) == Some(value)).collect()
}

fn words(kind: &str) -> &str {
    WORDS.iter().find(|(word, _)| *word == kind).map_or(kind, |(_, words)| words)
}

impl Outcome {
    /// Whether nothing of ours is left.
    pub fn is_complete(&self) -> bool {
        self.remaining.is_empty()
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write_removed(f)?;
        if !self.is_complete() {
            self.write_remaining(f)?;
        }
        self.write_left(f)?;
        self.write_strangers(f)?;
        self.write_settings(f)
    }
}

impl Outcome {
    fn write_removed(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.report.changes() {
            0 => writeln!(f, "nothing to remove")?,
            _ => writeln!(f, "removed:")?,
        }
        let counts = self.report.counts.iter().filter(|(kind, _)| **kind != LEFTOVERS);
        for (kind, counts) in counts {
            let number = if *kind == RULES { self.rules } else { counts.removed + counts.changed };
            if number > 0 {
                writeln!(f, "  {}: {number}", words(kind))?;
            }
        }
        self.report.taken_away.iter().try_for_each(|leftover| writeln!(f, "  {leftover}"))
    }

    fn write_remaining(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "still there:")?;
        for (kind, number) in &self.remaining {
            writeln!(f, "  {}: {number}", words(kind))?;
        }
        let failed = self.report.failed.iter().chain(&self.report.leftover);
        let errors: BTreeSet<&str> = failed.map(|failed| failed.error.as_str()).collect();
        errors.iter().try_for_each(|error| writeln!(f, "  {error}"))?;
        writeln!(f, "once what is named here is mended, run --cleanup again")
    }

    /// All of them: no later cleanup can tell them from those of others.
    fn write_left(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.left.is_empty() {
            f.write_str(LEFT)?;
        }
        let address = |key| render::virtual_address(key);
        self.left.iter().try_for_each(|key| writeln!(f, "  ipvsadm -D {}", address(key)))
    }

    fn write_strangers(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.strangers.is_empty() {
            return Ok(());
        }
        f.write_str(STRANGERS)?;
        self.strangers.iter().try_for_each(|address| writeln!(f, "  {address}"))?;
        writeln!(f, "  ip link delete {DEVICE}")
    }

    fn write_settings(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.settings.is_empty() {
            writeln!(f, "left as they are, since others may rely on them:")?;
        }
        for (path, value) in &self.settings {
            writeln!(f, "  {} = {value}", sysctl::name(path))?;
        }
        match self.gathers_nothing() {
            true => f.write_str(TURN_ON_ESTIMATION),
            false => Ok(()),
        }
    }

    /// Whether IPVS is left without counts and rates.
    fn gathers_nothing(&self) -> bool {
        self.settings.iter().any(|(path, value)| path == RUN_ESTIMATION && value == "0")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::Kind;
    use crate::cluster::store::Store;
    use crate::config::Periods;
    use crate::model::iptables::{ChainKey, TableName};
    use crate::model::ipvs::{Server, VirtualServer};
    use crate::model::link::Binding;
    use crate::model::net::Family;
    use crate::reconcile::engine::Engine;
    use crate::testing::fake_kernel::{FakeKernel, Fault, Faults};
    use crate::testing::log::logged;
    use crate::testing::objects;
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::time::Duration;
    use tracing::Level;

    /// A host that the daemon has programmed with one Service.
    fn programmed() -> FakeKernel {
        let hour = Duration::from_secs(3600);
        let periods = Periods { sync: hour, min_sync: Duration::ZERO, audit: hour };
        let store = Store::new(&[Kind::Service]);
        let mut engine = Engine::new(objects::policy(), periods, store);
        let now = Instant::now();
        engine.note(objects::service("default/web", &["10.96.0.1"], &["tcp 80"]).applied(), now);
        engine.note(crate::cluster::Update::ListDone(Kind::Service), now);
        let mut kernel = FakeKernel::default();
        let report = engine.sync(&mut kernel, || now);
        assert!(report.is_complete(), "{report}");
        assert_eq!((kernel.tables.servers.len(), kernel.tables.addresses.len()), (1, 1));
        kernel
    }

    #[test]
    fn everything_of_ours_goes_and_nothing_else() {
        let mut kernel = programmed();
        let config =
            VirtualServer { scheduler: "rr".into(), scheduler_flags: 0, persistence: None };
        let server = Server { config, reals: BTreeMap::new() };
        let foreign = (objects::front("tcp 192.0.2.1:80"), server.into());
        kernel.tables.servers.extend([foreign.clone()]);
        let settings = kernel.tables.settings.clone();
        let rules: usize = kernel.tables.rulesets.values().map(Ruleset::number_of_rules).sum();

        let outcome = run(&mut kernel, &objects::policy()).unwrap();
        assert!(outcome.is_complete(), "{outcome}");
        assert_eq!(kernel.tables.servers, BTreeMap::from([foreign]));
        assert!(kernel.tables.sets.is_empty() && kernel.tables.entries.is_empty());
        assert!(kernel.tables.addresses.is_empty() && !kernel.tables.device);
        assert!(kernel.tables.rulesets.values().all(|ruleset| ruleset.is_empty()));
        assert_eq!(kernel.tables.settings, settings);

        let text = outcome.to_string();
        let removed = "removed:\n  service addresses: 1\n  iptables chains, IPv4 and IPv6: 24\n  \
            device kube-ipvs0: 1\n  set entries: ";
        assert!(text.starts_with(removed), "{text}");
        let others = ["\n  sets: ", "\n  virtual servers: 1\n"];
        let rules = format!("\n  iptables rules, IPv4 and IPv6: {rules}\n");
        assert!(others.iter().all(|words| text.contains(words)) && text.contains(&rules), "{text}");
        let kept = "left as they are, since others may rely on them:\n  net.ipv4.ip_forward = 1\n";
        assert!(text.contains(kept), "{text}");
        assert!(text.contains("  net.ipv4.vs.run_estimation = 0\n"), "{text}");
        assert!(text.ends_with("\n  sysctl net.ipv4.vs.run_estimation=1\n"), "{text}");
        let again = run(&mut kernel, &objects::policy()).unwrap().to_string();
        assert!(again.starts_with("nothing to remove\n"), "{again}");
    }

    #[test]
    fn addresses_of_others_keep_the_device_and_are_told() {
        let mut kernel = programmed();
        let foreign = "192.0.2.7".parse().unwrap();
        kernel.tables.addresses.insert(foreign, Binding::ADDRESS);
        let outcome = run(&mut kernel, &objects::policy()).unwrap();
        assert!(outcome.is_complete() && kernel.tables.device, "{outcome}");
        assert_eq!(outcome.strangers, [foreign].into());
        let told = "that are not ours; to remove it with them:\n  192.0.2.7\n  \
                    ip link delete kube-ipvs0\n";
        assert!(outcome.to_string().contains(told), "{outcome}");
    }

    #[test]
    fn what_is_left_to_others_and_was_ours_is_told_with_the_commands_that_remove_it() {
        let mut kernel = programmed();
        let ours = objects::front("tcp 10.96.0.1:80");
        let server = kernel.tables.servers[&ours].clone();
        kernel.tables.servers.insert(objects::front("tcp 10.96.0.2:80"), server);
        let before = kernel.tables.servers.clone();
        let excluded = vec!["10.96.0.0/24".parse().unwrap()];
        let policy = Policy { excluded, ..objects::policy() };

        let outcome = run(&mut kernel, &policy).unwrap();
        assert!(outcome.is_complete(), "{outcome}");
        assert_eq!((kernel.tables.servers, outcome.left), (before, [ours].into()));
        assert!(kernel.tables.sets.is_empty() && kernel.tables.addresses.is_empty());
    }

    /// Killed right behind, nobody could name them any more.
    #[test]
    fn what_is_left_to_others_is_named_before_anything_goes() {
        let mut kernel = programmed();
        kernel.faults = Faults::When(|_| panic!("killed"), Fault::Refused);
        let excluded = vec!["10.96.0.0/24".parse().unwrap()];
        let policy = Policy { excluded, ..objects::policy() };
        let lines = logged(Level::WARN, || {
            catch_unwind(AssertUnwindSafe(|| run(&mut kernel, &policy)))
                .expect_err("nothing was to go");
        });
        assert!(lines.len() == 1 && lines[0].contains("tcp 10.96.0.1:80"), "{lines:?}");
    }

    #[test]
    fn the_commands_name_protocols_and_families_as_the_tool_does() {
        let fronts = ["tcp 10.96.0.1:80", "sctp 10.96.0.1:81", "udp [fd00::1]:53"];
        let left = fronts.map(objects::front).into();
        let text = Outcome { left, ..Outcome::default() }.to_string();
        let expected = "left to others by --ipvs-exclude-cidrs, although made here; \
                        to remove them:\n  ipvsadm -D -t 10.96.0.1:80\n  \
                        ipvsadm -D --sctp-service 10.96.0.1:81\n  ipvsadm -D -u [fd00::1]:53\n";
        assert!(text.ends_with(expected), "{text}");
        assert!(!Outcome::default().to_string().contains("ipvsadm"));
    }

    #[test]
    fn estimation_that_is_on_needs_no_command() {
        let policy = Policy { ipvs_estimation: true, ..objects::policy() };
        let mut kernel = FakeKernel::default();
        kernel.tables.settings = foundation::tables(&policy, &kernel.host, &[]).settings;
        let text = run(&mut kernel, &policy).unwrap().to_string();
        assert!(text.contains("  net.ipv4.vs.run_estimation = 1\n"), "{text}");
        assert!(!text.contains("sysctl"), "{text}");
    }

    #[test]
    fn a_chain_that_others_lead_to_is_named_and_all_else_goes() {
        let mut kernel = programmed();
        let name = "KUBE-MARK-MASQ".to_string();
        let chain = ChainKey { family: Family::V4, table: TableName::Nat, name };
        kernel.held_chains.insert(chain.clone());
        let outcome = run(&mut kernel, &objects::policy()).unwrap();
        assert_eq!(outcome.remaining, [("chains", 1)].into());
        let tables = &kernel.tables;
        assert!(tables.sets.is_empty() && !tables.device);
        let left: Vec<_> =
            tables.rulesets.iter().flat_map(|(family, rules)| rules.chains(*family)).collect();
        assert_eq!(left, [chain]);
        assert!(tables.rulesets[&Family::V4].has_effect_of(&Ruleset::default()));
        let text = outcome.to_string();
        assert!(text.contains("still there:\n  iptables chains, IPv4 and IPv6: 1\n"), "{text}");
        assert!(text.contains("IPv4 nat KUBE-MARK-MASQ is in use"), "{text}");
        let again = "\nonce what is named here is mended, run --cleanup again\n";
        assert!(text.contains(again), "{text}");
    }

    #[test]
    fn what_cannot_be_removed_is_named() {
        let mut kernel = programmed();
        kernel.faults = Faults::When(|step| matches!(step, Step::Servers(_)), Fault::Refused);
        let outcome = run(&mut kernel, &objects::policy()).unwrap();
        assert!(!outcome.is_complete());
        let text = outcome.to_string();
        let (_, rest) = text.split_once("still there:\n").unwrap();
        assert!(rest.contains("  virtual servers: 1\n"), "{text}");
        assert_eq!(kernel.tables.servers.len(), 1);

        let mut kernel = programmed();
        let of_family = |family| kernel.tables.rulesets[&family].number_of_rules();
        let [gone, left] = [Family::V4, Family::V6].map(of_family);
        let is_of_v6 =
            |step: &Step| matches!(step, Step::Rules(rules) if rules.family == Family::V6);
        kernel.faults = Faults::When(is_of_v6, Fault::Refused);
        let text = run(&mut kernel, &objects::policy()).unwrap().to_string();
        for (heading, number) in [("removed:\n", gone), ("still there:\n", left)] {
            let (_, rest) = text.split_once(heading).unwrap();
            let line = rest.lines().find(|line| line.contains("rules")).unwrap();
            assert_eq!(line, format!("  iptables rules, IPv4 and IPv6: {number}"), "{text}");
        }
    }
}
