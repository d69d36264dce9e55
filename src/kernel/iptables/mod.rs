//! Rules through the host's own `iptables-save` and `iptables-restore`.
//!
//! A host has up to two sets of tables, nf_tables and legacy, and rules in both are both applied:
//! [`choose`] finds the one that the node's kubelet writes to.
//!
//! Invariant: a program runs only when asked to; nothing here polls.

mod leftovers;
mod parse;
mod users;
mod version;

use std::time::Duration;

use super::exec::{self, Call, Runner};
use crate::model::iptables::{Ruleset, Version};
use crate::model::net::Family;

pub use leftovers::{Extent, Leftovers};
pub use parse::parse;
pub use users::{Printed, Used};

/// How long listing may take.
const SAVE_LIMIT: Duration = Duration::from_secs(30);

/// How long loading may take; the wait for other programs' lock is part of it.
const RESTORE_LIMIT: Duration = Duration::from_secs(60);

/// Seconds to wait for other programs' lock.
const LOCK_SECONDS: &str = "5";

/// First version that knows `--random-fully` of `MASQUERADE`, and `-w` of `iptables-restore`.
const RANDOM_FULLY_VERSION: (u32, u32, u32) = (1, 6, 2);

/// Chains of kubelet in the mangle table; they tell which tables it uses.
const KUBELET_CHAINS: [&str; 2] = ["KUBE-IPTABLES-HINT", "KUBE-KUBELET-CANARY"];

/// What to install if a program is missing.
const PACKAGE: &str = "iptables";

/// What the programs say of a kernel that has no tables of a family.
const NO_TABLES: [&str; 3] = ["does not exist", "can't initialize", "Address family not supported"];

/// Why rules could not be listed or loaded.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A program failed.
    #[error(transparent)]
    Program(#[from] exec::Error),
    /// A line of the input was refused, and with it all of its table.
    #[error("line {number} was refused: {line:?}")]
    Line {
        /// Its number, from 1.
        number: usize,
        /// Its text.
        line: String,
        /// What the program said.
        #[source]
        source: exec::Error,
    },
    /// Someone made the table's chains in a way that the program cannot show.
    #[error(
        "table {table} holds nftables rules that iptables cannot show: \
         remove them with nft, or keep them in a table of another name"
    )]
    Incompatible {
        /// The table.
        table: String,
    },
    /// The program's version is not in its answer.
    #[error("no version in the answer of {program}: {answer:?}")]
    Version {
        /// The program.
        program: String,
        /// What it said.
        answer: String,
    },
}

impl Error {
    /// Whether the host lacks the program or the kernel the tables, now and the next time.
    pub fn is_lacking(&self) -> bool {
        match self {
            Error::Program(exec::Error::Missing { .. }) => true,
            Error::Program(exec::Error::Failed { complaint, .. }) => {
                NO_TABLES.iter().any(|words| complaint.contains(words))
            }
            _ => false,
        }
    }
}

/// Which of a host's tables to use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Variant {
    /// Those of nf_tables.
    NfTables,
    /// Those of before nf_tables.
    Legacy,
    /// Whatever the program without a suffix uses.
    Plain,
}

/// What speaks for a variant.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Evidence {
    /// Whether a chain of kubelet is in the mangle table.
    pub has_kubelet_chain: bool,
    /// Number of rules.
    pub rules: usize,
    /// Whether kube-proxy has made a chain there, or we.
    pub has_kube_proxy_chain: bool,
}

/// The host's programs for rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tools {
    /// Which tables they use.
    pub variant: Variant,
    /// Their version, of IPv4.
    pub version: Version,
    /// Whether the tables of both families are nf_tables.
    pub is_nf_tables: bool,
    /// The variant that they do not use, if kube-proxy has chains there.
    pub other: Option<Variant>,
}

/// What a family holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listing {
    /// What is ours.
    pub ruleset: Ruleset,
    /// Whether kube-proxy's iptables mode left chains behind.
    pub has_leftovers: bool,
}

