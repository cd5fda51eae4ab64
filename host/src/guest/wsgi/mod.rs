//! Guests that speak `wasgi:gateway`: WSGI through components. `wit/wasgi.wit` says what each function means.
//!
//! Here is where their sandboxes come from and go to; [`exchange`] is one call, [`gateway`] what the host offers meanwhile.

mod exchange;
pub(crate) mod gateway;
pub mod probe;
mod stock;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Instant;

use wasmtime::Store;
use wasmtime::component::{Component, Instance, InstancePre};

use crate::body::RequestBody;
use crate::config::{AppSpec, Instances};
use crate::error::{Busy, Error};
use crate::guest::environ::{EnvironBlock, Place, wants_head_only};
use crate::guest::{Call, Guest, Reuse};
use crate::sandbox::task::{Finished, Task};
use crate::sandbox::{self, AppContext, CallState, Engine, Keeper, State, fault};
use crate::telemetry::AppLog;

use exchange::{CallFunction, Exchange, Exports, Failure};
use stock::Stock;

/// An app that speaks WSGI.
pub(crate) struct Wsgi {
    shared: Arc<Shared>,
}

struct Shared {
    engine: Arc<Engine>,
    app: Arc<AppContext>,
    linked: InstancePre<State>,
    exports: Exports,
    environ: EnvironBlock,
    reuse: Option<Reuse>,
    /// Under `reuse`, sandboxes that wait for their next call; under `fresh`, for their only one.
    idle: Mutex<Vec<Idle>>,
    stock: Stock,
}

/// A sandbox with the instance in it.
struct Sandbox {
    store: Store<State>,
    instance: Instance,
    call: CallFunction,
    served: u32,
}

struct Idle {
    sandbox: Sandbox,
    since: Instant,
}

impl Wsgi {
    pub(crate) fn load(
        engine: &Arc<Engine>,
        component: &Component,
        spec: &AppSpec,
        log: Arc<AppLog>,
    ) -> anyhow::Result<Self> {
        let exports = Exports::of(component)?;
        let linked = engine.linker().instantiate_pre(component);
        let linked = linked.map_err(|error| anyhow::anyhow!("{error:#}"))?;
        // Checks that the exports have the contract's types.
        gateway::check_exports(&linked).map_err(|error| anyhow::anyhow!("{error:#}"))?;
        let reuse = match spec.instances {
            Instances::Fresh => None,
            Instances::Reuse { requests_max, idle_time } => Some(Reuse { requests_max, idle_time }),
        };
        let app = AppContext { name: spec.name.clone(), limits: spec.limits.clone(), env: spec.env.clone(), log };
        let shared = Arc::new(Shared {
            engine: Arc::clone(engine),
            environ: EnvironBlock::constant(&app.env),
            app: Arc::new(app),
            linked,
            exports,
            reuse,
            idle: Mutex::default(),
            stock: Stock::default(),
        });
        let keeper: Weak<Shared> = Arc::downgrade(&shared);
        engine.register(keeper);
        Ok(Self { shared })
    }
}

impl Guest for Wsgi {
    fn call(&self, call: Call) -> Task {
        let shared = Arc::clone(&self.shared);
        let limits = &self.shared.app.limits;
        Task::new(Arc::clone(&call.state), limits, async move { shared.serve(call).await })
    }

    fn sweep(&self) {
        let Some(reuse) = self.shared.reuse else { return self.shared.sweep_stock() };
        let retired: Vec<Idle> = {
            let mut idle = self.shared.idle();
            // The longest unused ones are at the bottom.
            let kept = idle.iter().position(|idle| idle.since.elapsed() < reuse.idle_time).unwrap_or(idle.len());
            idle.drain(..kept).collect()
        };
        drop(retired);
    }
}

impl Keeper for Shared {
    fn give_up_one(&self) -> bool {
        if self.stock.give_up_one() {
            return true;
        }
        // The longest unused one is at the bottom.
        let given_up = {
            let mut idle = self.idle();
            (!idle.is_empty()).then(|| idle.remove(0))
        };
        given_up.is_some()
    }
}

impl Shared {
    fn idle(&self) -> MutexGuard<'_, Vec<Idle>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One call, in a sandbox of its own or in one that has served before.
    async fn serve(self: &Arc<Self>, call: Call) -> Result<Finished, Error> {
        self.engine.wake_ticker();
        let environ = self.environ(&call);
        let Call { state, parts, body, permit, .. } = call;
        let mut sandbox = self.open(&state).await?;
        let host = &mut sandbox.store.data_mut().wsgi;
        host.head_only = wants_head_only(&parts.method);
        host.input = Some(RequestBody::new(body, self.app.limits.request_body_bytes));

        // Concurrent requests are served by concurrent sandboxes: `wsgi.multiprocess`.
        let arguments = (environ, false, true, self.reuse.is_none());
        let exchange = Exchange { shared: self, sandbox: &mut sandbox, call: &state };
        let outcome = match exchange.run(arguments).await {
            Ok(finished) => {
                self.keep(sandbox);
                Ok(finished.holding(permit))
            }
            Err(Failure::App(error)) => {
                self.keep(sandbox);
                Err(error)
            }
            // What misbehaved is never used again.
            Err(Failure::Sandbox(error)) => Err(error),
        };
        outcome.map_err(|error| self.clients_fault(&state).unwrap_or(error))
    }

    /// What was wrong with the request's body, if anything: then the app's failure is the client's.
    fn clients_fault(&self, call: &CallState) -> Option<Error> {
        let mut outbox = call.outbox();
        if outbox.body_too_large {
            return Some(Error::BodyTooLarge(self.app.limits.request_body_bytes));
        }
        outbox.body_broken.take().map(Error::ClientGone)
    }

    fn environ(&self, call: &Call) -> Vec<u8> {
        let place = Place {
            script_name: &call.script_name,
            path_info: &call.path_info,
            client: &call.client,
            local: call.local,
        };
        EnvironBlock::of_request(&self.environ, &call.parts, &place).into_bytes()
    }

    async fn open(self: &Arc<Self>, call: &Arc<CallState>) -> Result<Sandbox, Error> {
        let (idle, left) = {
            let mut idle = self.idle();
            (idle.pop(), idle.len())
        };
        if self.reuse.is_none() {
            self.restock(left);
        }
        if let Some(Idle { mut sandbox, .. }) = idle {
            sandbox::renew(&mut sandbox.store, call);
            return Ok(sandbox);
        }
        loop {
            match self.instantiate(call).await {
                // A sandbox that serves goes before ones that wait to be used again.
                Err(Error::Busy(Busy::Pool)) if self.engine.make_room() => {}
                opened => return opened,
            }
        }
    }

    async fn instantiate(&self, call: &Arc<CallState>) -> Result<Sandbox, Error> {
        let mut store = sandbox::store(&self.engine, &self.app, call);
        let instantiated = self.linked.instantiate_async(&mut store).await;
        let found = instantiated.and_then(|instance| {
            let call = instance.get_typed_func(&mut store, self.exports.call)?;
            Ok((instance, call))
        });
        match found {
            Ok((instance, call)) => Ok(Sandbox { store, instance, call, served: 0 }),
            Err(error) => Err(fault::classify(error, store.data())),
        }
    }

    /// A sandbox has served without fault: the app's policy says what becomes of it.
    fn keep(&self, mut sandbox: Sandbox) {
        let Some(reuse) = self.reuse else { return self.discard(sandbox) };
        sandbox.served += 1;
        if sandbox.served < reuse.requests_max {
            sandbox.store.data_mut().end();
            self.idle().push(Idle { sandbox, since: Instant::now() });
        }
    }
}
