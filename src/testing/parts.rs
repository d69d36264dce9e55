//! The fake kernel read part by part, as an audit reads the real one.

use super::fake_kernel::FakeKernel;
use crate::model::ipset::SetKey;
use crate::model::observed::{Observed, Part};
use crate::model::tables::Tables;

/// The readings of an audit in their order; each tells what is there when it is made.
pub const READINGS: [fn(&FakeKernel) -> Vec<Part>; 5] =
    [foundation, entries, addresses, keys, servers];

fn foundation(kernel: &FakeKernel) -> Vec<Part> {
    let there = &kernel.tables;
    let tables = Tables {
        settings: there.settings.clone(),
        sets: there.sets.clone(),
        rulesets: kernel.printed_rulesets(),
        device: there.device,
        ..Tables::default()
    };
    let observed = Observed { tables, host: kernel.host.clone(), ..Observed::default() };
    vec![Part::Foundation(Box::new(observed))]
}

fn entries(kernel: &FakeKernel) -> Vec<Part> {
    let there = &kernel.tables;
    let part = |set: &SetKey| Part::Entries(vec![(*set, there.entries.of(*set).clone())]);
    there.sets.keys().map(part).collect()
}

fn addresses(kernel: &FakeKernel) -> Vec<Part> {
    vec![Part::Addresses(kernel.tables.addresses.clone())]
}

fn keys(kernel: &FakeKernel) -> Vec<Part> {
    vec![Part::Keys(kernel.tables.servers.keys().copied().collect())]
}

fn servers(kernel: &FakeKernel) -> Vec<Part> {
    let servers = kernel.tables.servers.iter();
    servers.map(|(key, server)| Part::Servers(vec![(*key, (**server).clone()).into()])).collect()
}