impl Tools {
    /// Looks at the host; fails if there is no working `iptables` for IPv4.
    ///
    /// Whether there is one for IPv6 is for the caller to find out: a host may do without.
    pub fn detect(runner: &mut Runner) -> Result<Self, Error> {
        let legacy = gather(runner, Variant::Legacy);
        let nf_tables = gather(runner, Variant::NfTables);
        let variant = choose(legacy, nf_tables);
        let version = variant.version(runner, Family::V4)?;
        let other = match (variant, version.is_nf_tables) {
            (Variant::NfTables, _) | (Variant::Plain, true) => (Variant::Legacy, legacy),
            (Variant::Legacy, _) | (Variant::Plain, false) => (Variant::NfTables, nf_tables),
        };
        let has_chains = other.1.is_some_and(|evidence| evidence.has_kube_proxy_chain);
        let other = has_chains.then_some(other.0);
        // The administrator may have chosen otherwise for IPv6; a host may do without it.
        let ipv6 = variant.version(runner, Family::V6);
        let is_nf_tables = version.is_nf_tables && ipv6.is_ok_and(|ipv6| ipv6.is_nf_tables);
        let tools = Tools { variant, version, is_nf_tables, other };
        tools.save(runner, Family::V4)?;
        Ok(tools)
    }

    /// Whether `MASQUERADE --random-fully` is known.
    pub fn knows_random_fully(&self) -> bool {
        self.version.number >= RANDOM_FULLY_VERSION
    }

    /// What a family holds of ours.
    pub fn save(&self, runner: &mut Runner, family: Family) -> Result<Ruleset, Error> {
        self.variant.save(runner, family)
    }

    /// The same, and whether iptables mode left something behind.
    pub fn list(&self, runner: &mut Runner, family: Family) -> Result<Listing, Error> {
        let text = saved(runner, self.variant, family)?;
        let has_leftovers = !Leftovers::find(&text, Extent::NotOurs).is_empty();
        Ok(Listing { ruleset: parse(&text)?, has_leftovers })
    }

    /// Whether kube-proxy has chains of a family in the variant that is not used.
    pub fn has_leftovers_in_other(
        &self,
        runner: &mut Runner,
        family: Family,
    ) -> Result<bool, Error> {
        let Some(other) = self.other else { return Ok(false) };
        let text = saved(runner, other, family)?;
        Ok(!Leftovers::find(&text, Extent::Everything).is_empty())
    }

    /// Removes what kube-proxy left behind in a family: of iptables mode next to our rules, or of
    /// any mode in the variant that is not used.
    pub fn remove_leftovers(
        &self,
        runner: &mut Runner,
        family: Family,
        extent: Extent,
    ) -> Result<(), Error> {
        let variant = match extent {
            Extent::NotOurs => Some(self.variant),
            Extent::Everything => self.other,
        };
        let Some(variant) = variant else { return Ok(()) };
        let text = saved(runner, variant, family)?;
        let tools = Tools { variant, ..*self };
        match Leftovers::find(&text, extent) {
            none if none.is_empty() => Ok(()),
            found => tools.restore(runner, family, &found.removal()),
        }
    }

    /// The rules of a family that use something of ours, each as the command that makes it.
    pub fn users(
        &self,
        (runner, printed): (&mut Runner, &mut Printed),
        family: Family,
        used: Used<'_>,
    ) -> Vec<String> {
        // Who cannot be listed cannot be named.
        let print = || saved(runner, self.variant, family).unwrap_or_default();
        let text = printed.of(&self.variant.program(family, "-save"), print);
        let program = self.variant.program(family, "");
        users::find(text, used).into_iter().map(|rule| format!("{program} {rule}")).collect()
    }

    /// The same, of both variants: sets belong to neither.
    pub fn users_in_all_tables(
        &self,
        (runner, printed): (&mut Runner, &mut Printed),
        family: Family,
        used: Used<'_>,
    ) -> Vec<String> {
        let other = Tools { variant: self.opposite(), ..*self };
        let variants = [self, &other].into_iter();
        variants
            .flat_map(|tools| tools.users((&mut *runner, &mut *printed), family, used))
            .collect()
    }

    /// The variant of the tables that are not used.
    fn opposite(&self) -> Variant {
        match (self.variant, self.is_nf_tables) {
            (Variant::NfTables, _) | (Variant::Plain, true) => Variant::Legacy,
            (Variant::Legacy, _) | (Variant::Plain, false) => Variant::NfTables,
        }
    }

