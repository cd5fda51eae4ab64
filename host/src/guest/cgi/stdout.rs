//! Standard output: the head first, then blocks for the client. What the program has written is on its way before the program
//! waits for anything; until then small writes become one block.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use tokio::io::AsyncWrite;
use wasmtime_wasi::async_trait;
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};
use wasmtime_wasi::p2::{OutputStream, Pollable, StreamError, StreamResult};

use super::response::{self, Form, Response};
use crate::body::Block;
use crate::guest::head::{Head, HeadError};
use crate::limits::Limits;
use crate::sandbox::{AppContext, CallState};

/// A block of this size waits for no further writes; nor does the host hold more while the client has yet to take the last one.
const BLOCK_BYTES: usize = 64 << 10;

/// A program that computes without waiting sees its output leave after this time.
const LINGER: Duration = Duration::from_millis(20);

/// What a head may have beside the names and values that are limited: colons, blanks, line ends, a status line.
const HEAD_BYTES_EXTRA: u64 = 1024;
const HEAD_BYTES_PER_FIELD: u64 = 8;

/// All handles that a program opens write to the same response.
#[derive(Clone)]
pub(super) struct Stdout(Arc<Mutex<Output>>);

struct Output {
    app: Arc<AppContext>,
    call: Arc<CallState>,
    form: Form,
    stage: Stage,
    /// Of the body, and not yet in the outbox.
    block: BytesMut,
    /// Since when the block has something in it.
    since: Option<Instant>,
    /// Its tenant has no room for it.
    is_refused: bool,
}

enum Stage {
    /// What there is of the head, and where to look for its end.
    Head { bytes: Vec<u8>, line: usize },
    /// The head is in the outbox.
    Body,
    /// What follows the head of a local redirect is nobody's.
    Redirect(String),
    /// What follows a head that is none is nobody's either; but the program goes on, since it may have more to say on stderr.
    Refused(HeadError),
}

/// What there is when the program has ended.
pub(super) enum Ended {
    /// Nothing has been sent.
    Whole(Head, BytesMut),
    /// The rest of what is being sent.
    Rest(BytesMut),
    LocalRedirect(String),
}

impl Stdout {
    pub(super) fn new(app: &Arc<AppContext>, call: &Arc<CallState>, form: Form) -> Self {
        Self(Arc::new(Mutex::new(Output {
            app: Arc::clone(app),
            call: Arc::clone(call),
            form,
            stage: Stage::Head { bytes: Vec::new(), line: 0 },
            block: BytesMut::new(),
            since: None,
            is_refused: false,
        })))
    }

    fn lock(&self) -> MutexGuard<'_, Output> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The program does not run at the moment.
    pub(super) fn program_pauses(&self) {
        self.lock().pause();
    }

    /// Whether there was no room for what the program said.
    pub(super) fn is_refused(&self) -> bool {
        self.lock().is_refused
    }

    /// The program has ended.
    ///
    /// # Errors
    /// If what it has said is no response.
    pub(super) fn end(&self) -> Result<Ended, HeadError> {
        let mut output = self.lock();
        match std::mem::replace(&mut output.stage, Stage::Body) {
            Stage::Redirect(location) => return Ok(Ended::LocalRedirect(location)),
            Stage::Refused(error) => return Err(error),
            Stage::Head { bytes, .. } if bytes.is_empty() => {
                return Err(HeadError::Header("fields: there are none".to_owned()));
            }
            Stage::Head { .. } => {
                return Err(HeadError::Header("fields: no empty line ends them".to_owned()));
            }
            Stage::Body => {}
        }
        let rest = std::mem::take(&mut output.block);
        let mut outbox = output.call.outbox();
        if outbox.committed {
            return Ok(Ended::Rest(rest));
        }
        Ok(match outbox.head.take() {
            Some(head) => Ended::Whole(head, rest),
            None => Ended::Rest(rest),
        })
    }
}

