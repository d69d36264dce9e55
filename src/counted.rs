//! Counts as text for a person.

/// A number of things, by the word for one of them; others have an `s` more.
pub fn of(number: usize, one: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {one}{plural}")
}

#[cfg(test)]
mod tests {
    #[test]
    fn one_thing_is_singular() {
        let words = [0, 1, 2].map(|number| super::of(number, "file"));
        assert_eq!(words, ["0 files", "1 file", "2 files"]);
    }
}
