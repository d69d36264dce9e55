//! The instance lock, and the file of what a restart is to know: one per network namespace.

use std::path::{Path, PathBuf};
use std::process;
use std::thread;
use std::time::{Duration, Instant};

use kube_ipvs_proxy::kernel::lock::{Error, take};
use kube_ipvs_proxy::state;
use nix::sched::{CloneFlags, unshare};

use crate::Test;

pub fn tests() -> impl Iterator<Item = Test> {
    let tests: [Test; 3] = [
        ("the holder is named, however often asked", the_holder_is_named),
        ("every namespace has its own", every_namespace_has_its_own),
        ("every namespace has a record of its own", every_namespace_has_a_record_of_its_own),
    ];
    tests.into_iter()
}

fn the_holder_is_named() {
    let lock = take().expect("free");
    // Far more than fit into the queue of connections that nobody accepts.
    for attempt in 0..500 {
        let error = take().expect_err("held");
        let Error::Held { process: holder } = error else { panic!("{error}") };
        if attempt == 0 {
            assert_eq!(holder, Some(process::id() as i32));
        }
    }
    drop(lock);
    // A program that another test is starting right now shares our sockets until it runs.
    let deadline = Instant::now() + Duration::from_secs(10);
    while let Err(error) = take() {
        assert!(Instant::now() < deadline, "free again: {error}");
        thread::yield_now();
    }
}

fn every_namespace_has_its_own() {
    let _lock = take().expect("free");
    let other = thread::spawn(|| {
        unshare(CloneFlags::CLONE_NEWNET).expect("root may make network namespaces");
        take().map(drop)
    });
    other.join().expect("no panic").expect("free in another namespace");
}

fn every_namespace_has_a_record_of_its_own() {
    let record = || -> PathBuf { state::path(Path::new("/run")).expect("a namespace") };
    let here = record();
    let other = thread::spawn(move || {
        unshare(CloneFlags::CLONE_NEWNET).expect("root may make network namespaces");
        record()
    });
    assert_ne!(other.join().expect("no panic"), here);
}
