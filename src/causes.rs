//! An error with its causes, in one line for a person.

use std::error::Error;

/// The error and each cause, with colons between; what an error says of its cause itself is told
/// once.
pub fn in_words(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let words = error.to_string();
        if !text.ends_with(&words) {
            text = format!("{text}: {words}");
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{words}")]
    struct Outer {
        words: &'static str,
        #[source]
        cause: std::fmt::Error,
    }

    #[test]
    fn a_cause_that_is_told_already_is_not_told_again() {
        let cause = std::fmt::Error;
        let told = cause.to_string();
        assert_eq!(in_words(&Outer { words: "x", cause }), format!("x: {told}"));
        let words: &str = Box::leak(format!("x of {told}").into_boxed_str());
        assert_eq!(in_words(&Outer { words, cause }), words);
    }
}
