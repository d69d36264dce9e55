//! What was measured: one table to read, one array of objects to compare.

use std::fmt::Write;

use serde_json::{Map, Value, json};

use crate::cluster::Cluster;

/// One figure.
#[derive(Debug, Clone)]
pub struct Row {
    case: &'static str,
    cluster: Cluster,
    /// What was measured.
    pub metric: &'static str,
    /// How much of its unit.
    pub value: f64,
    unit: &'static str,
    floor: Option<f64>,
    budget: Option<f64>,
    /// The other proxy's value.
    other: Option<f64>,
}

impl Row {
    /// A figure without a budget.
    pub fn new(
        case: &'static str,
        cluster: Cluster,
        metric: &'static str,
        (value, unit): (f64, &'static str),
    ) -> Self {
        Row { case, cluster, metric, value, unit, floor: None, budget: None, other: None }
    }

    /// With the most it may be.
    pub fn at_most(self, budget: f64) -> Self {
        Row { budget: Some(budget), ..self }
    }

    /// With the least it can be, and the most it may be as a multiple of that.
    pub fn of_floor(self, floor: f64, factor: f64) -> Self {
        Row { floor: Some(floor), budget: Some(floor * factor), ..self }
    }

    /// Under another name.
    pub fn named(self, metric: &'static str) -> Self {
        Row { metric, ..self }
    }

    /// With the worst value of the same figure, if it has a budget.
    pub fn worst_of_budget(self, others: &[Row]) -> Self {
        let same = others.iter().filter(|other| other.key() == self.key()).map(|row| row.value);
        match self.budget {
            Some(_) => Row { value: same.fold(self.value, f64::max), ..self },
            None => self,
        }
    }

    /// Whether the proxy tells it at all.
    pub fn is_told(&self) -> bool {
        !self.value.is_nan()
    }

    fn is_ok(&self) -> bool {
        self.budget.is_none_or(|budget| self.value <= budget)
    }

    fn key(&self) -> (&'static str, Cluster, &'static str) {
        (self.case, self.cluster, self.metric)
    }

    fn to_json(&self, has_other: bool) -> Value {
        let mut object = Map::from_iter([
            ("case".to_owned(), json!(self.case)),
            ("services".to_owned(), json!(self.cluster.services)),
            ("endpoints".to_owned(), json!(self.cluster.endpoints)),
            ("metric".to_owned(), json!(self.metric)),
            ("value".to_owned(), json!(self.value)),
            ("unit".to_owned(), json!(self.unit)),
            ("floor".to_owned(), json!(self.floor)),
            ("budget".to_owned(), json!(self.budget)),
            ("ok".to_owned(), json!(self.is_ok())),
        ]);
        if has_other {
            object.insert("other".to_owned(), json!(self.other));
        }
        Value::Object(object)
    }
}

/// Puts the other proxy's figures beside ours.
pub fn beside(ours: &mut [Row], theirs: &[Row]) {
    for row in ours {
        row.other = theirs.iter().find(|other| other.key() == row.key()).map(|other| other.value);
    }
}

/// Whether every budget holds.
pub fn all_ok(rows: &[Row]) -> bool {
    rows.iter().all(Row::is_ok)
}

/// All rows as one line of JSON.
pub fn json(rows: &[Row], has_other: bool) -> String {
    Value::Array(rows.iter().map(|row| row.to_json(has_other)).collect()).to_string()
}

/// All rows for people.
pub fn text(rows: &[Row], has_other: bool) -> String {
    let other = |text: String| if has_other { format!("{text:>12}") } else { String::new() };
    let mut out = format!(
        "{:<12} {:>12}  {:<36} {:>12}{} {:>10} {:>10}  {}\n",
        "case",
        "cluster",
        "metric",
        "value",
        other("other".into()),
        "floor",
        "budget",
        "unit"
    );
    for row in rows {
        let Cluster { services, endpoints } = row.cluster;
        let verdict = if row.is_ok() { "" } else { "  OVER" };
        // Writing into a String cannot fail.
        let _ = writeln!(
            out,
            "{:<12} {:>12}  {:<36} {:>12}{} {:>10} {:>10}  {}{verdict}",
            row.case,
            format!("{services} x {endpoints}"),
            row.metric,
            number(Some(row.value)),
            other(number(row.other)),
            number(row.floor),
            number(row.budget),
            row.unit,
        );
    }
    out
}

fn number(value: Option<f64>) -> String {
    value.map_or_else(|| "-".into(), |value| format!("{value:.3}"))
}
