//! Bodies in both directions: the request's, capped, as it arrives or spooled; the response's, block by block, as long as was
//! promised.

mod block;
mod file;
mod spool;

use std::collections::VecDeque;
use std::error::Error as _;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

pub(crate) use self::block::Block;
pub(crate) use self::file::FileBody;
use self::spool::{Spool, SpoolFile, Spooled, Unkept};
use crate::config::ChunkedBodies;
use crate::error::{Busy, Error};
use crate::sandbox::task::Task;
use crate::sandbox::{AppContext, CallState};

/// The request body, as a guest reads it.
pub(crate) struct RequestBody {
    source: Source,
    /// Arrived and not yet read.
    buffer: Bytes,
    received: u64,
    bytes_max: u64,
    /// The whole length, where it is known only because the body was spooled.
    spooled_bytes: Option<u64>,
    /// The guest waits for more, and the call knows.
    awaited: bool,
}

/// Where more of it comes from.
enum Source {
    Client(Incoming),
    File(SpoolFile),
    Ended,
}

/// Why a request body ended before its end.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ReadError {
    #[error("the request body is larger than {0} bytes")]
    TooLarge(u64),
    #[error("the request body broke off: {0}")]
    Broken(String),
    #[error("the request body is not chunked as it should be: {0}")]
    Malformed(String),
    /// The host's own fault.
    #[error("the request body cannot be kept: {0}")]
    Spool(String),
    #[error("the request body cannot be kept: {0}")]
    Busy(Busy),
}

impl From<ReadError> for Error {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::TooLarge(bytes_max) => Self::BodyTooLarge(bytes_max),
            ReadError::Broken(why) => Self::ClientGone(why),
            ReadError::Malformed(_) => Self::BadRequest("the request body is not chunked as it should be"),
            ReadError::Spool(_) => Self::Host(error.to_string()),
            ReadError::Busy(busy) => Self::Busy(busy),
        }
    }
}

impl From<hyper::Error> for ReadError {
    fn from(error: hyper::Error) -> Self {
        let source = error.source().and_then(|source| source.downcast_ref::<io::Error>());
        // What hyper calls these is a chunk that is none; a connection that ends or breaks is called otherwise.
        match source.map(io::Error::kind) {
            Some(io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData) => Self::Malformed(error.to_string()),
            _ => Self::Broken(error.to_string()),
        }
    }
}

impl RequestBody {
    /// The body of a call, as its app wants it: one that does not say how long it is has been spooled first, unless the app
    /// takes it as it comes.
    pub(crate) async fn open(incoming: Option<Incoming>, app: &AppContext, call: &CallState) -> Result<Self, Error> {
        let length_is_known = incoming.as_ref().is_none_or(|incoming| incoming.size_hint().exact().is_some());
        // A guest that waits for a slow client would keep the app's other calls from their data.
        let delays_others = app.data.is_some() && incoming.as_ref().is_some_and(|incoming| !incoming.is_end_stream());
        let mut body = Self::new(incoming, app.limits.request_body_bytes);
        if (!length_is_known || delays_others) && app.chunked_bodies == ChunkedBodies::Spool {
            // Boxed: it is rare, and every call's future would have room for it.
            Box::pin(body.spool(app, call)).await?;
        }
        Ok(body)
    }

    fn new(incoming: Option<Incoming>, bytes_max: u64) -> Self {
        let incoming = incoming.filter(|incoming| !incoming.is_end_stream());
        let source = incoming.map_or(Source::Ended, Source::Client);
        Self { source, buffer: Bytes::new(), received: 0, bytes_max, spooled_bytes: None, awaited: false }
    }

    /// How long a body is that did not say so and was spooled.
    pub(crate) fn spooled_bytes(&self) -> Option<u64> {
        self.spooled_bytes
    }

    /// Reads all of it. The clocks run as they do for a guest that reads.
    async fn spool(&mut self, app: &AppContext, call: &CallState) -> Result<(), ReadError> {
        let mut spool = Spool::default();
        let failed = |unkept| match unkept {
            Unkept::Descriptors => ReadError::Busy(Busy::TenantsDescriptors),
            Unkept::Io(error) => ReadError::Spool(error.to_string()),
        };
        while self.fill(call).await? {
            let piece = std::mem::take(&mut self.buffer);
            spool.push(&piece, &app.spool_dir, &app.account).await.map_err(failed)?;
        }
        match spool.finish(&app.spool_dir, &app.account).await.map_err(failed)? {
            Spooled::Memory(bytes) => self.buffer = bytes,
            Spooled::File(file) => self.source = Source::File(file),
        }
        self.spooled_bytes = Some(self.received);
        Ok(())
    }

    async fn fill(&mut self, call: &CallState) -> Result<bool, ReadError> {
        std::future::poll_fn(|context| self.poll_fill(context, call)).await
    }

