//! Which version of a program a host has, and which tables it uses.

use super::{Call, Error, PACKAGE, Runner, SAVE_LIMIT, Variant};
use crate::model::iptables::Version;
use crate::model::net::Family;

impl Variant {
    /// The version of its programs for a family.
    pub fn version(self, runner: &mut Runner, family: Family) -> Result<Version, Error> {
        let program = self.program(family, "");
        let answer = runner.run(&Call {
            program: &program,
            arguments: &["--version"],
            input: "",
            package: PACKAGE,
            limit: SAVE_LIMIT,
        })?;
        parse(&answer).ok_or(Error::Version { program, answer })
    }
}

/// The version in `iptables v1.8.9 (nf_tables)`.
fn parse(answer: &str) -> Option<Version> {
    let word = answer.split_whitespace().find_map(|word| word.strip_prefix('v'))?;
    let mut numbers = word.split('.').map(|number| number.parse().ok());
    let (major, minor) = (numbers.next()??, numbers.next()??);
    let number = (major, minor, numbers.next().flatten().unwrap_or(0));
    Some(Version { number, is_nf_tables: answer.contains("(nf_tables)") })
}

#[cfg(test)]
mod tests {
    use super::super::RANDOM_FULLY_VERSION;
    use super::*;

    #[test]
    fn reads_versions() {
        let version = |number, is_nf_tables| Some(Version { number, is_nf_tables });
        assert_eq!(parse("iptables v1.8.9 (nf_tables)\n"), version((1, 8, 9), true));
        assert_eq!(parse("iptables v1.8.9 (legacy)\n"), version((1, 8, 9), false));
        assert_eq!(parse("iptables v1.6.1\n"), version((1, 6, 1), false));
        assert_eq!(parse("iptables v1.4\n"), version((1, 4, 0), false));
        assert_eq!(parse("command not found"), None);
        assert!((1, 8, 9) > RANDOM_FULLY_VERSION && (1, 6, 1) < RANDOM_FULLY_VERSION);
    }
}
