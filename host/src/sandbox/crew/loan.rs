//! A future that is polled where it is awaited as long as it is quick, and is lent to the crew while it computes for long.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use super::scope::{SCOPE, Scope, thread_time};
use super::{Job, Rest};
use crate::account::Account;
use crate::sandbox::CallState;

type Boxed<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// A future that runs guests: polled where it is awaited as long as it is quick, and by the crew while it computes for long.
pub(crate) struct Lendable<T: Send + 'static> {
    place: Place<T>,
    payer: Payer,
    /// How often it was interrupted in a row, here.
    ticks: u32,
    was_lent: bool,
}

/// Who pays for what the guests take.
#[derive(Clone)]
pub(crate) enum Payer {
    /// A call.
    Call(Arc<CallState>),
    /// The future sees to that; it belongs to this tenant.
    Itself(Arc<Account>),
}

enum Place<T> {
    Here(Boxed<T>),
    Lent(Arc<Loan<T>>),
    Over,
}

impl Payer {
    fn account(&self) -> &Arc<Account> {
        match self {
            Self::Call(call) => call.account(),
            Self::Itself(account) => account,
        }
    }
}

impl<T: Send + 'static> Lendable<T> {
    pub(crate) fn new(payer: Payer, future: impl Future<Output = T> + Send + 'static) -> Self {
        Self { place: Place::Here(Box::pin(future)), payer, ticks: 0, was_lent: false }
    }

    pub(crate) fn poll(&mut self, context: &mut Context<'_>) -> Poll<T> {
        let future = match std::mem::replace(&mut self.place, Place::Over) {
            Place::Here(future) => future,
            Place::Lent(loan) => match loan.collect(context) {
                Collected::Done(done) => return Poll::Ready(done),
                Collected::Back(future) => {
                    self.ticks = 0;
                    future
                }
                Collected::Out => {
                    self.place = Place::Lent(loan);
                    return Poll::Pending;
                }
            },
            Place::Over => return Poll::Pending,
        };
        match self.payer.account().is_heavy() {
            true => self.lend(future, context),
            false => return self.poll_here(future, context),
        }
        Poll::Pending
    }

    fn poll_here(&mut self, mut future: Boxed<T>, context: &mut Context<'_>) -> Poll<T> {
        let outer = SCOPE.replace(Scope::Worker(self.ticks));
        if let Payer::Call(call) = &self.payer {
            call.poll_begins();
        }
        let polled = future.as_mut().poll(context);
        if let Payer::Call(call) = &self.payer {
            call.poll_ends();
        }
        let scope = SCOPE.replace(outer);
        if polled.is_ready() {
            return polled;
        }
        match scope {
            Scope::ToLend => self.lend(future, context),
            scope => {
                // Where it waits for something, what comes after that is another matter.
                self.ticks = if let Scope::Worker(ticks) = scope
                    && ticks > self.ticks
                {
                    ticks
                } else {
                    0
                };
                self.place = Place::Here(future);
            }
        }
        Poll::Pending
    }

    fn lend(&mut self, future: Boxed<T>, context: &Context<'_>) {
        let lender = context.waker().clone();
        let inner = Inner { what: What::Waits(future), lender, missed: false, had: Duration::ZERO };
        let loan = Arc::new(Loan { payer: self.payer.clone(), inner: Mutex::new(inner) });
        let taken_on = self.payer.account().crew.take_on(Arc::clone(&loan) as Arc<dyn Job>);
        self.was_lent |= taken_on;
        self.place = match taken_on {
            true => Place::Lent(loan),
            // Without threads it goes on here, behind the tasks that are ready.
            false => {
                context.waker().wake_by_ref();
                loan.abandon().map_or(Place::Over, Place::Here)
            }
        };
    }
}

impl<T: Send + 'static> Drop for Lendable<T> {
    fn drop(&mut self) {
        let future = match std::mem::replace(&mut self.place, Place::Over) {
            Place::Here(future) if self.was_lent => Some(future),
            Place::Here(_) | Place::Over => None,
            Place::Lent(loan) => loan.abandon(),
        };
        if let Some(future) = future {
            self.payer.account().crew.discard(Box::new(future));
        }
    }
}

/// A future while it is lent.
struct Loan<T> {
    payer: Payer,
    inner: Mutex<Inner<T>>,
}