    /// Loads `iptables-restore` input and leaves chains that it does not declare alone.
    ///
    /// Each table of the input is loaded whole or not at all.
    pub fn restore(&self, runner: &mut Runner, family: Family, input: &str) -> Result<(), Error> {
        let program = self.variant.program(family, "-restore");
        let arguments: &[&str] = match self.knows_random_fully() {
            true => &["--noflush", "-w", LOCK_SECONDS],
            false => &["--noflush"],
        };
        let call =
            Call { program: &program, arguments, input, package: PACKAGE, limit: RESTORE_LIMIT };
        match runner.run(&call) {
            Ok(_) => Ok(()),
            Err(error) => Err(refused_line(error, input)),
        }
    }
}

impl Variant {
    /// Name of one of its programs: an empty suffix, `-save` or `-restore`.
    fn program(self, family: Family, suffix: &str) -> String {
        let family = match family {
            Family::V4 => "iptables",
            Family::V6 => "ip6tables",
        };
        format!("{family}{}{suffix}", self.suffix())
    }

    /// What the names of its programs have behind the family's.
    pub fn suffix(self) -> &'static str {
        match self {
            Variant::NfTables => "-nft",
            Variant::Legacy => "-legacy",
            Variant::Plain => "",
        }
    }

    /// The variant of programs with such names.
    pub fn of_suffix(suffix: &str) -> Self {
        let variants = [Variant::NfTables, Variant::Legacy];
        variants.into_iter().find(|it| it.suffix() == suffix).unwrap_or(Variant::Plain)
    }

    /// What a family holds of ours in its tables.
    pub fn save(self, runner: &mut Runner, family: Family) -> Result<Ruleset, Error> {
        parse(&saved(runner, self, family)?)
    }
}

/// The variant that the evidence speaks for; `None` is a variant that cannot be run.
///
/// One that can be run alone is taken: the program without a suffix may be the other. Of two, as
/// in the node's own images, that with kubelet's chains is taken, then that with more rules, then
/// the administrator's choice, which is the program without a suffix.
pub fn choose(legacy: Option<Evidence>, nf_tables: Option<Evidence>) -> Variant {
    let (legacy, nf_tables) = match (legacy, nf_tables) {
        (None, None) => return Variant::Plain,
        (Some(_), None) => return Variant::Legacy,
        (None, Some(_)) => return Variant::NfTables,
        (Some(legacy), Some(nf_tables)) => (legacy, nf_tables),
    };
    if nf_tables.has_kubelet_chain {
        return Variant::NfTables;
    }
    if legacy.has_kubelet_chain {
        return Variant::Legacy;
    }
    match legacy.rules.cmp(&nf_tables.rules) {
        std::cmp::Ordering::Greater => Variant::Legacy,
        std::cmp::Ordering::Less => Variant::NfTables,
        std::cmp::Ordering::Equal => Variant::Plain,
    }
}

/// What both families say for a variant; none if it cannot be run for either.
fn gather(runner: &mut Runner, variant: Variant) -> Option<Evidence> {
    let listings = Family::ALL.map(|family| saved(runner, variant, family).ok());
    listings.into_iter().flatten().map(|text| evidence(&text)).reduce(|one, other| Evidence {
        has_kubelet_chain: one.has_kubelet_chain || other.has_kubelet_chain,
        rules: one.rules + other.rules,
        has_kube_proxy_chain: one.has_kube_proxy_chain || other.has_kube_proxy_chain,
    })
}

/// What a listing says for its variant.
fn evidence(text: &str) -> Evidence {
    let has_kube_proxy_chain = !Leftovers::find(text, Extent::Everything).is_empty();
    let mut evidence = Evidence { has_kube_proxy_chain, ..Evidence::default() };
    let mut is_mangle = false;
    for line in text.lines() {
        if let Some(table) = line.strip_prefix('*') {
            is_mangle = table == "mangle";
        } else if let Some(chain) = line.strip_prefix(':') {
            let name = chain.split(' ').next().unwrap_or_default();
            evidence.has_kubelet_chain |= is_mangle && KUBELET_CHAINS.contains(&name);
        } else if line.starts_with("-A ") {
            evidence.rules += 1;
        }
    }
    evidence
}

