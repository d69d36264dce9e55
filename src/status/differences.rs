//! What the kernel has otherwise than the daemon left it, or the daemon could not make, by kind.
//!
//! Invariant: whatever a line of the text tells as missing or other in the kernel counts here.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::standing::Fault;
use super::{Bound, Counts, Front, Picture, Real, There};
use crate::counted;

/// In what way a row differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum How {
    NotMade,
    Missing,
    Other,
    Surplus,
}

/// How many rows differ, by kind and way.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Differences(BTreeMap<(Kind, How), usize>);

/// Kinds of rows, in the order in which they are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Foundation,
    Server,
    Scheduling,
    Real,
    Address,
    Device,
    Set,
    Entries,
    Chain,
}

impl Differences {
    /// Of some fronts, and of what all rely on.
    pub fn of<'a>(
        fronts: impl Iterator<Item = &'a Front>,
        picture: &Picture,
        counts: Option<&Counts>,
    ) -> Self {
        let mut differences = Differences::default();
        differences.count(Kind::Foundation, How::NotMade, usize::from(picture.lacks_foundation));
        let (mut addresses, mut unbound) = (BTreeSet::new(), BTreeSet::new());
        for front in fronts {
            differences.count_front(front, counts);
            addresses.insert(front.address.ip());
            unbound.extend((front.bound == Bound::NotYet).then(|| front.address.ip()));
        }
        differences.count(Kind::Address, How::NotMade, unbound.len());
        for fault in &picture.missing {
            match fault {
                Fault::Device => differences.count(Kind::Device, How::Missing, 1),
                Fault::Set(_) => differences.count(Kind::Set, How::Missing, 1),
                Fault::Entries(_) => differences.count(Kind::Entries, How::Missing, 1),
                Fault::Rules(_) => differences.count(Kind::Chain, How::Other, 1),
                Fault::Address(ip) => {
                    let is_told = usize::from(addresses.contains(ip));
                    differences.count(Kind::Address, How::Missing, is_told);
                }
            }
        }
        differences
    }

    /// Whether the kernel is as the daemon left it, and the daemon lacks nothing.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn count(&mut self, kind: Kind, how: How, number: usize) {
        if number > 0 {
            *self.0.entry((kind, how)).or_default() += number;
        }
    }

    fn count_front(&mut self, front: &Front, counts: Option<&Counts>) {
        self.count(Kind::Scheduling, How::NotMade, usize::from(front.pending.is_some()));
        let Some(reals) = &front.reals else {
            return self.count(Kind::Server, How::NotMade, 1);
        };
        match counts.map(|counts| counts.get(&front.key())) {
            None => {}
            Some(None) => {
                self.count(Kind::Server, How::Missing, 1);
                self.count(Kind::Real, How::Missing, reals.len());
            }
            Some(Some(there)) => self.count_reals(front, reals, there),
        }
    }

    fn count_reals(&mut self, front: &Front, reals: &[Real], there: &There) {
        let is_other = front.scheduling.as_ref().is_some_and(|made| *made != there.scheduling);
        self.count(Kind::Server, How::Other, usize::from(is_other));
        for real in reals {
            match there.reals.get(&real.address) {
                None => self.count(Kind::Real, How::Missing, 1),
                Some(glimpse) if glimpse.weight != real.weight => {
                    self.count(Kind::Real, How::Other, 1);
                }
                Some(_) => {}
            }
        }
        self.count(Kind::Real, How::NotMade, front.unmade(there).count());
        let surplus = front.surplus(there).filter(|(at, _)| !front.awaited.contains(*at));
        self.count(Kind::Real, How::Surplus, surplus.count());
    }
}

impl fmt::Display for Differences {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words = |((kind, how), number): (&(Kind, How), &usize)| {
            let of = |one| counted::of(*number, one);
            let what = match kind {
                Kind::Foundation => {
                    return "not all that Services rely on is in place (see the log and /readyz)"
                        .to_owned();
                }
                Kind::Server => of("virtual server"),
                Kind::Scheduling => format!("scheduling of {}", of("virtual server")),
                Kind::Real => of("real server"),
                Kind::Address => {
                    let yet = if *how == How::NotMade { " yet" } else { "" };
                    return format!("{} not bound{yet}", counted_addresses(*number));
                }
                Kind::Device => "the device".to_owned(),
                Kind::Set => of("set"),
                Kind::Entries => format!("all entries of {}", of("set")),
                Kind::Chain => of("chain"),
            };
            let how = match how {
                How::NotMade if *kind == Kind::Scheduling => "not changed yet",
                How::NotMade => "not made",
                How::Missing => "missing",
                How::Other => "changed",
                How::Surplus => "of no endpoint",
            };
            format!("{what} {how}")
        };
        f.write_str(&self.0.iter().map(words).collect::<Vec<_>>().join(", "))
    }
}

fn counted_addresses(number: usize) -> String {
    format!("{number} {}", if number == 1 { "address" } else { "addresses" })
}
