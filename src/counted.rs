//! Counts as text for a person.

/// A number of things, by the word for one of them; others have an `s` more.
pub fn of(number: usize, one: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {one}{plural}")
}

/// What is told of the first of several things, if there are so many more.
pub fn elsewhere(more: usize, one: &str) -> String {
    match more {
        0 => String::new(),
        more => format!(", here and in {}", of(more, &format!("more {one}"))),
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn one_thing_is_singular() {
        let words = [0, 1, 2].map(|number| super::of(number, "file"));
        assert_eq!(words, ["0 files", "1 file", "2 files"]);
    }

    #[test]
    fn what_is_told_once_says_how_often_it_is() {
        let words = [0, 1, 2].map(|more| super::elsewhere(more, "place"));
        assert_eq!(words, ["", ", here and in 1 more place", ", here and in 2 more places"]);
    }
}
