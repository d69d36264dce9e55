//! Waiting for a condition, always with a limit.

use std::thread;
use std::time::{Duration, Instant};

const INTERVAL: Duration = Duration::from_millis(5);

/// Returns as soon as the condition holds; the test fails if it does not within the limit.
pub fn until(what: &str, limit: Duration, mut holds: impl FnMut() -> bool) {
    assert!(holds_within(limit, &mut holds), "not within {limit:?}: {what}");
}

/// Whether the condition comes to hold within the limit.
pub fn holds_within(limit: Duration, mut holds: impl FnMut() -> bool) -> bool {
    let start = Instant::now();
    while !holds() {
        if start.elapsed() > limit {
            return false;
        }
        thread::sleep(INTERVAL);
    }
    true
}
