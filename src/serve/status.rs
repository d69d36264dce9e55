//! Tells the `status` command what is programmed, over a local socket.
//!
//! The socket has an abstract name beside that of the instance lock, so it belongs to the network
//! namespace and goes with the daemon. Whoever connects gets a line feed at once, then a
//! [`Picture`] as JSON, and the end.
//! Invariant: only root and our own user are answered, a few at a time, each within a limit; the
//! loop is asked over a channel and waits for nobody.

use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener as StdListener};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::io::AsyncWriteExt;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::reconcile::view::{self, Question};
use crate::status::Picture;
use crate::telemetry::refused::Refused;

/// The abstract name.
pub const NAME: &str = "kube-ipvs-proxy/status";

/// Readers at a time; more wait in the kernel.
const READERS: usize = 4;

/// Time from connect to the end of the answer, a sync that is under way included.
const WHOLE_TIME: Duration = Duration::from_secs(30);

/// Pause after an error of accept: out of file descriptors, most likely.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);

/// The address of the socket.
pub fn address() -> io::Result<SocketAddr> {
    SocketAddr::from_abstract_name(NAME)
}

/// Answers until told to stop; without the socket there is no status, and all else goes on.
pub async fn run(ask: mpsc::Sender<Question>, refused: Refused, stop: CancellationToken) {
    match bind() {
        Ok(listener) => drop(stop.run_until_cancelled(accept(listener, ask, refused)).await),
        Err(error) => {
            let error = error.to_string();
            warn!(address = NAME, error, "cannot answer the status command");
        }
    }
}

fn bind() -> io::Result<UnixListener> {
    let listener = StdListener::bind_addr(&address()?)?;
    listener.set_nonblocking(true)?;
    UnixListener::from_std(listener)
}

async fn accept(listener: UnixListener, ask: mpsc::Sender<Question>, refused: Refused) {
    let places = Arc::new(Semaphore::new(READERS));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let (ask, refused) = (ask.clone(), refused.clone());
                tokio::spawn(async move {
                    if let Ok(Err(error)) = timeout(WHOLE_TIME, answer(stream, ask, refused)).await
                    {
                        debug!(%error, "status was not told");
                    }
                    drop(place);
                });
            }
            Err(error) => {
                debug!(%error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_AGAIN).await;
            }
        }
    }
}

/// Tells one reader; one who may not know sees only the end.
async fn answer(
    mut stream: UnixStream,
    ask: mpsc::Sender<Question>,
    refused: Refused,
) -> io::Result<()> {
    let reader = stream.peer_cred()?.uid();
    if reader != 0 && reader != nix::unistd::geteuid().as_raw() {
        return Ok(());
    }
    // Whoever asks learns at once that somebody is there, however long the loop takes.
    stream.write_all(b"\n").await?;
    let view = view::ask(&ask).await.ok_or_else(|| io::Error::other("the loop has ended"))?;
    // Many Services take a while, in which the health address has to answer.
    let paint = move || {
        let unreadable = refused.unreadable(Instant::now());
        serde_json::to_vec(&Picture { unreadable, ..view.picture(refused.lines()) })
    };
    let text = tokio::task::spawn_blocking(paint).await?;
    stream.write_all(&text?).await?;
    stream.shutdown().await
}
