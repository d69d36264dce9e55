//! Gives a set other options without taking its entries from the rules.
//!
//! Invariant: at every moment there is a set of the name, with all entries or a type that no
//! rule can be using.

use super::{Client, Error, NewSet};

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
        let temporary = format!("{}-new", set.name);
        // One may be left of an attempt that was cut short.
        self.destroy(&temporary)?;
        self.create(&NewSet { name: &temporary, ..*set })?;
        let filled: Result<Vec<()>, Error> =
            self.add(&temporary, &found.members).into_iter().collect();
        if let Err(error) = filled.and_then(|_| self.swap(set.name, &temporary)) {
            self.destroy(&temporary)?;
            return Err(error);
        }
        self.destroy(&temporary)
    }
}
