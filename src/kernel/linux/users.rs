//! Who uses a chain or a set of ours that the kernel therefore keeps.
//!
//! Cost: looked for only after the kernel has refused; rules are listed, and sets.

use std::collections::BTreeSet;

use super::LinuxKernel;
use crate::kernel::iptables::Used;
use crate::kernel::{Error, ipset, iptables};
use crate::model::ipset::SetKey;
use crate::model::iptables::ChainKey;
use crate::model::net::Family;

/// Users that are named; who mends these sees the others the next time.
const NAMED: usize = 5;

impl LinuxKernel {
    /// Why a chain could not be deleted.
    pub(super) fn kept_chain(&mut self, chain: &ChainKey, cause: iptables::Error) -> Error {
        let ChainKey { family, table, name } = chain;
        let used = Used::Chain(*table, name);
        let users = match cause {
            iptables::Error::Line { .. } => {
                self.tools.users((&mut self.runner, &mut self.printed), *family, used)
            }
            _ => Vec::new(),
        };
        let (operation, key) = ("delete chain", chain.to_string());
        in_use(operation, &key, users.into_iter().collect()).unwrap_or(Error::Rules {
            operation,
            key,
            cause: Box::new(cause),
        })
    }

    /// Why a set could not be destroyed.
    pub(super) fn kept_set(
        &mut self,
        operation: &'static str,
        set: SetKey,
        cause: ipset::Error,
    ) -> Error {
        let key = set.name().to_owned();
        let users = match cause.is_in_use() {
            true => self.users_of_set(&key),
            false => BTreeSet::new(),
        };
        in_use(operation, &key, users).unwrap_or(Error::Set { operation, key, cause })
    }

    fn users_of_set(&mut self, name: &str) -> BTreeSet<String> {
        let of_family = |family| {
            let asked = (&mut self.runner, &mut self.printed);
            self.tools.users_in_all_tables(asked, family, Used::Set(name))
        };
        let rules: BTreeSet<String> = Family::ALL.into_iter().flat_map(of_family).collect();
        // Who cannot be listed cannot be named.
        let lists = self.ipset.holders(name).unwrap_or_default();
        rules.into_iter().chain(lists.into_iter().map(|list| format!("set {list}"))).collect()
    }
}

/// The error that names the users, if any are known.
fn in_use(operation: &'static str, key: &str, users: BTreeSet<String>) -> Option<Error> {
    if users.is_empty() {
        return None;
    }
    let more = users.len().saturating_sub(NAMED);
    let mut users = users.into_iter().take(NAMED).collect::<Vec<_>>().join("; ");
    if more > 0 {
        users += &format!("; and {more} more");
    }
    Some(Error::InUse { operation, key: key.to_owned(), users })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn some_users_are_named_and_the_others_counted() {
        let users = |count: usize| (0..count).map(|n| format!("set LIST-{n}")).collect();
        assert!(in_use("destroy set", "KUBE-CLUSTER-IP", users(0)).is_none());
        let text = |count| {
            let error = in_use("destroy set", "KUBE-CLUSTER-IP", users(count)).expect("an error");
            assert!(!error.is_ambiguous() && !error.is_gone());
            error.to_string()
        };
        let expected = "cannot destroy set KUBE-CLUSTER-IP: others use it: set LIST-0; set LIST-1: \
                        delete what uses it first";
        assert_eq!(text(2), expected);
        assert!(text(7).contains("set LIST-4; and 2 more: delete"), "{}", text(7));
    }
}
