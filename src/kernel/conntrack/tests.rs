//! Codec tests of the folder: both directions on bytes of real kernels, and no panic on any bytes.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::message::{self, Filter};
use crate::kernel::netlink::captures::capture;
use crate::model::conntrack::Flow;
use crate::model::ipvs::ServerKey;
use crate::model::net::{Family, Protocol};

const CAPTURES: &str = include_str!("testdata/captures.hex");

const V4: &str =
    "udp 10.244.1.9:40001 > 10.96.0.10:53, answered by 10.244.2.7:5353, number 135269322";
const V6: &str = "udp [fd00:244:1::9]:40001 > [fd00:96::a]:53, answered by [fd00:244:2::7]:5353";

fn listed(name: &str) -> Option<Flow> {
    message::flow(&capture(CAPTURES, name)).expect("a flow, or none")
}

fn flow(id: u32, client: &str, destination: &str, answerer: &str) -> Flow {
    let at = |text: &str| text.parse().expect("an address and a port");
    Flow { id, client: at(client), destination: at(destination), answerer: at(answerer) }
}

fn fronts(texts: &[&str]) -> BTreeSet<ServerKey> {
    let front = |text: &&str| flow(0, "192.0.2.1:1", text, text).front();
    texts.iter().map(front).collect()
}

#[test]
fn reads_flows() {
    let v4 = flow(135_269_322, "10.244.1.9:40001", "10.96.0.10:53", "10.244.2.7:5353");
    assert_eq!(listed(V4), Some(v4));
    assert_eq!(v4.to_string(), "udp 10.96.0.10:53 from 10.244.1.9:40001 > 10.244.2.7:5353");
    let id = 0x7579_9ff6;
    let v6 = flow(id, "[fd00:244:1::9]:40001", "[fd00:96::a]:53", "[fd00:244:2::7]:5353");
    assert_eq!(listed(V6), Some(v6));
}

#[test]
fn passes_over_other_protocols_and_zones() {
    for name in ["tcp", "udp in zone 7", "udp in zone 8 of the original direction"] {
        assert_eq!(listed(name), None, "{name}");
    }
}

/// A deletion names the flow as the kernel does: by the whole original tuple, and the number.
#[test]
fn deletes_what_was_listed() {
    for (name, tuple) in [(V4, 4..56), (V6, 4..80)] {
        let bytes = capture(CAPTURES, name);
        let flow = message::flow(&bytes).unwrap().unwrap();
        let header = &bytes[..4];
        let number = [&[8, 0, 12, 0][..], &flow.id.to_be_bytes()].concat();
        let expected = [header, &bytes[tuple], &number].concat();
        assert_eq!(message::delete(&flow).body(), expected, "{name}");
    }
}

#[test]
fn lets_the_kernel_filter() {
    let filter = Filter::of(&fronts(&["10.96.0.10:53"])).unwrap();
    let expected = capture(CAPTURES, "list by protocol, address and port");
    assert_eq!(message::list(&filter).body(), expected);
}

#[test]
fn filters_by_what_all_fronts_share() {
    let (v4, v6) = (Family::V4, Family::V6);
    for (texts, family, address, port) in [
        (&["10.96.0.10:53"][..], v4, Some([10, 96, 0, 10]), Some(53)),
        (&["10.96.0.10:53", "10.96.0.10:54"], v4, Some([10, 96, 0, 10]), None),
        (&["10.96.0.10:53", "10.96.0.11:53"], v4, None, Some(53)),
        (&["10.96.0.10:53", "192.0.2.1:30053"], v4, None, None),
        (&["[fd00::1]:53"], v6, None, Some(53)),
    ] {
        let expected = Filter { family, address: address.map(Into::into), port };
        assert_eq!(Filter::of(&fronts(texts)), Some(expected), "{texts:?}");
    }
    assert_eq!(Filter::of(&BTreeSet::new()), None);
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(
        cut in 0_usize..250,
        changes in prop::collection::vec((0_usize..250, any::<u8>()), 0..6),
        name in prop::sample::select(vec![V4, V6, "tcp", "udp in zone 7"]),
    ) {
        let mut bytes = capture(CAPTURES, name);
        bytes.truncate(cut.max(1));
        for (at, value) in changes {
            if let Some(byte) = bytes.get_mut(at) {
                *byte = value;
            }
        }
        if let Ok(Some(flow)) = message::flow(&bytes) {
            prop_assert_eq!(flow.front().protocol, Protocol::Udp);
        }
    }
}
