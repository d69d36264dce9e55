//! Passes on that the host's addresses change, on a thread of its own.

use std::io;
use std::time::Duration;

use tokio::sync::mpsc;
use tracing::warn;

use crate::kernel::addresses::Changes;
use crate::kernel::netlink;
use crate::reconcile::HostChanged;

/// How soon the thread notices that nobody listens any more.
const PATIENCE: Duration = Duration::from_secs(10);

/// Follows the changes for as long as somebody listens.
pub(super) fn follow(changes: Changes, tell: mpsc::Sender<HostChanged>) -> io::Result<()> {
    let work = move || {
        if let Err(error) = pass_on(changes, &tell) {
            let error = crate::causes::in_words(&error);
            warn!(error, "addresses of the host are no longer followed, only read at each audit");
        }
    };
    std::thread::Builder::new().name("host".into()).spawn(work).map(drop)
}

fn pass_on(mut changes: Changes, tell: &mpsc::Sender<HostChanged>) -> Result<(), netlink::Error> {
    while !tell.is_closed() {
        if changes.wait(PATIENCE)? && changes.take()? {
            // One that waits to be taken stands for this one too.
            let _ = tell.try_send(HostChanged);
        }
    }
    Ok(())
}
