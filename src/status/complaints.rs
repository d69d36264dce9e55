//! What is not programmed, or not as it says, and why: all of it, or what concerns an address.
//!
//! A reason is text for the owner of the object, and the one account of which address it is about;
//! an address in it stands by itself, as whoever reads it has to find it, too.

use std::collections::BTreeSet;

use super::{Asked, Picture};

/// An object or a file, and what is wrong with it.
type Complaint = (String, String);

/// What surrounds a word in a sentence.
const PUNCTUATION: [char; 5] = ['"', ',', ';', '(', ')'];

/// Everything, as parts of the text.
pub(super) fn all(picture: &Picture) -> String {
    parts(picture, |_| true) + &refused(picture)
}

/// What names the address, such as a claim that another Service was preferred to, what is said of
/// the Services that have it, and files that cannot be used.
pub(super) fn about(picture: &Picture, asked: Asked, owners: &BTreeSet<&str>) -> String {
    let is_of_owner = |object: &str| {
        object.strip_prefix("Service ").is_some_and(|service| owners.contains(service))
    };
    // Whatever the address is of may be in a file that cannot be used, or be otherwise there.
    parts(picture, |(object, reason)| is_of_owner(object) || names(reason, asked))
        + &refused(picture)
}

fn refused(picture: &Picture) -> String {
    part("refused files", picture.refused.iter())
}

fn parts(picture: &Picture, is_told: impl Fn(&Complaint) -> bool) -> String {
    let is_told = |complaint: &&Complaint| is_told(complaint);
    part("rejected", picture.rejected.iter().filter(is_told))
        + &part("served with a default", picture.defaulted.iter().filter(is_told))
}

fn part<'a>(title: &str, complaints: impl Iterator<Item = &'a Complaint>) -> String {
    let lines: String = complaints.map(|(what, reason)| format!("  {what}: {reason}\n")).collect();
    match lines.is_empty() {
        true => lines,
        false => format!("\n{title}\n{lines}"),
    }
}

/// Whether a reason names the address, with the port that is asked about or none.
fn names(reason: &str, asked: Asked) -> bool {
    let words = reason.split_whitespace().map(|word| word.trim_matches(PUNCTUATION));
    words.filter_map(|word| word.parse().ok()).any(|named| match named {
        Asked::Port(at) => asked.is_about(&at),
        Asked::All(ip) => asked.ip() == ip,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_named_with_the_port_in_question_or_none() {
        let names = |reason, asked: &str| names(reason, asked.parse().unwrap());
        let lost = "tcp 10.96.0.7:80 belongs to the older Service default/web";
        assert!(names(lost, "10.96.0.7:80") && names(lost, "10.96.0.7"));
        assert!(!names(lost, "10.96.0.7:443") && !names(lost, "10.96.0.77"));
        let excluded = "fd00::1 is in --ipvs-exclude-cidrs, so left to others";
        assert!(names(excluded, "[fd00::1]:80") && names(excluded, "fd00::1"));
        assert!(!names(excluded, "fd00::"));
        let quoted = "spec.externalIPs[0]: \"192.0.2.1\", (192.0.2.2), [fd00::1]:80; is none";
        for asked in ["192.0.2.1:1", "192.0.2.2", "[fd00::1]:80"] {
            assert!(names(quoted, asked), "{asked}");
        }
        assert!(!names(quoted, "[fd00::1]:81"));
    }
}
