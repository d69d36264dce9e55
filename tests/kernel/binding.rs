//! In which way the daemons of a test bind service addresses.

use std::cell::Cell;
use std::env;

/// For every test that does not choose.
const VARIABLE: &str = "VIP_BINDING";

thread_local! {
    static CHOSEN: Cell<Option<&'static str>> = const { Cell::new(None) };
}

/// The way that daemons are told which are started on this thread.
pub fn current() -> String {
    let chosen = CHOSEN.get().map(String::from);
    chosen.or_else(|| env::var(VARIABLE).ok()).unwrap_or_else(|| "address".into())
}

/// Runs a test with routes.
pub fn by_route(test: impl FnOnce()) {
    let _end = Until;
    CHOSEN.set(Some("route"));
    test();
}

/// The next test on this thread does not choose, whatever became of this one.
struct Until;

impl Drop for Until {
    fn drop(&mut self) {
        CHOSEN.set(None);
    }
}
