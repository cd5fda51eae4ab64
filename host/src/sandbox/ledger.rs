//! Who pays for the processor time of an instance that serves several calls at once.
//!
//! At each tick the time since the last one is charged to the call whose task is running, so that an endless loop is stopped as
//! in an instance of its own. What is left over between ticks is shared by all calls under way. A call that is over still pays
//! for what its task goes on to do.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use wasmtime::component::GuestTaskId;

use super::CallState;
use super::crew::Moment;
use crate::error::Error;
use crate::sandbox::fault::Stopped;
use crate::telemetry::RequestId;

#[derive(Default)]
pub(crate) struct Ledger(Mutex<Book>);

#[derive(Default)]
struct Book {
    payers: Vec<Payer>,
    /// Up to when time has been charged; none outside of polls.
    charged: Option<Moment>,
    /// A guest was interrupted in the poll under way: it has more to compute.
    interrupted: bool,
    /// Who has had more than its time.
    debtor: Option<RequestId>,
}

/// A call, and the guest's task that it began.
struct Payer {
    task: GuestTaskId,
    call: Arc<CallState>,
    under_way: bool,
}

/// How a poll of an instance has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rest {
    /// The guest waits for something.
    Waiting,
    /// It would go on computing.
    Interrupted,
}

impl Ledger {
    fn book(&self) -> MutexGuard<'_, Book> {
        // Nothing that holds the lock can panic halfway through a change.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A call has begun.
    pub(crate) fn enter(&self, task: GuestTaskId, call: Arc<CallState>) {
        let mut book = self.book();
        // Names of tasks that have ended are given again.
        book.payers.retain(|payer| payer.task != task);
        book.payers.push(Payer { task, call, under_way: true });
    }

    /// A call is over.
    pub(crate) fn leave(&self, call: &CallState) {
        if let Some(payer) = self.book().payers.iter_mut().find(|payer| payer.call.id == call.id) {
            payer.under_way = false;
        }
    }

    /// No guest's task is left: only calls that are still under way can cause more. The last one stays, so that there is always
    /// somebody who pays.
    pub(crate) fn settle(&self) {
        let mut book = self.book();
        let last = book.payers.pop();
        book.payers.retain(|payer| payer.under_way);
        book.payers.extend(last);
    }

    pub(crate) fn poll_begins(&self) {
        let mut book = self.book();
        book.charged = Some(Moment::now());
        book.interrupted = false;
    }

    /// The instance has been polled: what no tick has charged is shared.
    pub(crate) fn poll_ends(&self) -> Result<Rest, Error> {
        let mut book = self.book();
        let time = book.charged.take().map(|charged| Moment::now().since(charged)).unwrap_or_default();
        let under_way = book.payers.iter().filter(|payer| payer.under_way);
        let share = time / u32::try_from(under_way.clone().count().max(1)).unwrap_or(u32::MAX);
        under_way.for_each(|payer| payer.call.charge(share));
        if let Some(last) = book.payers.last().filter(|_| book.payers.iter().all(|payer| !payer.under_way)) {
            last.call.charge(time);
        }
        let overdrawn = book.payers.iter().find_map(|payer| Some((payer.call.id, payer.call.overdrawn()?)));
        if let Some((debtor, error)) = overdrawn {
            book.debtor = Some(debtor);
            return Err(error);
        }
        Ok(if book.interrupted { Rest::Interrupted } else { Rest::Waiting })
    }

    /// Called by the guest's own code, at each tick. `stack` are its tasks, the youngest first: it runs for the first of them
    /// that a call has begun. (What is below that only was there when the call began.)
    pub(crate) fn tick(&self, mut stack: impl Iterator<Item = GuestTaskId>) -> wasmtime::Result<()> {
        let mut book = self.book();
        book.interrupted = true;
        let now = Moment::now();
        let time = book.charged.replace(now).map(|charged| now.since(charged)).unwrap_or_default();
        let task = stack.find(|task| book.payers.iter().any(|payer| payer.task == *task));
        // Who cannot be told apart pays as one: an instance must not compute for nothing.
        let payers = book.payers.iter().filter(|payer| task.is_none_or(|task| task == payer.task));
        let mut debtor = None;
        for payer in payers {
            payer.call.charge(time);
            payer.call.tell_pace();
            debtor = debtor.or_else(|| Some((payer.call.id, payer.call.overdrawn()?)));
        }
        let Some((id, error)) = debtor else { return Ok(()) };
        book.debtor = Some(id);
        Err(wasmtime::Error::new(Stopped(error)))
    }

    /// Who had more than its time, if that is why the instance ends.
    pub(crate) fn debtor(&self) -> Option<RequestId> {
        self.book().debtor
    }
}
