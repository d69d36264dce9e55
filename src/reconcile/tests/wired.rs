//! What the loop takes in of a configuration, and what it tells of drains; driven by hand.

use tokio::time::timeout;

use super::*;

#[test]
fn a_configuration_that_asks_for_no_sync_is_not_counted_as_a_request() {
    let (wires, ends) = Wires::new(Metrics::new());
    let mut cycle = Cycle::new(engine(), Stub::default(), wires);
    ends.updates.try_send(Update::ListDone(Kind::Service)).unwrap();
    cycle.take_queued();
    cycle.sync();
    let periods = Periods { sync: HOUR / 2, min_sync: Duration::ZERO, audit: HOUR };
    let mut is_pending_after = |policy| {
        ends.configuration.send_replace(Some(Reconfigured { policy, periods }));
        cycle.reconfigure();
        cycle.status.pending_since.is_some()
    };
    assert!(!is_pending_after(policy()));
    assert!(is_pending_after(Policy { masquerade_all: true, ..policy() }));
}

#[test]
fn deadlines_of_drains_are_told_when_they_are_new_changed_or_gone() {
    let web = || objects::service("default/web", &["10.96.0.1"], &["tcp 80"]).applied();
    let slice = |addresses: &[&str]| {
        let endpoints: Vec<_> = addresses.iter().map(|one| objects::endpoint(one)).collect();
        objects::slice_applied("default/web", &["tcp 8080"], &endpoints)
    };
    let [one, both] = [&["10.244.1.1"][..], &["10.244.1.1", "10.244.1.2"]].map(slice);
    let (wires, ends) = Wires::new(Metrics::new());
    let mut told = ends.drains.clone();
    let periods = Periods { sync: HOUR, min_sync: Duration::ZERO, audit: HOUR };
    let engine = Engine::new(objects::policy(), periods, Store::new(&Kind::ALL));
    let kernel = testing::fake_kernel::FakeKernel::default();
    let mut cycle = Cycle::new(engine, kernel, wires);
    let mut told_after = |news: Vec<Update>| -> Option<Vec<RealKey>> {
        news.into_iter().for_each(|update| ends.updates.try_send(update).unwrap());
        cycle.take_queued();
        assert!(cycle.sync().is_complete());
        let is_new = told.has_changed().unwrap();
        let deadlines = told.borrow_and_update();
        is_new.then(|| deadlines.iter().map(|deadline| deadline.real).collect())
    };
    assert_eq!(told_after(objects::listed([web(), both.clone()])), None);
    assert_eq!(told_after(vec![one]), Some(vec![objects::real("10.244.1.2:8080")]));
    assert_eq!(told_after(vec![]), None);
    assert_eq!(told_after(vec![both]), Some(vec![]));
}

/// Syncs that are due one after the other leave no time to wait for anything.
#[test]
fn parts_of_audits_are_taken_between_syncs_and_behind_changes() {
    let (mut wires, ends) = Wires::new(Metrics::new());
    let (begin, _begun) = tokio::sync::mpsc::channel(1);
    let (tell, told) = tokio::sync::mpsc::channel(1);
    wires.auditor = Some(Auditor::new(begin, told));
    let mut cycle = Cycle::new(engine(), Stub::default(), wires);
    ends.updates.try_send(Update::ListDone(Kind::Service)).unwrap();
    cycle.take_queued();
    cycle.sync();
    let ended = || Told::Ended { outcome: Ok(()), took: Duration::ZERO };
    tell.try_send(ended()).unwrap();
    cycle.take_queued();
    tell.try_send(ended()).expect("the first was taken");
    let service = objects::service("default/web", &["10.96.0.1"], &["tcp 80"]).applied();
    ends.updates.try_send(service).unwrap();
    cycle.take_queued();
    assert!(tell.try_send(ended()).is_err(), "a change comes first");
}

/// An audit that is asked for while one is read waits, as that one may have passed what changed.
#[test]
fn an_audit_that_is_asked_for_begins_at_once_or_after_the_one_that_is_read() {
    let events = Events::default();
    let _recording = events.record();
    let (mut wires, ends) = Wires::new(Metrics::new());
    let (begin, mut begun) = tokio::sync::mpsc::channel(1);
    let (tell, told) = tokio::sync::mpsc::channel(1);
    wires.auditor = Some(Auditor::new(begin, told));
    let mut cycle = Cycle::new(engine(), Stub::default(), wires);
    let ask = || ends.ask_for_audit.try_send(AuditAsked).unwrap();
    ask();
    ends.updates.try_send(Update::ListDone(Kind::Service)).unwrap();
    let mut begins_after_wait = || {
        runtime().unwrap().block_on(async {
            let is_due = timeout(Duration::ZERO, cycle.wait()).await.is_ok();
            is_due.then(|| cycle.sync());
        });
        begun.try_recv().is_ok()
    };
    assert!(!begins_after_wait(), "the first reading is whole");
    ask();
    assert!(begins_after_wait());
    ask();
    assert!(!begins_after_wait(), "one is read");
    let end = || tell.try_send(Told::Ended { outcome: Ok(()), took: Duration::ZERO }).unwrap();
    events.take();
    end();
    assert!(begins_after_wait());
    assert_eq!(events.take()[0], "INFO audited");
    end();
    assert!(!begins_after_wait(), "nobody has asked");
    ask();
    assert!(begins_after_wait());
    events.take();
    tell.try_send(Told::Ended { outcome: Err(refused()), took: Duration::ZERO }).unwrap();
    assert!(!begins_after_wait(), "everything is read in its place");
    assert!(events.take().contains(&"INFO audited".into()));
}

/// With no pause between syncs, the next one is due when one ends.
#[test]
fn syncs_that_follow_each_other_hold_up_neither_news_nor_the_end() {
    let (wires, ends) = Wires::new(Metrics::new());
    let (stub, stop) = (Stub::default(), wires.stop.clone());
    let periods = Periods { sync: Duration::ZERO, min_sync: Duration::ZERO, audit: HOUR };
    let engine = Engine::new(policy(), periods, Store::new(&[Kind::Service]));
    let mut cycle = Cycle::new(engine, stub.clone(), wires);
    let mut wait = || {
        let waited = runtime().unwrap().block_on(cycle.wait());
        waited.map(|()| cycle.sync().is_complete())
    };
    ends.updates.try_send(Update::ListDone(Kind::Service)).unwrap();
    assert_eq!([wait(), wait()], [Ok(true); 2]);

    let policy = Policy { masquerade_all: true, ..policy() };
    ends.configuration.send_replace(Some(Reconfigured { policy, periods }));
    ends.updates.try_send(service("web", [10, 96, 0, 1])).unwrap();
    ends.host.try_send(HostChanged).unwrap();
    ends.ask_for_audit.try_send(AuditAsked).unwrap();
    let (answer, mut answered) = tokio::sync::oneshot::channel();
    ends.ask.try_send(view::Question { after: None, answer }).unwrap();
    let rules = stub.0.lock().unwrap().mirror.tables.rulesets.clone();
    assert_eq!(wait(), Ok(true));
    assert_eq!((stub.servers(), answered.try_recv().is_ok()), (1, true));
    assert_ne!(stub.0.lock().unwrap().mirror.tables.rulesets, rules);
    for waiting in [ends.host.capacity(), ends.ask_for_audit.capacity()] {
        assert_eq!(waiting, 1, "it was taken");
    }
    stop.cancel();
    assert_eq!(wait(), Err(Ended::Stopped));
}