struct Inner<T> {
    what: What<T>,
    /// The task that has lent it. Whatever the guest waits for wakes it.
    lender: Waker,
    /// The lender was woken during a turn: perhaps by what the guest was about to wait for.
    missed: bool,
    had: Duration,
}

enum What<T> {
    /// For its turn.
    Waits(Boxed<T>),
    /// It is having one.
    Runs,
    /// It waits for something else than the crew, and is the lender's again.
    Back(Boxed<T>),
    Done(T),
    Panicked(Box<dyn Any + Send>),
    /// The lender does not want it any more, or has it.
    Gone,
}

/// What a lender finds.
enum Collected<T> {
    Out,
    Back(Boxed<T>),
    Done(T),
}

impl<T> Loan<T> {
    fn inner(&self) -> MutexGuard<'_, Inner<T>> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn collect(&self, context: &Context<'_>) -> Collected<T> {
        let mut inner = self.inner();
        match std::mem::replace(&mut inner.what, What::Gone) {
            What::Back(future) => Collected::Back(future),
            What::Done(done) => Collected::Done(done),
            What::Panicked(panic) => {
                drop(inner);
                resume_unwind(panic)
            }
            out => {
                inner.missed |= matches!(out, What::Runs);
                inner.what = out;
                if !inner.lender.will_wake(context.waker()) {
                    inner.lender = context.waker().clone();
                }
                Collected::Out
            }
        }
    }

    /// The lender does not want it any more. The future, unless it is having its turn.
    fn abandon(&self) -> Option<Boxed<T>> {
        let what = std::mem::replace(&mut self.inner().what, What::Gone);
        match what {
            What::Waits(future) | What::Back(future) => Some(future),
            What::Runs | What::Done(_) | What::Panicked(_) | What::Gone => None,
        }
    }
}

impl<T: Send + 'static> Job for Loan<T> {
    fn run(self: Arc<Self>) -> (Rest, Duration) {
        let (mut future, lender) = {
            let mut inner = self.inner();
            match std::mem::replace(&mut inner.what, What::Runs) {
                What::Waits(future) => {
                    inner.missed = false;
                    (future, inner.lender.clone())
                }
                other => {
                    inner.what = other;
                    return (Rest::Over, Duration::ZERO);
                }
            }
        };
        let call = if let Payer::Call(call) = &self.payer { Some(call) } else { None };
        call.inspect(|call| call.turn_begins());
        let said = call.map(|call| call.said());
        SCOPE.set(Scope::Crew);
        let began = thread_time();
        let polled = catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(&mut Context::from_waker(&lender))));
        let took = thread_time().saturating_sub(began);
        let goes_on = SCOPE.replace(Scope::Plain) == Scope::CrewGoesOn;
        call.inspect(|call| call.charge(took));
        let (rest, what) = match polled {
            Ok(Poll::Pending) if goes_on => (Rest::Again, What::Waits(future)),
            Ok(Poll::Pending) => (Rest::Over, What::Back(future)),
            Ok(Poll::Ready(done)) => (Rest::Over, What::Done(done)),
            Err(panic) => (Rest::Over, What::Panicked(panic)),
        };
        let is_over = matches!(what, What::Done(_) | What::Panicked(_));
        let (rest, was_asked) = self.put(what, took, rest);
        // A turn without news is no reason to wake anybody: the lender would lend it again, and so on. A lender that has looked
        // meanwhile may have taken a block, and does not know of the next.
        let is_news =
            said != call.map(|call| call.said()) || was_asked && call.is_some_and(|call| call.outbox().block.is_some());
        if is_over || is_news {
            lender.wake();
        }
        (rest, took)
    }

    fn account(&self) -> &Arc<Account> {
        self.payer.account()
    }

    fn had(&self) -> Duration {
        self.inner().had
    }
}

