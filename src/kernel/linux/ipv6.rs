//! Whether IPv6 is served on this host, and why not.
//!
//! Invariant: only what the host lacks for good, or is told not to do, leaves the family out. What
//! may pass is an error: a family that is left out is taken away from the kernel.

use tracing::{info, warn};

use super::host;
use crate::kernel::Error;
use crate::kernel::exec::Runner;
use crate::kernel::iptables::{self, Tools};
use crate::kernel::sysctl::Sysctl;
use crate::model::net::Family;

/// What is known about IPv6 on this host.
#[derive(Debug, Clone, Default)]
pub(super) struct Ipv6 {
    /// Why the programs for its rules cannot be used, if so.
    no_tools: Option<String>,
    /// Why it is left out, as last said.
    said: Option<String>,
}

impl Ipv6 {
    /// Tries the programs.
    pub(super) fn detect(
        runner: &mut Runner,
        sysctl: &Sysctl,
        tools: &Tools,
    ) -> Result<Self, Error> {
        let listed = tools.save(runner, Family::V6);
        let is_off = listed.is_err() && host::without_ipv6(sysctl)?.is_some();
        judge(listed.map(drop), is_off).map(|no_tools| Ipv6 { no_tools, said: None })
    }

    /// Whether rules can be listed and loaded.
    pub(super) fn has_tools(&self) -> bool {
        self.no_tools.is_none()
    }

    /// Whether the family can be served now; says so when it cannot, once.
    pub(super) fn look(&mut self, sysctl: &Sysctl) -> Result<bool, Error> {
        let why = host::without_ipv6(sysctl)?.or_else(|| self.no_tools.clone());
        match &why {
            Some(reason) if self.said != why => warn!(reason, "IPv6 is left out"),
            None if self.said.is_some() => info!("IPv6 is no longer left out"),
            _ => {}
        }
        self.said = why;
        Ok(self.said.is_none())
    }
}

/// Why to do without the programs, given what they said; an error that may pass stays one.
fn judge(listed: Result<(), iptables::Error>, is_off: bool) -> Result<Option<String>, Error> {
    match listed {
        Ok(()) => Ok(None),
        Err(error) if is_off || error.is_lacking() => Ok(Some(reason(&error))),
        Err(cause) => Err(Error::Rules {
            operation: "use",
            key: "ip6tables".to_owned(),
            cause: Box::new(cause),
        }),
    }
}

/// The reason, with what to do about it.
fn reason(error: &iptables::Error) -> String {
    match error {
        iptables::Error::Program(crate::kernel::exec::Error::Missing { .. }) => error.to_string(),
        _ => format!("{error}: load ip6_tables: modprobe ip6_tables ip6table_nat ip6table_filter"),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;
    use std::process::ExitStatus;
    use std::time::Duration;

    use super::*;
    use crate::kernel::exec;

    fn failed(complaint: &str) -> iptables::Error {
        iptables::Error::Program(exec::Error::Failed {
            program: "ip6tables-save".to_owned(),
            status: ExitStatus::from_raw(4 << 8),
            complaint: complaint.to_owned(),
        })
    }

    fn timed_out() -> iptables::Error {
        let (program, limit) = ("ip6tables-save".to_owned(), Duration::from_secs(30));
        iptables::Error::Program(exec::Error::TimedOut { program, limit })
    }

    #[test]
    fn a_host_without_the_program_or_the_tables_does_without() {
        let program = "ip6tables-save".to_owned();
        let missing =
            iptables::Error::Program(exec::Error::Missing { program, package: "iptables" });
        for (error, words) in [
            (missing, "ip6tables-save is not installed: install iptables"),
            (failed("table `nat' does not exist"), "modprobe ip6_tables"),
            (failed("can't initialize ip6tables table `nat'"), "modprobe ip6_tables"),
        ] {
            let reason = judge(Err(error), false).expect("no error").expect("left out");
            assert!(reason.contains(words), "{reason}");
        }
        assert!(matches!(judge(Ok(()), false), Ok(None)));
        // Nobody misses them where the family is off.
        assert!(matches!(judge(Err(timed_out()), true), Ok(Some(_))));
    }

    #[test]
    fn what_may_pass_is_an_error_and_not_the_end_of_the_family() {
        for error in [timed_out(), failed("Another app is currently holding the xtables lock")] {
            let error = anyhow::Error::from(judge(Err(error), false).expect_err("an error"));
            let text = format!("{error:#}");
            assert!(text.starts_with("cannot use ip6tables: ip6tables-save "), "{text}");
        }
    }
}
