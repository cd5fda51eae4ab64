//! Takes the host's log off the threads that serve: a reader of stderr that stalls costs lines (which are counted), never
//! requests.

use std::io::{self, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tracing_subscriber::fmt::MakeWriter;

/// Where whoever reads the log does not keep up, events beyond this are dropped.
const BUFFER_BYTES_MAX: usize = 4 << 20;
/// How long the end of the process waits for a stalled reader.
const CLOSE_TIME: Duration = Duration::from_secs(2);

/// Hands events to a thread of its own, which writes them.
#[derive(Clone)]
pub(super) struct LogWriter {
    shared: Arc<Shared>,
}

/// Writes what is left when it is dropped: to be kept until the end of the process.
#[must_use]
pub struct LogGuard {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    wake: Condvar,
    /// Signalled when the writer has ended.
    ended: Condvar,
}

#[derive(Default)]
struct State {
    buffer: Vec<u8>,
    dropped_events: u64,
    closing: bool,
    ended: bool,
}

impl LogWriter {
    /// Starts the thread that writes to `sink`.
    pub(super) fn start(sink: impl Write + Send + 'static) -> io::Result<(Self, LogGuard)> {
        let shared = Arc::new(Shared::default());
        let writer = Arc::clone(&shared);
        std::thread::Builder::new().name("log".to_owned()).spawn(move || writer.run(sink))?;
        Ok((Self { shared: Arc::clone(&shared) }, LogGuard { shared }))
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The thread: waits, writes what has come, and so on.
    fn run(&self, mut sink: impl Write) {
        let mut batch = Vec::new();
        loop {
            let mut state = self.lock();
            while state.buffer.is_empty() && !state.closing {
                state = self.wake.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
            std::mem::swap(&mut state.buffer, &mut batch);
            let (dropped_events, closing) = (std::mem::take(&mut state.dropped_events), state.closing);
            drop(state);
            // Nobody is left to be told if this fails.
            let _ = sink.write_all(&batch);
            if dropped_events > 0 {
                tracing::warn!("{dropped_events} lines of the log were dropped: it is read too slowly");
            }
            batch.clear();
            if closing && self.lock().buffer.is_empty() {
                break;
            }
        }
        self.lock().ended = true;
        self.ended.notify_all();
    }
}

impl Write for LogWriter {
    /// One event.
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        let mut state = self.shared.lock();
        if state.buffer.len() + event.len() > BUFFER_BYTES_MAX {
            state.dropped_events += 1;
        } else {
            state.buffer.extend_from_slice(event);
            self.shared.wake.notify_one();
        }
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for LogWriter {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}

impl Drop for LogGuard {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.closing = true;
        self.shared.wake.notify_one();
        let deadline = Instant::now() + CLOSE_TIME;
        while !state.ended {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            state = self.shared.ended.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    struct Sink(mpsc::SyncSender<Vec<u8>>);

    impl Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.send(bytes.to_vec()).map_err(io::Error::other)?;
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_reader_that_stalls_holds_nobody_up() {
        let (sink, read) = mpsc::sync_channel(0);
        let (mut log, guard) = LogWriter::start(Sink(sink)).expect("a thread starts");
        let event = [b'x'; 1 << 10];
        log.write_all(&event).expect("it never fails");
        // With this one in its hands the thread stands still, so that what follows is buffered or dropped by this thread alone.
        while !log.shared.lock().buffer.is_empty() {
            std::thread::yield_now();
        }
        (0..10_000).for_each(|_| log.write_all(&event).expect("it never fails"));
        let state = log.shared.lock();
        assert!(state.buffer.len() <= BUFFER_BYTES_MAX && state.dropped_events > 1000, "{}", state.dropped_events);
        drop(state);
        drop(read);
        drop(guard);
    }

    #[test]
    fn the_end_waits_for_what_is_left() {
        let (sink, read) = mpsc::sync_channel(100);
        let (mut log, guard) = LogWriter::start(Sink(sink)).expect("a thread starts");
        log.write_all(b"last words\n").expect("it never fails");
        drop(guard);
        assert_eq!(read.try_iter().flatten().collect::<Vec<_>>(), b"last words\n");
    }
}