impl<T> Loan<T> {
    /// After a turn. Whether the lender has looked meanwhile is the second answer.
    fn put(&self, what: What<T>, took: Duration, rest: Rest) -> (Rest, bool) {
        let mut inner = self.inner();
        inner.had += took;
        let was_asked = std::mem::take(&mut inner.missed);
        // Abandoned meanwhile. What is left of it goes after the lock.
        if matches!(inner.what, What::Gone) {
            drop(inner);
            drop(what);
            return (Rest::Over, was_asked);
        }
        let (what, rest) = match what {
            What::Back(future) if was_asked => (What::Waits(future), Rest::Again),
            what => (what, rest),
        };
        inner.what = what;
        (rest, was_asked)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;
    use std::time::Instant;

    use bytes::Bytes;

    use super::*;
    use crate::body::Block;
    use crate::telemetry::RequestId;

    /// Counts how often it is woken.
    #[derive(Default)]
    struct Woken(AtomicUsize);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn call() -> Arc<CallState> {
        Arc::new(CallState::new(RequestId::next(), Instant::now(), Duration::MAX, &Account::of_nobody()))
    }

    /// A guest that is lent, and what its lender is woken by. In each turn `turn` is done, with the loan: what others do meanwhile, too.
    fn lent(
        call: &Arc<CallState>,
        mut turn: impl FnMut(&Loan<()>, &mut Context<'_>) -> Poll<()> + Send + 'static,
    ) -> (Arc<Loan<()>>, Arc<Woken>) {
        let woken = Arc::<Woken>::default();
        let loan = Arc::new_cyclic(|loan: &std::sync::Weak<Loan<()>>| {
            let loan = loan.clone();
            let future: Boxed<()> = Box::pin(std::future::poll_fn(move |context| {
                turn(&loan.upgrade().expect("it is having its turn"), context)
            }));
            let lender = Waker::from(Arc::clone(&woken));
            let inner = Inner { what: What::Waits(future), lender, missed: false, had: Duration::ZERO };
            Loan { payer: Payer::Call(Arc::clone(call)), inner: Mutex::new(inner) }
        });
        (loan, woken)
    }

    fn wakes(woken: &Woken) -> usize {
        woken.0.load(Ordering::Relaxed)
    }

    /// The lender takes the block that is there and looks for the next, both during a turn in which the guest hands that over:
    /// before and after the turn there is a block, and yet the lender has to be told.
    #[test]
    fn a_block_that_replaces_another_during_a_turn_is_news() {
        let call = call();
        call.outbox().block = Some(Block::hosts(Bytes::from_static(b"first")));
        let (guests, (loan, woken)) = (Arc::clone(&call), {
            let call = Arc::clone(&call);
            lent(&call.clone(), move |loan, context| {
                call.outbox().block.take().expect("the first is there");
                assert!(matches!(loan.collect(context), Collected::Out));
                call.outbox().block = Some(Block::hosts(Bytes::from_static(b"second")));
                Poll::Pending
            })
        });
        let (rest, _) = Arc::clone(&loan).run();
        assert_eq!(wakes(&woken), 1, "the lender sleeps, and nobody else wakes it");
        assert_eq!(guests.outbox().block.as_ref().map(AsRef::as_ref), Some(&b"second"[..]));
        // It looked during the turn, which may have been what the guest waits for: there is another turn.
        assert!(rest == Rest::Again);
    }

    #[test]
    fn a_turn_without_news_wakes_nobody_and_the_first_block_does() {
        let call = call();
        let (loan, woken) = lent(&call, |_, _| Poll::Pending);
        assert!(Arc::clone(&loan).run().0 == Rest::Over);
        assert_eq!(wakes(&woken), 0);
        let (loan, woken) = {
            let guests = Arc::clone(&call);
            lent(&call, move |_, _| {
                guests.outbox().block = Some(Block::hosts(Bytes::from_static(b"block")));
                Poll::Pending
            })
        };
        Arc::clone(&loan).run();
        assert_eq!(wakes(&woken), 1);
        // It is the lender's again.
        assert!(matches!(loan.collect(&Context::from_waker(Waker::noop())), Collected::Back(_)));
    }

    #[test]
    fn a_guest_that_is_done_or_abandoned_during_its_turn_has_no_other() {
        let call = call();
        let (loan, woken) = lent(&call, |_, _| Poll::Ready(()));
        assert!(Arc::clone(&loan).run().0 == Rest::Over);
        assert_eq!(wakes(&woken), 1);
        assert!(matches!(loan.collect(&Context::from_waker(Waker::noop())), Collected::Done(())));
        let (loan, _) = lent(&call, |loan, context| {
            assert!(loan.abandon().is_none(), "it is not to be had during its turn");
            assert!(matches!(loan.collect(context), Collected::Out));
            Poll::Pending
        });
        assert!(Arc::clone(&loan).run().0 == Rest::Over);
        assert!(loan.abandon().is_none() && Arc::clone(&loan).run().0 == Rest::Over);
    }
}
