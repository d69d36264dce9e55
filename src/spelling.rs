//! What a misspelt name was probably meant to be.

/// The name that is nearest to a misspelt one, if one is near at all.
pub fn nearest<'a>(given: &str, names: &[&'a str]) -> Option<&'a str> {
    let distances = names.iter().map(|name| (distance(given, name), *name));
    let (distance, name) = distances.min_by_key(|(distance, _)| *distance)?;
    (distance <= 1 + name.len() / 5).then_some(name)
}

/// Number of letters to insert, delete or replace to get from one word to the other, in any case.
pub fn distance(from: &str, to: &str) -> usize {
    let from = from.to_ascii_lowercase();
    let to: Vec<char> = to.to_ascii_lowercase().chars().collect();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (i, letter) in from.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, other) in to.iter().enumerate() {
            let replaced = diagonal + usize::from(letter != *other);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[to.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nearest_name_is_offered_only_when_it_is_near() {
        let names = ["rr", "wrr", "lc", "mh", "ClusterCIDR", "NodeCIDR"];
        for (given, expected) in [
            ("rrr", Some("rr")),
            ("clustercidr", Some("ClusterCIDR")),
            ("NodesCIDR", Some("NodeCIDR")),
            ("source-hash", None),
        ] {
            assert_eq!(nearest(given, &names), expected, "{given}");
        }
    }
}
