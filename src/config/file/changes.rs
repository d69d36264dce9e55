//! What is otherwise in another configuration, for the log.

use serde_json::Value;

use super::at;
use super::fields::FIELDS;

/// Fields that are named; of others their number is.
const MOST_NAMED: usize = 10;

/// Longest text of a value that is told whole, in letters.
const LONGEST_VALUE: usize = 60;

/// The fields that differ, each with its value before and after; bounded, however many there are.
///
/// Both configurations are in the form of the file, as [`super::write::value`] makes it.
pub fn between(old: &Value, new: &Value) -> String {
    let change = |path| {
        // A field that is left out on one side gives way to another of the same meaning.
        let (old, new) = (at(old, path)?, at(new, path)?);
        (words(old) != words(new)).then(|| format!("{path}: {}", change(old, new)))
    };
    let mut changes: Vec<_> = FIELDS.iter().filter_map(|field| change(field.path)).collect();
    if changes.is_empty() {
        return "the same in other words".to_string();
    }
    let more = changes.len().saturating_sub(MOST_NAMED);
    if more > 0 {
        changes.truncate(MOST_NAMED);
        changes.push(format!("{more} more"));
    }
    changes.join("; ")
}

/// How a value has changed; of two lists, what has come and gone.
fn change(old: &Value, new: &Value) -> String {
    let (Value::Array(before), Value::Array(now)) = (old, new) else {
        return format!("{} to {}", brief(&words(old)), brief(&words(new)));
    };
    let lacking = |from: &[Value], other: &[Value]| -> Vec<Value> {
        from.iter().filter(|item| !other.contains(item)).cloned().collect()
    };
    let differences = [("added", lacking(now, before)), ("removed", lacking(before, now))];
    match differences.iter().all(|(_, items)| items.is_empty()) || before.is_empty() {
        true => format!("{} to {}", brief(&words(old)), brief(&words(new))),
        false => {
            let told = differences.into_iter().filter(|(_, items)| !items.is_empty());
            let told = told.map(|(what, items)| format!("{what} {}", brief(&words(&items.into()))));
            told.collect::<Vec<_>>().join(" and ")
        }
    }
}

/// A value as its owner would say it.
fn words(value: &Value) -> String {
    match value {
        Value::Null => "none".to_string(),
        Value::String(text) if text.is_empty() => "none".to_string(),
        Value::Array(items) if items.is_empty() => "none".to_string(),
        Value::String(text) => text.clone(),
        Value::Array(items) => items.iter().map(words).collect::<Vec<_>>().join(","),
        other => other.to_string(),
    }
}

fn brief(text: &str) -> String {
    match text.char_indices().nth(LONGEST_VALUE) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::file;
    use crate::config::flags::Given;
    use crate::config::layers;
    use crate::config::problem::Problems;

    fn effective(text: &str) -> Value {
        let head = "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\n";
        let (file, problems) = file::read("f", &format!("{head}{text}"), Problems::default());
        layers::load(&Given::new(), Some(&file), "node-1", problems).unwrap().effective
    }

    #[test]
    fn fields_are_told_with_both_values() {
        for (old, new, told) in [
            ("", "ipvs: {scheduler: sh}", "ipvs.scheduler: rr to sh"),
            ("ipvs: {scheduler: sh}", "", "ipvs.scheduler: sh to rr"),
            ("ipvs: {tcpTimeout: 60s}", "ipvs: {tcpTimeout: 1m}", "ipvs.tcpTimeout: 60s to 1m"),
            (
                "",
                "ipvs: {excludeCIDRs: [10.0.0.0/8, 'fd00::/8']}",
                "ipvs.excludeCIDRs: none to 10.0.0.0/8,fd00::/8",
            ),
            (
                "ipvs: {excludeCIDRs: [10.0.0.0/8, 'fd00::/8']}",
                "ipvs: {excludeCIDRs: ['fd00::/8', 192.0.2.0/24]}",
                "ipvs.excludeCIDRs: added 192.0.2.0/24 and removed 10.0.0.0/8",
            ),
            (
                "",
                "kubeIpvsProxy: {healthzBindAddress: ''}",
                "healthzBindAddress: 0.0.0.0:10256 to none",
            ),
            (
                "",
                "oomScoreAdj: 5\nclusterCIDR: 10.0.0.0/8",
                "clusterCIDR: none to 10.0.0.0/8; oomScoreAdj: -999 to 5",
            ),
        ] {
            assert_eq!(between(&effective(old), &effective(new)), told);
        }
    }

    #[test]
    fn a_long_list_of_changes_is_cut() {
        let ranges: Vec<String> = (0..200).map(|number| format!("10.{number}.0.0/16")).collect();
        let times = "tcpTimeout: 9s, tcpFinTimeout: 9s, udpTimeout: 9s, syncPeriod: 9s";
        let text = format!(
            "bindAddress: 1.2.3.4\nhostnameOverride: n\nclusterCIDR: fd00::/8\noomScoreAdj: 1\n\
             ipvs: {{excludeCIDRs: [{}], strictARP: true, scheduler: sh, {times}}}\n\
             kubeIpvsProxy: {{vipBinding: route}}\n",
            ranges.join(", ")
        );
        let told = between(&effective(""), &effective(&text));
        assert!(told.len() < 1_000 && told.ends_with("; 2 more"), "{told}");
        assert!(told.contains("none to 10.0.0.0/16,10.1.0.0/16,"), "{told}");
        assert!(told.contains("...; ipvs.strictARP: false to true; "), "{told}");
    }
}
