//! When a sync follows what happened.

use std::time::{Duration, Instant};

use kube_ipvs_proxy::config::Periods;
use kube_ipvs_proxy::reconcile::pace::Pace;

use super::case::{Case, case};

pub fn cases() -> Vec<Case> {
    vec![
        case("BoundedFrequencyRunner/first-request", first_request),
        case("BoundedFrequencyRunner/requests-coalesce", requests_coalesce),
        case("BoundedFrequencyRunner/no-request", no_request),
        case("BoundedFrequencyRunner/retry-after-error", retry),
        case("BoundedFrequencyRunner/success-cancels-retry", success_cancels_retry),
        case("BoundedFrequencyRunner/retry-shorter-than-minimum", retry_waits_for_the_minimum),
    ]
}

/// A pace whose last sync ended at the instant returned.
fn synced(min_millis: u64, succeeded: bool) -> (Pace, Instant) {
    let periods = Periods {
        sync: Duration::from_secs(10),
        min_sync: Duration::from_millis(min_millis),
        audit: Duration::from_secs(3600),
    };
    let (mut pace, now) = (Pace::new(periods), Instant::now());
    pace.started(now);
    pace.audited(now);
    pace.ended(now, succeeded);
    (pace, now)
}

fn millis(pace: &Pace, since: Instant) -> u128 {
    pace.next(None).unwrap().duration_since(since).as_millis()
}

fn first_request() {
    let (mut pace, end) = synced(1000, true);
    let later = end + Duration::from_secs(5);
    pace.request(later);
    assert_eq!(millis(&pace, later), 0);
}

fn requests_coalesce() {
    let (mut pace, end) = synced(1000, true);
    for early in [1, 500, 999] {
        pace.request(end + Duration::from_millis(early));
        assert_eq!(millis(&pace, end), 1000);
    }
    pace.started(end + Duration::from_secs(1));
    pace.ended(end + Duration::from_secs(1), true);
    assert_eq!(millis(&pace, end), 11_000, "one sync serves them all");
}

fn no_request() {
    let (pace, end) = synced(1000, true);
    assert_eq!(millis(&pace, end), 10_000);
}

fn retry() {
    let (mut pace, mut end) = synced(0, false);
    for pause in [500, 1000, 2000, 4000, 8000] {
        assert_eq!(millis(&pace, end), pause);
        end = pace.next(None).unwrap();
        pace.started(end);
        pace.ended(end, false);
    }
}

fn success_cancels_retry() {
    let (mut pace, end) = synced(0, false);
    let early = end + Duration::from_millis(100);
    pace.request(early);
    pace.started(early);
    pace.ended(early, true);
    assert_eq!(millis(&pace, early), 10_000);
}

fn retry_waits_for_the_minimum() {
    let (pace, end) = synced(1000, false);
    assert_eq!(millis(&pace, end), 1000);
}
