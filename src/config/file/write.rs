//! The configuration that is in force, in the form of the file.

use serde_json::{Map, Value};

use super::fields::{FIELDS, Meaning, Unset, is_own};
use super::{File, KIND, shape};
use crate::config::flags::Given;

/// The fields with these values of their flags; those of no meaning as the file has them.
pub fn value(flags: &Given, file: Option<&File>) -> Value {
    let mut top = Map::new();
    for (name, value) in KIND {
        top.insert(name.to_string(), value.into());
    }
    for field in &FIELDS {
        let value = match field.meaning {
            Meaning::Flag(flag) => {
                let text = flags.get(flag).map_or("", String::as_str);
                // What such a field has to say, one of kube-proxy's says unless it is empty.
                if field.unset == Unset::Never && !text.is_empty() && !is_own(flag) {
                    continue;
                }
                shape::value(field.shape, text)
            }
            Meaning::Nothing(default) => {
                let said = file.and_then(|file| file.others.get(field.path)).cloned();
                said.unwrap_or_else(|| serde_json::from_str(default).unwrap_or_default())
            }
        };
        put(&mut top, field.path, value);
    }
    Value::Object(top)
}

fn put(section: &mut Map<String, Value>, path: &str, value: Value) {
    match path.split_once('.') {
        None => {
            section.insert(path.to_string(), value);
        }
        Some((name, rest)) => {
            let below = section.entry(name).or_insert_with(|| Map::new().into());
            if let Some(below) = below.as_object_mut() {
                put(below, rest, value);
            }
        }
    }
}

/// The same as a file.
pub fn yaml(value: &Value) -> String {
    // A value out of numbers, texts and names as keys cannot fail to be written.
    serde_saphyr::to_string(value).unwrap_or_default()
}
