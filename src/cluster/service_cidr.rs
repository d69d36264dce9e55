//! ServiceCIDRs: the slim API type to the ranges that service addresses are allocated from.
//!
//! Called by [`super::objects::read`]. Invariant: a range that does not parse costs itself.

use super::field::{self, Reasons};
use super::{Object, Parsed, objects};

/// Parses a ServiceCIDR.
///
/// One that is being deleted still counts: it goes only when no address of it is in use.
pub fn parse(object: &objects::ServiceCidr) -> Parsed {
    let mut reasons = Reasons::default();
    let cidrs = object.spec.cidrs.iter().enumerate();
    let ranges = reasons
        .usable(cidrs.map(|(index, text)| field::cidr(format_args!("spec.cidrs[{index}]"), text)));
    Parsed {
        object: (!ranges.is_empty()).then_some(Object::ServiceCidr(ranges)),
        reasons: reasons.0,
        ..Parsed::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::Kind;
    use crate::testing::objects::reasons;

    #[test]
    fn ranges_are_read_one_by_one() {
        let json = r#"{"metadata":{"name":"kubernetes"},
            "spec":{"cidrs":["10.96.0.0/16","nonsense","fd00:10::/108"]}}"#;
        let parsed = objects::read(Kind::ServiceCidr, json).unwrap().parsed;
        let ranges = ["10.96.0.0/16", "fd00:10::/108"].map(|range| range.parse().unwrap());
        assert_eq!(parsed.object, Some(Object::ServiceCidr(ranges.to_vec())));
        assert_eq!(reasons(&parsed), ["spec.cidrs[1]: \"nonsense\" is not a CIDR"]);
    }
}
