//! What can happen in a run. An event carries all it needs, so that a list of events can be
//! shortened and still means something.

use kube_ipvs_proxy::testing::random::Random;

use crate::service::ASPECTS;

/// One thing that happens. Numbers choose among what the world then offers.
#[derive(Debug, Clone, Copy)]
pub enum Event {
    /// A Service appears or changes.
    Service { number: usize, shape: u64 },
    /// One aspect of a Service changes.
    Aspect { number: usize, which: usize, shape: u64 },
    /// A Service goes.
    ServiceGone { number: usize },
    /// A slice of a Service appears or changes.
    Slice { number: usize, part: usize, shape: u64 },
    /// A slice goes.
    SliceGone { number: usize, part: usize },
    /// One endpoint changes its state, or goes, or comes.
    Endpoint { number: usize, part: usize, choice: u64 },
    /// The own Node changes its zone, addresses or pod ranges.
    Node { shape: u64 },
    /// The host gets an address, or loses one.
    HostAddress { choice: u64 },
    /// The ranges of service addresses change.
    ServiceCidr { shape: u64 },
    /// A watch is lost: objects vanish unseen, and the kind is listed anew.
    Relist { kind: usize, losses: u64 },
    /// Time passes.
    Time { millis: u64 },
    /// Connections come and go.
    Connections { choice: u64 },
    /// Clients send datagrams to fronts and elsewhere.
    Flows { choice: u64 },
    /// Another program changes rows of ours.
    Drift { choice: u64 },
    /// A sync in which nothing goes wrong.
    Sync,
    /// A sync in which once in so many operations something goes wrong.
    FaultySync { seed: u64, one_in: usize },
    /// From now on the whole of the host cannot be read, or can again.
    Blindness { lasts: bool },
    /// A sync that is killed after so many operations; the program starts again.
    KilledSync { after: usize },
    /// The program stops between two syncs and starts again.
    Restart,
    /// The same on a host that has come to know IPv6, or to know it no longer.
    RestartWith { v6: bool },
    /// The same, and it binds service addresses in the other way from now on.
    Rebind,
    /// The same, and some objects cannot be read from now on.
    RestartPartly { choice: u64 },
    /// All can be read again.
    Mend,
    /// A few syncs in which nothing goes wrong lead to what is wanted, without an audit.
    CatchUp,
}

/// Services in a run.
pub const SERVICES: usize = 5;

/// Slices per Service.
pub const SLICES: usize = 2;

/// A random list of events.
pub fn list(random: &mut Random) -> Vec<Event> {
    let length = 10 + random.below(30);
    (0..length).map(|_| one(random)).collect()
}

/// The same, and now and then a part of the cluster cannot be read.
pub fn list_in_part(random: &mut Random) -> Vec<Event> {
    let mut events = list(random);
    for _ in 0..=random.below(2) {
        let start = random.below(events.len());
        let end = (start + 2 + random.below(12)).min(events.len());
        events.insert(end, Event::Mend);
        // What nobody has programmed has nothing to lose; now and then a part of it was lost.
        let before = match random.below(4) {
            0 => Event::Drift { choice: random.number() },
            _ => Event::CatchUp,
        };
        events.splice(start..start, [before, Event::RestartPartly { choice: random.number() }]);
    }
    events
}

fn one(random: &mut Random) -> Event {
    let number = random.below(SERVICES);
    let part = random.below(SLICES);
    let any = random.number();
    match random.below(43) {
        0..4 => Event::Service { number, shape: any },
        4 => Event::ServiceGone { number },
        5..9 => Event::Slice { number, part, shape: any },
        9 => Event::SliceGone { number, part },
        10..14 => Event::Endpoint { number, part, choice: any },
        14 => Event::Node { shape: any },
        15 => Event::ServiceCidr { shape: any },
        16 => Event::Relist { kind: random.below(4), losses: any },
        17..19 => Event::Time { millis: [50, 3_000, 11_000, 400_000][random.below(4)] },
        19 => Event::Connections { choice: any },
        20..22 => Event::Drift { choice: any },
        22..26 => Event::Sync,
        26..28 => Event::FaultySync { seed: any, one_in: 1 + random.below(12) },
        28 => Event::KilledSync { after: random.below(40) },
        29 => Event::CatchUp,
        30..32 => Event::Blindness { lasts: random.one_in(2) },
        32..34 => Event::Flows { choice: any },
        34 => Event::RestartWith { v6: random.one_in(2) },
        36..41 => Event::Aspect { number, which: random.below(ASPECTS), shape: any },
        41..43 => Event::HostAddress { choice: any },
        _ if any.is_multiple_of(2) => Event::Rebind,
        _ => Event::Restart,
    }
}
