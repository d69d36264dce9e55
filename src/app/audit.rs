//! Reads audits on a thread and sockets of their own.

use std::io;
use std::ops::ControlFlow;
use std::time::Instant;

use tokio::sync::mpsc;

use crate::kernel::Error;
use crate::kernel::linux::{LinuxKernel, Programs};
use crate::reconcile::auditor::{Auditor, Told};

/// Parts that wait to be compared; the reading waits for them, so that it never takes much memory.
const QUEUE: usize = 1;

/// Starts the thread; it ends when nobody asks for audits any more.
pub(super) fn start(programs: Programs) -> io::Result<Auditor> {
    let (begin, asked) = mpsc::channel(1);
    let (tell, told) = mpsc::channel(QUEUE);
    std::thread::Builder::new()
        .name("audit".into())
        .spawn(move || work(&programs, asked, &tell))?;
    Ok(Auditor::new(begin, told))
}

fn work(programs: &Programs, mut asked: mpsc::Receiver<()>, tell: &mpsc::Sender<Told>) {
    let mut kernel = None;
    while asked.blocking_recv().is_some() {
        let started = Instant::now();
        let outcome = read(programs, &mut kernel, tell);
        let ended = Told::Ended { outcome, took: started.elapsed() };
        if tell.blocking_send(ended).is_err() {
            return;
        }
    }
}

/// Reads once. The sockets are kept as long as they serve.
fn read(
    programs: &Programs,
    kernel: &mut Option<LinuxKernel>,
    tell: &mpsc::Sender<Told>,
) -> Result<(), Error> {
    let mut opened = match kernel.take() {
        Some(kernel) => kernel,
        None => LinuxKernel::beside(programs.clone())?,
    };
    opened.audit(&mut |part| match tell.blocking_send(Told::Part(part)) {
        Ok(()) => ControlFlow::Continue(()),
        Err(_) => ControlFlow::Break(()),
    })?;
    *kernel = Some(opened);
    Ok(())
}
