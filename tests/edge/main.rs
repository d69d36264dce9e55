//! The kernel edge against the kernel of this machine.
//!
//! Each test runs on a thread of its own in a network namespace of its own, so nothing of the
//! machine is touched. What the machine cannot run is shown as ignored, with the reason.
//!
//! Invariant: a test never leaves its namespace; settings outside of it are only read.

mod host;
mod links;
mod locks;
mod namespace;
mod rules;
mod sets;

use libtest_mimic::{Arguments, Conclusion, Trial};

use namespace::Needs;

fn main() -> std::process::ExitCode {
    let arguments = Arguments::from_args();
    let mut trials = Vec::new();
    trials.extend(sets::tests().map(|(name, test)| trial("sets", name, Needs::Root, test)));
    trials.extend(rules::tests().map(|(name, test)| trial("rules", name, Needs::Root, test)));
    trials.extend(locks::tests().map(|(name, test)| trial("locks", name, Needs::Root, test)));
    trials.extend(links::tests().map(|(name, test)| trial("links", name, Needs::Root, test)));
    trials.extend(host::tests().map(|(name, test)| trial("host", name, Needs::Ipvs, test)));
    let conclusion: Conclusion = libtest_mimic::run(&arguments, trials);
    conclusion.exit_code()
}

/// A test, or a visible note why it cannot run here.
fn trial(group: &str, name: &str, needs: Needs, test: fn()) -> Trial {
    match needs.missing() {
        Some(reason) => Trial::test(format!("{group}::{name} (skipped: {reason})"), || Ok(()))
            .with_ignored_flag(true),
        None => Trial::test(format!("{group}::{name}"), move || namespace::run(test)),
    }
}
