//! Many requests, each over a fresh connection, counted by the pod that answers.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::client;
use crate::namespace::Namespace;
use crate::wait;
use crate::whoami::Transport;

/// How much to ask; whatever limit is reached first ends it.
#[derive(Clone, Copy)]
pub struct Amount {
    /// Clients that ask at the same time.
    pub clients: usize,
    /// Requests of all clients together.
    pub requests: usize,
    /// From start to end.
    pub time: Duration,
    /// For one connection to be made.
    pub patience: Duration,
    /// Between an answer and the same client's next request.
    pub pause: Duration,
}

/// What came of it.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Answers by the name of the pod.
    pub answers: BTreeMap<String, usize>,
    /// Each failure with the time since the start.
    pub failures: Vec<String>,
}

/// Clients at work; they end at their limits, or when dropped.
pub struct Load {
    orders: Orders,
    clients: Vec<JoinHandle<Tally>>,
}

/// What all clients of one load share.
#[derive(Clone)]
struct Orders {
    transport: Transport,
    to: SocketAddr,
    start: Instant,
    time: Duration,
    patience: Duration,
    pause: Duration,
    requests_left: Arc<AtomicUsize>,
    answered: Arc<AtomicUsize>,
    stopping: Arc<AtomicBool>,
}

impl Amount {
    /// A number of requests from a few clients at a time.
    pub const fn requests(requests: usize) -> Self {
        Self { requests, ..Self::at_most(Duration::from_secs(300)) }
    }

    /// Requests without a pause until the load is stopped, or for the given time at most.
    pub const fn at_most(time: Duration) -> Self {
        let (patience, pause) = (client::TIMEOUT, Duration::ZERO);
        Self { clients: 4, requests: usize::MAX, time, patience, pause }
    }
}

impl Tally {
    /// All answers.
    pub fn total(&self) -> usize {
        self.answers.values().sum()
    }

    /// A pod's part of all answers, from 0 to 1.
    pub fn share(&self, pod: &str) -> f64 {
        let answers = self.answers.get(pod).copied().unwrap_or_default();
        answers as f64 / self.total().max(1) as f64
    }

    fn add(&mut self, other: Self) {
        for (pod, answers) in other.answers {
            *self.answers.entry(pod).or_default() += answers;
        }
        self.failures.extend(other.failures);
    }
}

/// Asks until a limit is reached.
pub fn run(from: &Namespace, transport: Transport, to: SocketAddr, amount: Amount) -> Tally {
    Load::start(from, transport, to, amount).finish()
}

impl Load {
    /// Starts asking in the background.
    pub fn start(from: &Namespace, transport: Transport, to: SocketAddr, amount: Amount) -> Self {
        let orders = Orders {
            transport,
            to,
            start: Instant::now(),
            time: amount.time,
            patience: amount.patience,
            pause: amount.pause,
            requests_left: Arc::new(AtomicUsize::new(amount.requests)),
            answered: Arc::default(),
            stopping: Arc::default(),
        };
        let clients = (0..amount.clients)
            .map(|_| {
                let (from, orders) = (from.clone(), orders.clone());
                thread::spawn(move || {
                    from.enter();
                    orders.carry_out()
                })
            })
            .collect();
        Self { orders, clients }
    }

    /// Returns once this many more requests have been answered.
    pub fn wait_for_answers(&self, more: usize) {
        let answered = || self.orders.answered.load(Ordering::Relaxed);
        let wanted = answered() + more;
        wait::until("answers", self.orders.time, || answered() >= wanted);
    }

    /// Stops the clients and returns what they saw.
    pub fn stop(self) -> Tally {
        self.orders.stopping.store(true, Ordering::Relaxed);
        self.finish()
    }

    /// Waits for the limits and returns what the clients saw.
    pub fn finish(mut self) -> Tally {
        let mut tally = Tally::default();
        for client in self.clients.drain(..) {
            tally.add(client.join().expect("a client's tally"));
        }
        tally
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.orders.stopping.store(true, Ordering::Relaxed);
    }
}

impl Orders {
    fn carry_out(&self) -> Tally {
        let mut tally = Tally::default();
        while self.has_another_request() {
            match client::ask_patiently(self.transport, self.to, self.patience) {
                Ok(answer) => {
                    *tally.answers.entry(answer.pod).or_default() += 1;
                    self.answered.fetch_add(1, Ordering::Relaxed);
                }
                Err(error) => tally.failures.push(format!("{:?}: {error}", self.start.elapsed())),
            }
            thread::sleep(self.pause);
        }
        tally
    }

    fn has_another_request(&self) -> bool {
        let may_go_on = !self.stopping.load(Ordering::Relaxed) && self.start.elapsed() < self.time;
        let take_one = |left: usize| left.checked_sub(1);
        may_go_on
            && self
                .requests_left
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, take_one)
                .is_ok()
    }
}
