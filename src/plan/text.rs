//! The text of a plan: one line per change, for debug logs and tests.
//!
//! ```text
//! reals     + tcp 10.96.12.4:80 > 10.244.3.2:8080  weight 1
//! reals     ~ tcp 10.96.12.4:80 > 10.244.1.9:8080  weight 1 to weight 0
//! addresses - 10.96.12.5
//! ```

use std::fmt::{self, Display, Formatter};
use std::net::IpAddr;

use super::step::{Change, Step};
use crate::model::ipset::{SetKey, SetSpec};
use crate::model::ipvs::{RealServer, VirtualServer};
use crate::model::link::{Binding, DEVICE};

impl Display for Step {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let kind = self.kind();
        match self {
            Step::Settings(changes) => write_all(f, kind, changes, Clone::clone),
            Step::Sets(changes) => {
                let text = |change: &Change<SetKey, SetSpec>| {
                    let [from, to] =
                        [change.from, change.to].map(|spec| spec.map(set_spec(change)));
                    Change { key: change.key, from, to }
                };
                let changes: Vec<_> = changes.iter().map(text).collect();
                write_all(f, kind, &changes, String::clone)
            }
            Step::Device(true) => writeln!(f, "{kind:<9} + {DEVICE}"),
            Step::Device(false) => writeln!(f, "{kind:<9} - {DEVICE}"),
            Step::Rules(change) => writeln!(f, "{kind:<9} ~ {}", change.family),
            Step::Chains(changes) => write_all(f, kind, changes, |()| String::new()),
            Step::Entries(changes) => write_all(f, kind, changes, |()| String::new()),
            Step::Servers(changes) => write_all(f, kind, changes, virtual_server),
            Step::Reals(changes) => {
                let text = |change: &Change<_, RealServer>| {
                    let (server, real) = change.key;
                    Change { key: format!("{server} > {real}"), from: change.from, to: change.to }
                };
                let changes: Vec<_> = changes.iter().map(text).collect();
                write_all(f, kind, &changes, real_server)
            }
            Step::Addresses(changes) => {
                let changes: Vec<_> = changes.iter().map(address).collect();
                write_all(f, kind, &changes, String::clone)
            }
            Step::Flows(changes) => write_all(f, kind, changes, |()| String::new()),
            Step::Leftovers(changes) => write_all(f, kind, changes, |()| String::new()),
        }
    }
}

fn write_all<K: Display, V>(
    f: &mut Formatter<'_>,
    kind: &str,
    changes: &[Change<K, V>],
    text: impl Fn(&V) -> String,
) -> fmt::Result {
    for change in changes {
        let (sign, value) = match (&change.from, &change.to) {
            (None, Some(to)) => ('+', text(to)),
            (Some(from), Some(to)) => ('~', format!("{} to {}", text(from), text(to))),
            (_, None) => ('-', String::new()),
        };
        let gap = if value.is_empty() { "" } else { "  " };
        writeln!(f, "{kind:<9} {sign} {}{gap}{value}", change.key)?;
    }
    Ok(())
}

/// The type, and, where that is what changes, the capacity.
fn set_spec(change: &Change<SetKey, SetSpec>) -> impl Fn(SetSpec) -> String {
    let has_grown = change.from.is_some();
    move |spec| match spec.maxelem {
        Some(most) if has_grown => format!("{} of {most}", spec.kind.name()),
        _ => spec.kind.name().to_string(),
    }
}

/// How it is bound, where that is not the plain way from the beginning.
fn address(change: &Change<IpAddr, Binding>) -> Change<IpAddr, String> {
    let is_plain = change.from.is_none() && change.to == Some(Binding::ADDRESS);
    let text = |binding: Binding| if is_plain { String::new() } else { binding.to_string() };
    Change { key: change.key, from: change.from.map(text), to: change.to.map(text) }
}

fn real_server(real: &RealServer) -> String {
    format!("weight {}", real.weight)
}

fn virtual_server(server: &VirtualServer) -> String {
    let mut text = server.scheduler.to_string();
    if server.scheduler_flags != 0 {
        text.push_str(&format!(" flags {:#x}", server.scheduler_flags));
    }
    if let Some(seconds) = server.persistence {
        text.push_str(&format!(" persistent {seconds}s"));
    }
    text
}