fn saved(runner: &mut Runner, variant: Variant, family: Family) -> Result<String, exec::Error> {
    let program = variant.program(family, "-save");
    runner.run(&Call {
        program: &program,
        // All tables: naming one would make the legacy program load it.
        arguments: &[],
        input: "",
        package: PACKAGE,
        limit: SAVE_LIMIT,
    })
}

/// Finds the line that the program complains about, as `line 7 failed` or `at line: 7`.
fn refused_line(error: exec::Error, input: &str) -> Error {
    let exec::Error::Failed { complaint, .. } = &error else { return Error::Program(error) };
    let Some(number) = line_number(complaint) else { return Error::Program(error) };
    match number.checked_sub(1).and_then(|index| input.lines().nth(index)) {
        Some(line) => Error::Line { number, line: line.to_owned(), source: error },
        None => Error::Program(error),
    }
}

fn line_number(complaint: &str) -> Option<usize> {
    complaint.match_indices("line").find_map(|(at, word)| {
        let rest = complaint[at + word.len()..].trim_start_matches([':', ' ']);
        let digits = rest.split(|letter: char| !letter.is_ascii_digit()).next()?;
        digits.parse().ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chooses_what_kubelet_uses() {
        let none = Evidence::default();
        let kubelet = Evidence { has_kubelet_chain: true, ..none };
        let rules = |rules| Evidence { rules, ..none };
        for (name, legacy, nf_tables, expected) in [
            ("no suffixed programs", None, None, Variant::Plain),
            ("nf_tables alone", None, Some(none), Variant::NfTables),
            ("legacy alone", Some(none), None, Variant::Legacy),
            ("nothing to go by", Some(none), Some(none), Variant::Plain),
            ("kubelet in nf_tables", Some(rules(9)), Some(kubelet), Variant::NfTables),
            ("kubelet in legacy", Some(kubelet), Some(rules(9)), Variant::Legacy),
            ("kubelet in both, after a change", Some(kubelet), Some(kubelet), Variant::NfTables),
            ("more legacy rules", Some(rules(2)), Some(rules(1)), Variant::Legacy),
            ("more nf_tables rules", Some(rules(1)), Some(rules(2)), Variant::NfTables),
        ] {
            assert_eq!(choose(legacy, nf_tables), expected, "{name}");
        }
    }

    #[test]
    fn each_program_is_asked_once_for_all_who_use_something() {
        let version = Version { number: (1, 8, 9), is_nf_tables: false };
        let tools = Tools { variant: Variant::Legacy, version, is_nf_tables: false, other: None };
        let (mut runner, mut printed) = (Runner::default(), Printed::default());
        for set in ["KUBE-CLUSTER-IP", "KUBE-LOAD-BALANCER"] {
            let asked = (&mut runner, &mut printed);
            tools.users_in_all_tables(asked, Family::V4, Used::Set(set));
        }
        assert_eq!(runner.executed(), 2, "one of each variant");
    }

    #[test]
    fn gathers_evidence_from_the_mangle_table_only() {
        let text = "*nat\n:KUBE-KUBELET-CANARY - [0:0]\n-A INPUT -j ACCEPT\nCOMMIT\n";
        assert_eq!(evidence(text), Evidence { rules: 1, ..Evidence::default() });
        let text = "*mangle\n:KUBE-IPTABLES-HINT - [0:0]\nCOMMIT\n";
        assert_eq!(evidence(text), Evidence { has_kubelet_chain: true, ..Evidence::default() });
        let text = "*nat\n:KUBE-SERVICES - [0:0]\nCOMMIT\n";
        assert_eq!(evidence(text), Evidence { has_kube_proxy_chain: true, ..Evidence::default() });
    }

    #[test]
    fn finds_the_line_of_a_complaint() {
        for (complaint, expected) in [
            ("iptables-restore: line 7 failed", Some(7)),
            ("Error occurred at line: 12\nTry `iptables-restore -h'", Some(12)),
            (
                "iptables-restore v1.8.9 (nf_tables): \nline 3: CHAIN_ADD failed (No such file)",
                Some(3),
            ),
            ("Can't open the command line tables", None),
        ] {
            assert_eq!(line_number(complaint), expected, "{complaint}");
        }
    }
}