    /// Waits until something can be read; false at the end. The call is told about the wait for its client.
    pub(crate) fn poll_fill(&mut self, context: &mut Context<'_>, call: &CallState) -> Poll<Result<bool, ReadError>> {
        while self.buffer.is_empty() {
            let incoming = match &mut self.source {
                Source::Client(incoming) => incoming,
                Source::File(file) => {
                    let read = ready!(file.poll_read(context));
                    self.buffer = read.map_err(|error| ReadError::Spool(error.to_string()))?;
                    if self.buffer.is_empty() {
                        self.source = Source::Ended;
                    }
                    continue;
                }
                Source::Ended => return Poll::Ready(Ok(false)),
            };
            let Poll::Ready(frame) = Pin::new(incoming).poll_frame(context) else {
                // A look without a waker is no wait: the guest has other things to do.
                if !context.waker().will_wake(Waker::noop()) {
                    if !std::mem::replace(&mut self.awaited, true) {
                        call.input_awaited();
                    }
                    call.input_watched();
                }
                return Poll::Pending;
            };
            self.awaited = false;
            call.input_arrived();
            match frame {
                None => self.source = Source::Ended,
                Some(Err(error)) => {
                    self.source = Source::Ended;
                    return Poll::Ready(Err(error.into()));
                }
                Some(Ok(frame)) => {
                    // Trailers have no place in CGI's variables, nor in WSGI's.
                    let Ok(data) = frame.into_data() else { continue };
                    call.witness.input(&data);
                    self.received += data.len() as u64;
                    if self.received > self.bytes_max {
                        self.source = Source::Ended;
                        return Poll::Ready(Err(ReadError::TooLarge(self.bytes_max)));
                    }
                    self.buffer = data;
                }
            }
        }
        Poll::Ready(Ok(true))
    }

    /// What has arrived and was not read, up to `size` bytes.
    pub(crate) fn take(&mut self, size: usize) -> Bytes {
        self.buffer.split_to(size.min(self.buffer.len()))
    }

    /// At least one byte and at most `size`; nothing at the end.
    pub(crate) async fn read(&mut self, size: usize, call: &CallState) -> Result<Bytes, ReadError> {
        if size == 0 || !self.fill(call).await? {
            return Ok(Bytes::new());
        }
        Ok(self.take(size))
    }

    /// Up to and with the next newline, at most `size` bytes; nothing at the end.
    pub(crate) async fn read_line(&mut self, size: usize, call: &CallState) -> Result<Bytes, ReadError> {
        let mut line = BytesMut::new();
        while line.len() < size && self.fill(call).await? {
            let room = (size - line.len()).min(self.buffer.len());
            let newline = self.buffer[..room].iter().position(|byte| *byte == b'\n');
            let piece = self.buffer.split_to(newline.map_or(room, |at| at + 1));
            if line.is_empty() && (newline.is_some() || piece.len() == size) {
                return Ok(piece);
            }
            line.extend_from_slice(&piece);
            if newline.is_some() {
                break;
            }
        }
        Ok(line.freeze())
    }
}

/// What goes to the client.
pub struct ResponseBody {
    blocks: Blocks,
    /// Bytes still owed to the client, where the length was promised.
    owed: Option<u64>,
    /// What follows the blocks.
    trailers: Option<HeaderMap>,
    /// Why the body breaks off, as soon as what went before is with the client.
    failed: Option<Error>,
}

enum Blocks {
    Ready(VecDeque<Block>),
    One(Block),
    Guest(Box<Task>),
    File(Box<FileBody>),
    Ended,
}

impl Drop for ResponseBody {
    fn drop(&mut self) {
        // A client that has all that was promised asks for no more; another one is gone, and its guest with it.
        if self.owed == Some(0) && self.failed.is_none() {
            self.end();
        }
    }
}

impl ResponseBody {
    fn new(blocks: Blocks, owed: Option<u64>) -> Self {
        Self { blocks, owed, trailers: None, failed: None }
    }

    pub(crate) fn empty() -> Self {
        Self::new(Blocks::Ended, None)
    }

    /// What the host itself has to say, whole.
    pub(crate) fn one(text: Bytes) -> Self {
        let length = text.len() as u64;
        Self::new(Blocks::One(Block::hosts(text)), Some(length))
    }

    /// Blocks that are all there, of which `length` bytes are promised.
    pub(crate) fn ready(mut blocks: Vec<Block>, length: u64) -> Self {
        let blocks = match blocks.len() {
            0 => Blocks::Ended,
            1 => Blocks::One(blocks.swap_remove(0)),
            _ => Blocks::Ready(blocks.into()),
        };
        Self::new(blocks, Some(length))
    }

    /// Blocks that the guest still has to give.
    pub(crate) fn streaming(task: Task, length: Option<u64>) -> Self {
        Self::new(Blocks::Guest(Box::new(task)), length)
    }

