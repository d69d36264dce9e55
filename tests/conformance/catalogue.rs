//! The catalogue: rows of `CATALOGUE.md`, and whether rows and cases agree.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::case::Case;

const CATALOGUE: &str = include_str!("CATALOGUE.md");

/// Where each deviation has a row, found by how its first cell begins.
const DIFFERENCES: &str = include_str!("../../deploy/DIFFERENCES.md");

/// What rows may wait for; everything else is there.
const AWAITED: [&str; 0] = [];

/// One row.
struct Row {
    name: &'static str,
    status: Status,
}

/// What became of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Status {
    /// The area has its case; a deviation is named as `DIFFERENCES.md` names it.
    Covered { area: &'static str, differs: Option<&'static str> },
    /// It means nothing here, for a reason.
    NotApplicable,
    /// It waits for what is not built.
    Pending(&'static str),
}

/// How many rows there are of each status.
#[derive(Debug, Default)]
pub struct Summary {
    covered: usize,
    not_applicable: usize,
    pending: usize,
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Summary { covered, not_applicable, pending } = self;
        let rows = covered + not_applicable + pending;
        write!(f, "rows {rows}, covered {covered}, not applicable {not_applicable}")?;
        write!(f, ", pending {pending}")
    }
}

/// Counts the rows.
pub fn summary() -> Summary {
    let mut summary = Summary::default();
    for row in rows().into_iter().flatten() {
        match row.status {
            Status::Covered { .. } => summary.covered += 1,
            Status::NotApplicable => summary.not_applicable += 1,
            Status::Pending(_) => summary.pending += 1,
        }
    }
    summary
}

/// What is wrong between the rows and the cases of the areas.
pub fn faults(areas: &[(&'static str, Vec<Case>)]) -> Vec<String> {
    let (rows, mut faults) = distinct_rows();
    let mut cases = BTreeMap::new();
    for (area, case) in areas.iter().flat_map(|(area, all)| all.iter().map(move |c| (area, c))) {
        if cases.insert(case.row.as_str(), *area).is_some() {
            faults.push(format!("{}: two cases", case.row));
        }
    }
    for (name, status) in &rows {
        faults.extend(fault(status, cases.get(name).copied()).map(|why| format!("{name}: {why}")));
    }
    let unnamed = cases.keys().filter(|case| !rows.contains_key(*case));
    faults.extend(unnamed.map(|case| format!("{case}: a case without a row")));
    faults
}

/// The rows by name, and those that cannot be read or are there twice.
fn distinct_rows() -> (BTreeMap<&'static str, Status>, Vec<String>) {
    let (mut known, mut faults) = (BTreeMap::new(), Vec::new());
    for row in rows() {
        match row {
            Ok(Row { name, status }) if known.insert(name, status).is_some() => {
                faults.push(format!("{name}: two rows"));
            }
            Ok(_) => {}
            Err(fault) => faults.push(fault),
        }
    }
    (known, faults)
}

/// What is wrong with a row, given the area that has its case.
fn fault(status: &Status, case: Option<&str>) -> Option<String> {
    match (status, case) {
        (Status::Covered { area, .. }, None) => Some(format!("no case in {area}.rs")),
        (Status::Covered { area, .. }, Some(other)) if *area != other => {
            Some(format!("its case is in {other}.rs"))
        }
        (Status::Covered { differs: Some(what), .. }, _) if !has_difference(what) => {
            Some(format!("no row of DIFFERENCES.md begins with \"{what}\""))
        }
        (Status::NotApplicable | Status::Pending(_), Some(area)) => {
            Some(format!("is not covered, yet has a case in {area}.rs"))
        }
        (Status::Pending(what), None) if !AWAITED.contains(what) => {
            Some(format!("waits for {what}, which nobody builds"))
        }
        _ => None,
    }
}

fn has_difference(what: &str) -> bool {
    DIFFERENCES.lines().any(|line| line.strip_prefix("| ").is_some_and(|l| l.starts_with(what)))
}

/// The rows: lines of tables whose first cell is a name in backquotes.
fn rows() -> Vec<Result<Row, String>> {
    CATALOGUE.lines().filter(|line| line.starts_with("| `")).map(row).collect()
}

fn row(line: &'static str) -> Result<Row, String> {
    let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
    let [name, scenario, expected, status] = cells[..] else {
        return Err(format!("not four cells: {line}"));
    };
    let name = name.trim_matches('`');
    if [name, scenario, expected].contains(&"") {
        return Err(format!("an empty cell: {line}"));
    }
    Ok(Row { name, status: parse_status(status).ok_or_else(|| format!("{name}: \"{status}\"?"))? })
}

/// `area`, `area; differs: …`, `n/a: …` or `pending: …`.
fn parse_status(text: &'static str) -> Option<Status> {
    if let Some(reason) = text.strip_prefix("n/a: ") {
        return (!reason.is_empty()).then_some(Status::NotApplicable);
    }
    if let Some(what) = text.strip_prefix("pending: ") {
        return Some(Status::Pending(what));
    }
    let (area, differs) = match text.split_once("; differs: ") {
        Some((area, what)) => (area, Some(what)),
        None => (text, None),
    };
    let is_area = !area.is_empty() && area.chars().all(|c| c.is_ascii_lowercase() || c == '_');
    is_area.then_some(Status::Covered { area, differs })
}

/// Each way in which rows and cases can disagree is found.
pub fn notices_disagreement() {
    let words: BTreeSet<String> = [
        fault(&Status::Covered { area: "a", differs: None }, None),
        fault(&Status::Covered { area: "a", differs: None }, Some("b")),
        fault(&Status::Covered { area: "a", differs: Some("no such thing") }, Some("a")),
        fault(&Status::NotApplicable, Some("a")),
        fault(&Status::Pending("something"), None),
    ]
    .into_iter()
    .flatten()
    .collect();
    assert_eq!(words.len(), 5, "{words:?}");
    assert_eq!(fault(&Status::Covered { area: "a", differs: None }, Some("a")), None);
    for text in ["", "n/a: ", "n/a", "two words"] {
        assert_eq!(parse_status(text), None, "{text:?}");
    }
}
