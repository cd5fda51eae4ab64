//! Where guests run: the engine and its ticker, a store for each sandbox with its meter, and the task of one call.
//!
//! A sandbox is one store with one instance. Everything that a guest can take is metered here: memory and tables
//! ([`meter`]), processor and wall time ([`call`], [`task`]), handles and host-call payloads (set on the store). What a guest
//! says to the host is not understood here; that is `guest`'s part.

pub(crate) mod call;
pub(crate) mod crew;
mod engine;
pub(crate) mod fault;
#[cfg(test)]
mod hunt;
pub(crate) mod ledger;
mod memory;
pub(crate) mod meter;
pub(crate) mod pace;
mod rewind;
mod runs;
mod state;
pub(crate) mod step;
mod stock;
pub(crate) mod supply;
pub mod task;
mod uses;

use std::sync::Arc;
use std::time::Instant;

use wasmtime::component::{Instance, InstancePre};
use wasmtime::{Store, UpdateDeadline};

pub use call::CallState;
use crew::Yields;
pub(crate) use crew::go_as_usual;
pub use crew::{Crew, go_first};
pub(crate) use engine::Keeper;
pub use engine::{Abi, Engine, Variant, compiler, kernel_finds_written_pages, reset_text};
pub(crate) use memory::PAGE_BYTES;
use memory::Shelves;
pub use memory::{Image, MemoryImages};
pub(crate) use rewind::FUNCTION as REWIND_FUNCTION;
pub use state::{AppContext, Belongings, State};
pub use uses::Uses;

/// Ticks between two looks at a running guest: it yields to other tasks, and its processor time is checked.
const TICKS: u64 = 1;

/// A store for one sandbox of an app, limited as the app is.
pub(crate) fn store(engine: &wasmtime::Engine, app: &Arc<AppContext>, call: &Arc<CallState>) -> Store<State> {
    let mut store = Store::new(engine, State::new(app, call));
    store.limiter(|state| &mut state.meter);
    // Lists and strings are charged by what they become on the host; a small allowance covers their frames.
    store.set_hostcall_fuel(usize::try_from(app.limits.host_call_bytes).unwrap_or(usize::MAX));
    store.set_max_component_handles(app.limits.handles as usize);
    store.set_epoch_deadline(TICKS);
    store.epoch_deadline_callback(|mut context| {
        match context.data().ledger.clone() {
            None => context.data().call.interrupt()?,
            Some(ledger) => ledger.tick(context.async_call_stack()?)?,
        }
        // A tenant that has used up its processor time has its guests wait, as its new calls do.
        let account = &context.data().app.account;
        let is_in_debt = account.cpu_debt(Instant::now()).is_some();
        Ok(UpdateDeadline::YieldCustom(
            TICKS,
            match crew::interrupted(is_in_debt) {
                Yields::Silently => Box::pin(crew::pause()),
                Yields::ToTasks if is_in_debt => Box::pin(Arc::clone(account).solvent()),
                // Not a plain yield, which would wake the task at once: tokio's puts it behind all others, and behind new
                // events on sockets. So short calls overtake long ones, on a single worker too.
                Yields::ToTasks => Box::pin(tokio::task::yield_now()),
            },
        ))
    });
    store
}

/// Makes an instance, with memories of our own if there are shelves.
pub(crate) async fn instantiate<T: Send>(
    shelves: Option<&Arc<Shelves>>,
    linked: &InstancePre<T>,
    store: &mut Store<T>,
) -> wasmtime::Result<Instance> {
    match shelves {
        Some(shelves) => Ok(memory::instantiate(shelves, linked, store).await?.instance),
        None => linked.instantiate_async(store).await,
    }
}

/// What runs in the store next is the host's own and short: no tick is to stop it.
fn no_deadline(store: &mut Store<State>) {
    store.set_epoch_deadline(u64::from(u32::MAX));
}

/// Makes a store that has served a call ready for the next.
pub(crate) fn renew(store: &mut Store<State>, call: &Arc<CallState>) {
    store.data_mut().begin(call);
    store.set_epoch_deadline(TICKS);
}
