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
    pace.started(now);
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
    pace.started(late);
    pace.request(late);
    assert_eq!(after(now, pace.next(None)), 5.0);
    pace.request(late + Duration::from_secs(1));
    assert_eq!(after(now, pace.next(None)), 5.0, "the first of several counts");
    pace.started(late);
    assert_eq!(after(now, pace.next(None)), 20.0);
}

/// Fails as often as told, each time when it is tried again; returns the end of the last.
fn fail(pace: &mut Pace, mut now: Instant, times: usize) -> Instant {
    for time in 0..times {
        now = if time == 0 { now } else { pace.next(None).expect("a retry") };
        pace.started(now);
        pace.ended(now, false);
    }
    now
}

#[test]
fn failures_in_a_row_wait_longer_each_time() {
    let waits: Vec<f64> = (1..9)
        .map(|times| {
            let mut pace = Pace::new(Periods { min_sync: Duration::ZERO, ..PERIODS });
            let end = fail(&mut pace, Instant::now(), times);
            after(end, pace.next(None))
        })
        .collect();
    assert_eq!(waits, [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0]);
    let (mut pace, now) = (Pace::new(PERIODS), Instant::now());
    let end = fail(&mut pace, now, 8);
    pace.ended(end, true);
    assert_eq!(after(end, pace.next(None)), 30.0);
}

#[test]
fn what_is_overdue_waits_for_the_retry_but_a_request_does_not() {
    let (mut pace, now) = synced(true);
    let later = fail(&mut pace, now + Duration::from_secs(100), 3);
    assert_eq!(after(later, pace.next(Some(now))), 2.0, "an overdue audit and an overdue look");
    pace.request(later);
    assert_eq!(after(later, pace.next(Some(now))), 1.0);
}

#[test]
fn syncs_that_are_asked_for_neither_put_a_retry_off_nor_make_it_rarer() {
    let (mut pace, now) = synced(true);
    let end = fail(&mut pace, now, 4);
    for seconds in 1..4 {
        let early = end + Duration::from_secs(seconds);
        pace.started(early);
        assert!(!pace.may_retry(early));
        pace.ended(early, false);
    }
    assert_eq!(after(end, pace.next(None)), 4.0);
    assert!(pace.may_retry(end + Duration::from_secs(4)));
}

#[test]
fn a_pause_begins_when_a_sync_ends() {
    let (mut pace, now) = (Pace::new(PERIODS), Instant::now());
    let end = now + Duration::from_secs(60);
    pace.started(now);
    pace.ended(end, false);
    assert_eq!(after(end, pace.next(None)), 1.0, "the spacing, and a retry before it");
    let end = fail(&mut pace, end + Duration::from_secs(1), 2);
    assert_eq!(after(end, pace.next(None)), 2.0);
}

#[test]
fn a_look_at_what_drains_comes_when_it_is_due() {
    let (pace, now) = synced(true);
    assert_eq!(after(now, pace.next(Some(now + Duration::from_secs(2)))), 2.0);
    assert_eq!(after(now, pace.next(Some(now))), 1.0);
}

#[test]
fn what_can_wait_comes_once_no_change_is_close_and_at_last_in_spite_of_all() {
    let (mut pace, now) = synced(true);
    let leisure = |pace: &Pace, ahead| after(now, Some(pace.leisure(now, ahead)));
    assert_eq!(leisure(&pace, Ahead::Nothing), 0.0, "a sync without a change is none to wait for");
    pace.changed(now);
    for (ahead, expected) in [(Ahead::Nothing, 0.1), (Ahead::Audit, 5.0), (Ahead::Change, 10.0)] {
        assert_eq!(leisure(&pace, ahead), expected, "{ahead:?}");
    }
    pace.changed(now + Duration::from_secs(60));
    assert_eq!(leisure(&pace, Ahead::Nothing), 5.0);
    let [close, far] =
        [99, 100].map(|ms| now + Duration::from_secs(60) + Duration::from_millis(ms));
    assert!(pace.is_close_to_change(close) && !pace.is_close_to_change(far));
}