impl Output {
    fn write(&mut self, bytes: &[u8]) {
        match &mut self.stage {
            Stage::Head { bytes: head, line } => {
                head.extend_from_slice(bytes);
                match response::head_end(head, *line) {
                    Ok(end) => {
                        let bytes = std::mem::take(head);
                        self.take_head(&bytes[..end]);
                        self.write(&bytes[end..]);
                    }
                    Err(_) if head.len() as u64 > head_bytes_max(&self.app.limits) => {
                        let max = self.app.limits.response_header_bytes;
                        let why = format!("more than response_header_size = {max} bytes");
                        self.stage = Stage::Refused(HeadError::TooLarge(why));
                    }
                    Err(from) => *line = from,
                }
            }
            Stage::Body if !bytes.is_empty() => {
                self.since.get_or_insert_with(Instant::now);
                self.block.extend_from_slice(bytes);
            }
            Stage::Body | Stage::Redirect(_) | Stage::Refused(_) => {}
        }
    }

    fn take_head(&mut self, bytes: &[u8]) {
        self.stage = match response::parse(bytes, self.form, &self.app.limits) {
            Ok(Response::Document(head)) => {
                self.call.outbox().head = Some(head);
                Stage::Body
            }
            Ok(Response::LocalRedirect(location)) => Stage::Redirect(location),
            Err(error) => Stage::Refused(error),
        };
    }

    /// How much may be written now.
    fn room(&mut self) -> usize {
        if self.block.len() >= BLOCK_BYTES {
            self.hand_over();
        }
        BLOCK_BYTES.saturating_sub(self.block.len())
    }

    /// A program that waits has said what it had to say so far, head included; one that was merely interrupted goes on soon.
    fn pause(&mut self) {
        let waits = !self.call.was_interrupted();
        if !matches!(self.stage, Stage::Body) {
            return;
        }
        if waits || self.since.is_some_and(|since| since.elapsed() >= LINGER) {
            self.call.outbox().commit();
            self.hand_over();
        }
    }

    /// Leaves the block for the connection, unless it has yet to take the last one.
    fn hand_over(&mut self) {
        let mut outbox = self.call.outbox();
        if outbox.block.is_none() && !self.block.is_empty() {
            let Ok(block) = Block::buffered(std::mem::take(&mut self.block), &self.call) else {
                self.is_refused = true;
                return;
            };
            outbox.commit();
            outbox.block = Some(block);
            self.since = None;
        }
    }
}

fn head_bytes_max(limits: &Limits) -> u64 {
    limits.response_header_bytes + u64::from(limits.response_headers) * HEAD_BYTES_PER_FIELD + HEAD_BYTES_EXTRA
}

impl IsTerminal for Stdout {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for Stdout {
    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        Box::new(self.clone())
    }

    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(self.clone())
    }
}

#[async_trait]
impl Pollable for Stdout {
    /// Whoever takes a block from the outbox polls the program again: no waker is needed.
    async fn ready(&mut self) {
        poll_fn(|_| if self.lock().room() > 0 { Poll::Ready(()) } else { Poll::Pending }).await;
    }
}

#[async_trait]
impl OutputStream for Stdout {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        let mut output = self.lock();
        // Guests ask how much they may write; one that writes more would fill the host's memory.
        if bytes.len() > output.room() {
            return Err(StreamError::trap("more was written to stdout than check-write allowed"));
        }
        output.write(&bytes);
        Ok(())
    }

    /// C libraries flush after each write. What that is for is kept all the same: the client has what was written before the
    /// program waits.
    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(self.lock().room())
    }
}

impl AsyncWrite for Stdout {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        let mut output = self.lock();
        let taken = bytes.len().min(output.room());
        if taken == 0 && !bytes.is_empty() {
            return Poll::Pending;
        }
        output.write(&bytes[..taken]);
        Poll::Ready(Ok(taken))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
