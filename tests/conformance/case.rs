//! Cases: a row of the catalogue, and what shows that it holds.

/// The case of one row; it panics where the row does not hold.
pub struct Case {
    /// Name of the row.
    pub row: String,
    /// Shows it.
    pub run: Box<dyn FnOnce() + Send>,
}

/// A case of its own shape.
pub fn case(row: &str, run: fn()) -> Case {
    Case { row: row.to_string(), run: Box::new(run) }
}

/// The cases of a test that differ in their data alone, named `TEST/ROW`.
pub fn table<T: Send + 'static>(
    test: &str,
    rows: impl IntoIterator<Item = (&'static str, T)>,
    check: fn(T),
) -> Vec<Case> {
    let case =
        |(row, data)| Case { row: format!("{test}/{row}"), run: Box::new(move || check(data)) };
    rows.into_iter().map(case).collect()
}