    /// The rest of a file, of which `length` bytes are promised.
    pub(crate) fn file(file: FileBody, length: u64) -> Self {
        Self::new(Blocks::File(Box::new(file)), Some(length))
    }

    /// Whether it is read from a file as the client takes it.
    pub(crate) fn is_file(&self) -> bool {
        matches!(self.blocks, Blocks::File(_))
    }

    /// Whether all of it is there, and is less than was promised: it will break off.
    pub(crate) fn falls_short(&self) -> bool {
        let there = match &self.blocks {
            Blocks::Guest(_) | Blocks::File(_) => return false,
            Blocks::Ended => 0,
            Blocks::One(block) => block.len() as u64,
            Blocks::Ready(blocks) => blocks.iter().map(|block| block.len() as u64).sum(),
        };
        self.owed.is_some_and(|owed| there < owed)
    }

    /// Whether these bytes are in what is there of it, within one block.
    pub(crate) fn shows(&self, bytes: &[u8]) -> bool {
        let is_in = |block: &Block| block.as_ref().windows(bytes.len()).any(|window| window == bytes);
        match &self.blocks {
            Blocks::One(block) => is_in(block),
            Blocks::Ready(blocks) => blocks.iter().any(is_in),
            Blocks::Guest(_) | Blocks::File(_) | Blocks::Ended => false,
        }
    }

    /// Nobody wants it: its guest comes to its end all the same.
    pub(crate) fn unwanted(mut self) {
        if let Blocks::Guest(task) = std::mem::replace(&mut self.blocks, Blocks::Ended) {
            task.outlive();
        }
    }

    /// The guest that is still at work on it.
    pub(crate) fn task(&self) -> Option<&Task> {
        match &self.blocks {
            Blocks::Guest(task) => Some(task),
            _ => None,
        }
    }

    /// Breaks off at the next poll: hyper drops the head and the blocks that it has not yet flushed when a body fails, and
    /// flushes them when a body has to wait.
    fn fail(&mut self, error: Error, context: &Context<'_>) -> Poll<Option<Result<Frame<Block>, Error>>> {
        self.failed = Some(error);
        context.waker().wake_by_ref();
        Poll::Pending
    }

    fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Block, Error>>> {
        match &mut self.blocks {
            Blocks::Ended | Blocks::One(_) => {
                let Blocks::One(block) = std::mem::replace(&mut self.blocks, Blocks::Ended) else {
                    return Poll::Ready(None);
                };
                Poll::Ready(Some(Ok(block)))
            }
            Blocks::Ready(blocks) => Poll::Ready(blocks.pop_front().map(Ok)),
            Blocks::File(file) => file.poll_block(context),
            Blocks::Guest(task) => {
                let block = ready!(task.poll_block(context));
                match &block {
                    Some(Ok(_)) => {}
                    Some(Err(_)) => self.blocks = Blocks::Ended,
                    None => {
                        self.trailers = task.call().outbox().trailers.take();
                        self.end();
                    }
                }
                Poll::Ready(block)
            }
        }
    }

    /// No more is wanted of the guest; it may go on by itself.
    fn end(&mut self) {
        if let Blocks::Guest(task) = std::mem::replace(&mut self.blocks, Blocks::Ended) {
            task.outlive();
        }
    }

    /// The next frame, for a client that is ready to take it.
    pub(crate) fn poll_block(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Block>, Error>>> {
        if let Some(error) = self.failed.take() {
            return Poll::Ready(Some(Err(error)));
        }
        let mut block = match ready!(self.poll_next(context)) {
            Some(Ok(block)) => block,
            Some(Err(error)) => return self.fail(error, context),
            None => match self.owed.take() {
                // PEP 3333: a client must be able to tell that a body is short, so its connection is closed.
                Some(owed) if owed > 0 => {
                    let why = format!("the body is {owed} bytes shorter than its Content-Length");
                    return self.fail(Error::Protocol(why), context);
                }
                _ => return Poll::Ready(self.trailers.take().map(|trailers| Ok(Frame::trailers(trailers)))),
            },
        };
        if let Some(owed) = &mut self.owed {
            block.truncate(*owed);
            *owed -= block.len() as u64;
        }
        Poll::Ready(Some(Ok(Frame::data(block))))
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        self.poll_block(context).map_ok(|frame| frame.map_data(Block::into_bytes))
    }

    fn is_end_stream(&self) -> bool {
        // A body that owes bytes has still to say so.
        matches!(self.blocks, Blocks::Ended)
            && self.owed.unwrap_or(0) == 0
            && self.failed.is_none()
            && self.trailers.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        match self.owed {
            Some(owed) => SizeHint::with_exact(owed),
            None if matches!(self.blocks, Blocks::Ended) && self.failed.is_none() => SizeHint::with_exact(0),
            None => SizeHint::default(),
        }
    }
}
