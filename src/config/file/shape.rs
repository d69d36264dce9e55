//! Between a value of the file and the text of a flag.
//!
//! Invariant: text goes through unjudged; only what cannot be the field at all is refused here.

use serde_json::{Map, Value};

use super::fields::{Field, Shape, Unset};
use crate::config::value;

/// The text of the flag that the field stands for; none if the value means the default.
pub fn text(field: &Field, value: &Value) -> Result<Option<String>, String> {
    if value.is_null() {
        return Ok(None);
    }
    let text = of_shape(field.shape, value)?;
    let is_unset = match field.unset {
        Unset::Never => false,
        Unset::Empty => text.is_empty(),
        Unset::EmptyOrZero => text.is_empty() || is_zero(&text),
    };
    Ok((!is_unset).then_some(text))
}

fn of_shape(shape: Shape, value: &Value) -> Result<String, String> {
    let text = match (shape, value) {
        // Parity: numbers and truth values count as the text that they are written with.
        (Shape::Text | Shape::Any | Shape::Duration, Value::String(text)) => Some(text.clone()),
        (Shape::Text, Value::Number(number)) => Some(number.to_string()),
        (Shape::Text | Shape::Truth, Value::Bool(truth)) => Some(truth.to_string()),
        (Shape::Whole, Value::Number(number)) if !number.is_f64() => Some(number.to_string()),
        (Shape::Number, Value::Number(number)) => Some(number.to_string()),
        (Shape::List, Value::Array(items)) => list(items),
        (Shape::Gates, Value::Object(gates)) => self::gates(gates),
        (Shape::Any, other) => Some(other.to_string()),
        _ => None,
    };
    text.ok_or_else(|| match (shape, value) {
        (Shape::List, Value::String(text)) if !text.is_empty() => {
            let items: Vec<&str> = parts(text).collect();
            format!("{}, such as [{}]", allowed(shape), items.join(", "))
        }
        (_, Value::String(text)) if is_quoted(shape, text) => {
            format!("{}, without quotes", allowed(shape))
        }
        _ => allowed(shape).to_string(),
    })
}

fn allowed(shape: Shape) -> &'static str {
    match shape {
        Shape::Text | Shape::Any => "must be text",
        Shape::List => "must be a list of texts, none of them empty or with a comma",
        Shape::Truth => value::NO_TRUTH,
        Shape::Whole => "must be a whole number",
        Shape::Number => "must be a number",
        Shape::Duration => value::NO_DURATION,
        Shape::Gates => "must be names, each with true or false",
    }
}

/// Whether a text would be no text without its quotes.
///
/// Parity: kube-proxy refuses it with them, and reads YAML 1.1, which has more words for truth.
fn is_quoted(shape: Shape, text: &str) -> bool {
    let words = ["y", "yes", "on", "true", "n", "no", "off", "false"];
    match shape {
        Shape::Truth => words.iter().any(|word| text.eq_ignore_ascii_case(word)),
        Shape::Whole => text.parse::<i64>().is_ok(),
        Shape::Number => text.parse::<f64>().is_ok(),
        _ => false,
    }
}

fn list(items: &[Value]) -> Option<String> {
    let item = |item: &Value| {
        let text = item.as_str().map(str::trim)?;
        (!text.is_empty() && !text.contains(',')).then(|| text.to_string())
    };
    items.iter().map(item).collect::<Option<Vec<_>>>().map(|items| items.join(","))
}

fn gates(gates: &Map<String, Value>) -> Option<String> {
    let gate = |(name, on): (&String, &Value)| on.as_bool().map(|on| format!("{name}={on}"));
    gates.iter().map(gate).collect::<Option<Vec<_>>>().map(|gates| gates.join(","))
}

fn is_zero(text: &str) -> bool {
    value::duration(text).is_ok_and(|duration| duration.is_zero())
        || text.parse::<f64>().is_ok_and(|number| number == 0.0)
}

/// The value of the file that has the meaning of a flag's text.
pub fn value(shape: Shape, text: &str) -> Value {
    let parsed = || serde_json::from_str(text).unwrap_or_else(|_| text.into());
    match shape {
        Shape::Text | Shape::Any => text.into(),
        Shape::Whole | Shape::Number => parsed(),
        Shape::Truth => value::truth(text).map_or_else(|_| text.into(), Value::Bool),
        // Parity: the reference writes all units down to seconds.
        Shape::Duration => match text {
            "0" => "0s".into(),
            _ => text.into(),
        },
        Shape::List => match parts(text).collect::<Vec<_>>() {
            none if none.is_empty() => Value::Null,
            parts => parts.into(),
        },
        Shape::Gates => parts(text)
            .filter_map(|part| part.split_once('='))
            .map(|(name, on)| (name.to_string(), Value::Bool(value::truth(on) == Ok(true))))
            .collect(),
    }
}

fn parts(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').map(str::trim).filter(|part| !part.is_empty())
}
