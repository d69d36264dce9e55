//! Pace: how long to wait for an API server, and between requests to it.
//!
//! Used by [`super::reflector`]. Invariant: no sequence of answers makes requests follow each
//! other without a pause, and many nodes that lost one server do not come back at once.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

/// Waits and limits of the API source; tests use short ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// The first wait after a failure.
    pub backoff_min: Duration,
    /// The longest wait after failures.
    pub backoff_max: Duration,
    /// Watches of one kind start at most this often, however soon the server closes them.
    pub watch_interval: Duration,
    /// How long a request may take to be answered, a list to the end of its page.
    pub answer: Duration,
    /// A streaming list that pauses this long is not one: the server ignores the parameter.
    pub list_quiet: Duration,
    /// A streaming list that takes this long is not one either, however much is sent.
    pub list_whole: Duration,
    /// A watch without a word, not even a bookmark (one per minute), for this long is dead.
    pub watch_quiet: Duration,
    /// How long the server should keep a watch open.
    pub watch_seconds: u32,
    /// Objects per page of a list.
    pub page_size: u32,
    /// Events that may follow each other at once, after a silence.
    pub event_burst: u32,
    /// After these, one in so long: a cluster has many nodes, and all may have the same to say.
    pub event_interval: Duration,
    /// What every node has to say at once is said by each within so long, at random.
    pub event_spread: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Timing {
            backoff_min: Duration::from_millis(800),
            backoff_max: Duration::from_secs(30),
            watch_interval: Duration::from_secs(1),
            answer: Duration::from_secs(60),
            list_quiet: Duration::from_secs(10),
            list_whole: Duration::from_secs(180),
            watch_quiet: Duration::from_secs(150),
            watch_seconds: 290,
            page_size: 500,
            event_burst: 20,
            event_interval: Duration::from_secs(10),
            event_spread: Duration::from_secs(30),
        }
    }
}

/// Waits that double with each failure, with jitter.
#[derive(Debug)]
pub struct Backoff {
    timing: Timing,
    failures: u32,
}

impl Backoff {
    /// No failure yet.
    pub fn new(timing: Timing) -> Self {
        Backoff { timing, failures: 0 }
    }

    /// How long to wait after another failure: half of the doubled wait, and a random half.
    pub fn next_wait(&mut self) -> Duration {
        let doubled = self.timing.backoff_min.saturating_mul(1 << self.failures.min(16));
        let whole = doubled.min(self.timing.backoff_max);
        self.failures += 1;
        jittered(whole)
    }

    /// How long to wait for what is not expected to change soon.
    pub fn longest_wait(&self) -> Duration {
        jittered(self.timing.backoff_max)
    }

    /// Things work again.
    pub fn reset(&mut self) {
        self.failures = 0;
    }
}

/// Keeps starts apart.
#[derive(Debug, Default)]
pub struct Starts {
    last: Option<Instant>,
}

impl Starts {
    /// Waits until the interval since the last start is over.
    pub async fn next(&mut self, interval: Duration) {
        if let Some(last) = self.last {
            sleep_until(last + interval).await;
        }
        self.last = Some(Instant::now());
    }
}

/// What may be done at once, and what has to wait: a bucket of tokens.
#[derive(Debug)]
pub struct Allowance {
    timing: Timing,
    /// When the bucket is full again; it holds as many tokens as there are intervals left.
    full: Option<Instant>,
}

impl Allowance {
    /// All of a burst may be done at once.
    pub fn new(timing: Timing) -> Self {
        Allowance { timing, full: None }
    }

    /// Takes a token; tells when it is there.
    pub fn next(&mut self, now: Instant) -> Instant {
        let interval = self.timing.event_interval;
        let full = self.full.map_or(now, |full| full.max(now)) + interval;
        self.full = Some(full);
        now.max(full.checked_sub(interval * self.timing.event_burst).unwrap_or(now))
    }
}

/// Keeps apart the nodes that have the same to say at the same time.
#[derive(Debug, Clone, Copy)]
pub struct Spread {
    wait: Duration,
}

impl Spread {
    /// Draws the wait of this node: one for all that it says, so that nothing waits twice.
    pub fn new(timing: Timing) -> Self {
        Spread { wait: timing.event_spread.mul_f64(random_fraction()) }
    }

    /// When to say what was known at a time.
    pub fn due(&self, known: Instant) -> Instant {
        known + self.wait
    }
}

/// Half of a wait, and a random part of the other half.
fn jittered(whole: Duration) -> Duration {
    whole / 2 + (whole / 2).mul_f64(random_fraction())
}

/// A number from 0 to 1; the standard library's hasher keys are random enough for jitter.
fn random_fraction() -> f64 {
    let random = RandomState::new().hash_one(0_u8);
    f64::from(u32::try_from(random >> 32).unwrap_or(u32::MAX)) / f64::from(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_longest_and_start_over() {
        let mut backoff = Backoff::new(Timing::default());
        for whole in [0.8, 1.6, 3.2, 6.4, 12.8, 25.6, 30.0, 30.0] {
            let wait = backoff.next_wait().as_secs_f64();
            assert!((whole / 2.0..=whole).contains(&wait), "{wait} of {whole}");
        }
        backoff.failures = u32::MAX - 1;
        assert!(backoff.next_wait() <= Duration::from_secs(30));
        backoff.reset();
        assert!(backoff.next_wait() <= Duration::from_millis(800));
    }

    #[test]
    fn nodes_that_know_the_same_are_spread_over_the_time_for_it() {
        let known = Instant::now();
        let wait = |_| Spread::new(Timing::default()).due(known) - known;
        let waits: Vec<Duration> = (0..200).map(wait).collect();
        for third in 0..3 {
            let of_third = Duration::from_secs(third * 10)..=Duration::from_secs(third * 10 + 10);
            let nodes = waits.iter().filter(|wait| of_third.contains(wait)).count();
            assert!((30..=110).contains(&nodes), "{nodes} of 200 after {of_third:?}");
        }
        let at_once = Timing { event_spread: Duration::ZERO, ..Timing::default() };
        assert_eq!(Spread::new(at_once).due(known), known);
    }

    #[test]
    fn a_burst_is_allowed_at_once_and_then_one_in_each_interval() {
        let mut allowance = Allowance::new(Timing::default());
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        let mut taken = |seconds, number| -> Vec<Duration> {
            let now = after(seconds);
            (0..number).map(|_| allowance.next(now) - now).collect()
        };
        let seconds = |waits: [u64; 3]| waits.map(Duration::from_secs);
        assert_eq!(taken(0, 20), [Duration::ZERO; 20]);
        assert_eq!(taken(0, 3), seconds([10, 20, 30]), "what is taken is owed");
        assert_eq!(taken(35, 3), seconds([5, 15, 25]));
        assert_eq!(taken(1000, 20), [Duration::ZERO; 20], "no more than a burst is saved up");
        assert_eq!(taken(1000, 3), seconds([10, 20, 30]));
    }
}
