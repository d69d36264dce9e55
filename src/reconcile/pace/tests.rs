//! When the next sync is due.

use super::*;

const PERIODS: Periods = Periods {
    sync: Duration::from_secs(30),
    min_sync: Duration::from_secs(1),
    audit: Duration::from_secs(20),
};

fn after(start: Instant, at: Option<Instant>) -> f64 {
    at.expect("a next sync").duration_since(start).as_secs_f64()
}

/// A pace after a sync at the instant returned.
fn synced(succeeded: bool) -> (Pace, Instant) {
    let (mut pace, now) = (Pace::new(PERIODS), Instant::now());
    pace.started();
    pace.audited(now);
    pace.ended(now, succeeded);
    (pace, now)
}

#[test]
fn the_first_sync_waits_for_the_lists_alone() {
    let pace = Pace::new(PERIODS);
    assert_eq!(pace.next(None), None);
    assert!(pace.audit_is_due(Instant::now()));
}

#[test]
fn an_idle_node_waits_for_the_audit_or_the_longest_pause() {
    let (mut pace, now) = synced(true);
    assert_eq!(after(now, pace.next(None)), 20.0);
    pace.audited(now + Duration::from_secs(15));
    assert_eq!(after(now, pace.next(None)), 30.0);
}

#[test]
fn a_request_waits_for_the_spacing_and_is_served_once() {
    let (mut pace, now) = synced(true);
    let early = now + Duration::from_millis(200);
    pace.request(early);
    assert_eq!(after(now, pace.next(None)), 1.0);
    let late = now + Duration::from_secs(5);
    pace.started();
    pace.request(late);
    assert_eq!(after(now, pace.next(None)), 5.0);
    pace.request(late + Duration::from_secs(1));
    assert_eq!(after(now, pace.next(None)), 5.0, "the first of several counts");
    pace.started();
    assert_eq!(after(now, pace.next(None)), 20.0);
}

#[test]
fn failures_in_a_row_wait_longer_each_time() {
    let (mut pace, now) =
        (Pace::new(Periods { min_sync: Duration::ZERO, ..PERIODS }), Instant::now());
    let waits: Vec<f64> = (0..8)
        .map(|_| {
            pace.ended(now, false);
            after(now, pace.next(None))
        })
        .collect();
    assert_eq!(waits, [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0]);
    pace.ended(now, true);
    assert_eq!(after(now, pace.next(None)), 30.0);
}

#[test]
fn what_is_overdue_waits_for_the_retry_but_a_request_does_not() {
    let (mut pace, now) = synced(true);
    let later = now + Duration::from_secs(100);
    pace.ended(later, false);
    pace.ended(later, false);
    pace.ended(later, false);
    assert_eq!(after(later, pace.next(Some(now))), 2.0, "an overdue audit and an overdue look");
    pace.request(later);
    assert_eq!(after(later, pace.next(Some(now))), 1.0);
}

#[test]
fn a_look_at_what_drains_comes_when_it_is_due() {
    let (pace, now) = synced(true);
    assert_eq!(after(now, pace.next(Some(now + Duration::from_secs(2)))), 2.0);
    assert_eq!(after(now, pace.next(Some(now))), 1.0);
}
