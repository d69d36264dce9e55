//! What is logged while something runs.

use std::io;
use std::sync::{Arc, Mutex, Once, PoisonError};

use tracing::Level;

/// The bytes of a log.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The lines that are logged on this thread, down to a level.
pub fn logged(level: Level, run: impl FnOnce()) -> Vec<String> {
    listen_to_everything();
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_writer(move || writer.clone())
        .with_max_level(level)
        .without_time()
        .with_target(false)
        .with_ansi(false)
        .finish();
    tracing::subscriber::with_default(subscriber, run);
    let bytes = log.0.lock().unwrap_or_else(PoisonError::into_inner);
    String::from_utf8_lossy(&bytes).lines().map(|line| line.trim().to_owned()).collect()
}

/// Lets no place in the code be remembered as one that nobody listens to.
///
/// Whether anybody does is asked when a place is first reached, and that may be on a thread that
/// records nothing, while another thread begins to.
pub fn listen_to_everything() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // Somebody else listens already: as good.
        let _ = tracing::subscriber::set_global_default(tracing_subscriber::registry());
    });
}
