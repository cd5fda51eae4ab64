//! The guest's side of one call, as a task that the connection drives: until the head is there, then block by block.
//!
//! There is no thread, no channel and no spawned task: whoever wants the next block polls the guest for it. So back-pressure
//! is built in, and a client that goes away drops the task, and with it the sandbox and its permit.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use http::{Response, request};
use tokio::time::Sleep;

use crate::admission::Permit;
use crate::body::{Block, ResponseBody};
use crate::error::{Error, Wall};
use crate::guest::head::Head;
use crate::limits::Limits;
use crate::sandbox::CallState;
use crate::sandbox::crew::{Lendable, Payer};

/// What the guest's side ended with.
pub enum Finished {
    /// Head and body at once: nothing has been sent before.
    Whole(Whole),
    /// Head and blocks went through the outbox.
    Streamed,
    /// Nothing was sent: the response is another request's (RFC 3875 §6.2.2).
    Redirect(Box<request::Parts>),
}

pub struct Whole {
    pub(crate) head: Head,
    pub(crate) blocks: Vec<Block>,
}

/// A whole response up to this size may wait for its client without counting as a call.
const UNCOUNTED_BYTES: usize = 64 << 10;

impl Finished {
    /// Ties the call's permit to the blocks of a large whole response, until the last of them is written or dropped: what waits for
    /// slow clients is memory of the tenant's, and no single app should have much of that. Otherwise the call is over, and the
    /// permit free.
    pub(crate) fn holding(mut self, permit: Permit) -> Self {
        let Self::Whole(whole) = &mut self else { return self };
        if whole.blocks.iter().map(Block::len).sum::<usize>() > UNCOUNTED_BYTES {
            let permit = Arc::new(permit);
            whole.blocks.iter_mut().for_each(|block| block.hold(&permit));
        }
        self
    }
}

type Guest = Lendable<Result<Finished, Error>>;

/// A call under way. Dropping it ends the sandbox.
pub struct Task {
    /// None once it has ended, or was ended.
    guest: Option<Guest>,
    call: Arc<CallState>,
    clocks: Clocks,
}

/// What a call has to say when its head is there.
pub(crate) enum Started {
    Whole(Whole),
    /// The head; the blocks are still to come from the task.
    Streaming(Head, Task),
    /// As [`Finished::Redirect`].
    Redirect(Box<request::Parts>),
    /// It took no guest.
    Ready(Box<Response<ResponseBody>>),
}

/// How far a guest is when there is something to say.
enum Progress {
    Committed(Head),
    Finished(Finished),
}

impl Task {
    pub(crate) fn new(
        call: Arc<CallState>,
        limits: &Limits,
        guest: impl Future<Output = Result<Finished, Error>> + Send + 'static,
    ) -> Self {
        let guest = Lendable::new(Payer::Call(Arc::clone(&call)), guest);
        Self { guest: Some(guest), call, clocks: Clocks::new(limits) }
    }

    pub fn call(&self) -> &Arc<CallState> {
        &self.call
    }

    /// Runs the guest until its head is final.
    pub(crate) async fn start(mut self) -> Result<Started, Error> {
        Ok(match std::future::poll_fn(|context| self.poll_head(context)).await? {
            Progress::Committed(head) => Started::Streaming(head, self),
            Progress::Finished(Finished::Whole(whole)) => Started::Whole(whole),
            Progress::Finished(Finished::Redirect(request)) => Started::Redirect(request),
            Progress::Finished(Finished::Streamed) => {
                let head = self.committed_head().expect("a streamed response has committed its head");
                Started::Streaming(head, self)
            }
        })
    }

    fn poll_head(&mut self, context: &mut Context<'_>) -> Poll<Result<Progress, Error>> {
        if let Poll::Ready(finished) = self.poll_guest(context) {
            return Poll::Ready(finished.map(Progress::Finished));
        }
        if let Some(head) = self.committed_head() {
            self.clocks.head_sent = true;
            return Poll::Ready(Ok(Progress::Committed(head)));
        }
        let wall = ready!(self.clocks.poll(&self.call, context));
        self.guest = None;
        Poll::Ready(Err(Error::Wall(wall)))
    }

    fn committed_head(&self) -> Option<Head> {
        let mut outbox = self.call.outbox();
        if outbox.committed { outbox.head.take() } else { None }
    }

