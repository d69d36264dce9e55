//! Gives a set other options without taking its entries from the rules.
//!
//! Invariant: at every moment there is a set of the name, with all entries or a type that no
//! rule can be using.

use super::{Client, Error, NewSet};

/// The set that is filled before it takes another's place; only ever one at a time.
const TEMPORARY: &str = "KUBE-IPVS-EXCHANGE";

impl Client {
    /// Makes the set of the name be as given, and keeps its entries if its type stays.
    ///
    /// A set of another type cannot be exchanged; it is destroyed, which fails while rules use it.
    pub fn replace(&mut self, set: &NewSet<'_>) -> Result<(), Error> {
        let found = self.list(set.name, set.family)?;
        let Some(found) = found.filter(|found| found.is_of(set.kind, set.family)) else {
            self.destroy(set.name)?;
            return self.create(set);
        };
        self.remove_leftover()?;
        self.create(&NewSet { name: TEMPORARY, ..*set })?;
        let filled: Result<Vec<()>, Error> =
            self.add(TEMPORARY, &found.members).into_iter().collect();
        if let Err(error) = filled.and_then(|_| self.swap(set.name, TEMPORARY)) {
            self.remove_leftover()?;
            return Err(error);
        }
        self.remove_leftover()
    }

    /// Destroys what is left of an exchange that was cut short.
    pub fn remove_leftover(&mut self) -> Result<(), Error> {
        self.destroy(TEMPORARY)
    }
}
