//! Where the fields of a file stand, so that complaints come in the order of the file.

use std::fmt;

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_saphyr::DuplicateKeyPolicy;

/// Paths of the fields of the first document, in its order; none if it does not parse.
pub fn paths(text: &str) -> Vec<String> {
    let mut bytes = text.as_bytes();
    let mut options = serde_saphyr::Options::default();
    // A field that is there twice stands where it is first.
    options.duplicate_keys = DuplicateKeyPolicy::LastWins;
    let mut documents = serde_saphyr::read_with_options::<_, Fields>(&mut bytes, options);
    documents.next().and_then(Result::ok).map_or_else(Vec::new, |fields| fields.0)
}

/// Paths below a value; scalars and lists have none.
struct Fields(Vec<String>);

impl<'de> Deserialize<'de> for Fields {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(OfFields)
    }
}

struct OfFields;

/// A value without fields.
macro_rules! without_fields {
    ($($visit:ident: $value:ty),*) => {
        $(fn $visit<E>(self, _: $value) -> Result<Fields, E> {
            Ok(Fields(Vec::new()))
        })*
    };
}

impl<'de> Visitor<'de> for OfFields {
    type Value = Fields;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    without_fields!(visit_bool: bool, visit_i64: i64, visit_u64: u64, visit_f64: f64, visit_str: &str);

    fn visit_unit<E>(self) -> Result<Fields, E> {
        Ok(Fields(Vec::new()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Fields, A::Error> {
        while items.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Fields(Vec::new()))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Fields, A::Error> {
        let mut paths = Vec::new();
        while let Some((name, Fields(below))) = fields.next_entry::<String, Fields>()? {
            paths.extend(below.iter().map(|path| format!("{name}.{path}")));
            paths.push(name);
        }
        Ok(Fields(paths))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_come_as_they_stand() {
        let text = "b: 1\na: {d: [x, {y: z}], c: null}\n\"e\": true\n---\nf: 1\n";
        assert_eq!(paths(text), ["b", "a.d", "a.c", "a", "e"]);
        assert_eq!(paths("a: ["), [""; 0]);
    }
}