    /// The next block, for a client that is ready to take it; none at the end.
    pub(crate) fn poll_block(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Block, Error>>> {
        // What is there goes first: the guest goes on when the client takes the block after it.
        if let Some(block) = self.call.outbox().block.take() {
            return Poll::Ready(Some(Ok(block)));
        }
        let finished = match self.poll_guest(context) {
            Poll::Ready(Err(error)) => return Poll::Ready(Some(Err(error))),
            Poll::Ready(Ok(_)) => true,
            Poll::Pending => false,
        };
        if let Some(block) = self.call.outbox().block.take() {
            self.clocks.waiting_since = None;
            return Poll::Ready(Some(Ok(block)));
        }
        if finished || self.call.outbox().ended {
            return Poll::Ready(None);
        }
        self.clocks.waiting_since.get_or_insert_with(Instant::now);
        let wall = ready!(self.clocks.poll(&self.call, context));
        self.guest = None;
        Poll::Ready(Some(Err(Error::Wall(wall))))
    }

    /// Lets a guest end that has no block to give, since its response has no body: what it does after its head, and its
    /// `close()`, belong to the call.
    pub(crate) async fn end_if_silent(&mut self) -> Result<(), Error> {
        if !self.call.outbox().silent {
            return Ok(());
        }
        match std::future::poll_fn(|context| self.poll_block(context)).await {
            Some(Err(error)) => Err(error),
            Some(Ok(_)) | None => Ok(()),
        }
    }

    fn poll_guest(&mut self, context: &mut Context<'_>) -> Poll<Result<Finished, Error>> {
        let Some(guest) = &mut self.guest else {
            return Poll::Ready(Ok(Finished::Streamed));
        };
        let polled = guest.poll(context);
        if polled.is_ready() {
            self.guest = None;
            self.call.run_ends();
        } else {
            self.call.run_pauses();
        }
        polled
    }

    /// The client has its whole response, and the guest goes on by itself: it may, within what is left of its time.
    pub(crate) fn outlive(mut self) {
        // Without a runtime the host is going down.
        let (Some(_), Ok(runtime)) = (&self.guest, tokio::runtime::Handle::try_current()) else { return };
        runtime.spawn(async move {
            let deadline = self.deadline();
            let rest = std::future::poll_fn(|context| {
                loop {
                    let polled = self.poll_guest(context);
                    if polled.is_ready() {
                        return polled;
                    }
                    // The request is over, too: nothing comes for a guest that waits for more of it.
                    if self.call.awaits_input() {
                        return Poll::Ready(Ok(Finished::Streamed));
                    }
                    // Nobody wants what it still says; who has said it waits for that to be taken.
                    if self.call.outbox().block.take().is_none() {
                        return Poll::Pending;
                    }
                }
            });
            let error = match tokio::time::timeout_at(deadline.into(), rest).await {
                Ok(Ok(_)) => return,
                Ok(Err(error)) => error,
                Err(_) => Error::Wall(Wall::Total(self.clocks.wall_time)),
            };
            let request = self.call.id;
            if self.call.account().may_report(0, Instant::now()) {
                tracing::warn!(target: "wasgi::request", %request, cause = error.label(), "after the response: {error}");
            }
            self.call.failed(&error);
        });
    }

    /// When the call has to be over, whether or not somebody polls it.
    pub(crate) fn deadline(&self) -> Instant {
        self.call.began + self.clocks.wall_time
    }
}

/// The call's wall clocks. One timer serves all of them, made when the guest first has to wait.
struct Clocks {
    wall_time: Duration,
    first_byte_time: Duration,
    idle_time: Duration,
    head_sent: bool,
    /// Since when the client has been waiting for a block.
    waiting_since: Option<Instant>,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Clocks {
    fn new(limits: &Limits) -> Self {
        Self {
            wall_time: limits.wall_time,
            first_byte_time: limits.first_byte_time,
            idle_time: limits.idle_time,
            head_sent: false,
            waiting_since: None,
            timer: None,
        }
    }

    /// The clock that runs out next. Neither the wait for the head nor the wait for a block runs while the request body is
    /// arriving: a long upload is the client's time, bounded piece by piece by `idle_time` and in all by `wall_time`.
    fn next(&self, call: &CallState) -> (Instant, Wall) {
        let total = (call.began + self.wall_time, Wall::Total(self.wall_time));
        let phase = if call.awaits_input() {
            (call.last_input() + self.idle_time, Wall::Input(self.idle_time))
        } else if !self.head_sent {
            (call.last_input() + self.first_byte_time, Wall::FirstByte(self.first_byte_time))
        } else if let Some(since) = self.waiting_since {
            (since.max(call.last_input()) + self.idle_time, Wall::Idle(self.idle_time))
        } else {
            return total;
        };
        if phase.0 < total.0 { phase } else { total }
    }

    /// Ready when a clock has run out.
    fn poll(&mut self, call: &CallState, context: &mut Context<'_>) -> Poll<Wall> {
        loop {
            let (deadline, wall) = self.next(call);
            let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline.into())));
            // An earlier deadline resets the timer; a later one is looked at when the timer has fired.
            if timer.deadline() > tokio::time::Instant::from(deadline) {
                timer.as_mut().reset(deadline.into());
            }
            ready!(timer.as_mut().poll(context));
            if Instant::now() >= deadline {
                return Poll::Ready(wall);
            }
            timer.as_mut().reset(deadline.into());
        }
    }
}
