//! Rows that several fronts may name: one stays as long as any of them does.

use std::collections::BTreeMap;

/// How many fronts name a row, beyond the first.
///
/// Cost: hardly any row has a second user, so only those that have are counted.
#[derive(Debug)]
pub struct Users<K>(BTreeMap<K, u32>);

impl<K> Default for Users<K> {
    fn default() -> Self {
        Users(BTreeMap::new())
    }
}

impl<K: Ord + Copy> Users<K> {
    /// One user more of a row that is there already or not; true if it is the first.
    pub fn join(&mut self, row: &K, is_there: bool) -> bool {
        if is_there {
            *self.0.entry(*row).or_default() += 1;
        }
        !is_there
    }

    /// One user less; true if it was the last.
    pub fn leave(&mut self, row: &K) -> bool {
        let Some(others) = self.0.get_mut(row) else { return true };
        *others -= 1;
        if *others == 0 {
            self.0.remove(row);
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_first_and_the_last_user_count() {
        let mut users = Users::default();
        assert_eq!(
            [false, true, true].map(|is_there| users.join(&7, is_there)),
            [true, false, false]
        );
        assert_eq!([(); 3].map(|()| users.leave(&7)), [false, false, true]);
        assert!(users.0.is_empty());
    }
}
