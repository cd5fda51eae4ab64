//! Guests that speak `wasgi:gateway`: WSGI through components. `wit/wasgi.wit` says what each function means.
//!
//! [`exchange`] is one call, [`gateway`] what the host offers meanwhile.

mod exchange;
pub(crate) mod gateway;
pub mod probe;

use std::sync::Arc;

use wasmtime::Store;
use wasmtime::component::{Component, Instance};

use crate::body::RequestBody;
use crate::config::AppSpec;
use crate::error::Error;
use crate::guest::environ::{Constant, EnvironBlock, Place, wants_head_only};
use crate::guest::{Call, Guest};
use crate::sandbox::supply::{self, Entry, Supply};
use crate::sandbox::task::{Finished, Task};
use crate::sandbox::{Belongings, Engine, State};

use exchange::{CallFunction, Exchange, Exports, Failure};

/// An app that speaks WSGI.
pub(crate) struct Wsgi {
    shared: Arc<Shared>,
}

struct Shared {
    supply: Arc<Supply<Exports>>,
    environ: Constant,
}

type Sandbox = supply::Sandbox<CallFunction>;

impl Entry for Exports {
    type Functions = CallFunction;

    fn find(&self, store: &mut Store<State>, instance: &Instance) -> wasmtime::Result<CallFunction> {
        instance.get_typed_func(store, self.call)
    }
}

impl Wsgi {
    pub(crate) fn load(
        engine: &Arc<Engine>,
        component: &Component,
        spec: &AppSpec,
        own: Belongings,
    ) -> anyhow::Result<Self> {
        let linked = engine.link(component)?;
        let exports = Exports::of(&linked)?;
        let supply = Supply::new(engine, linked, exports, spec, own);
        let environ = Constant::new(supply.app.variables());
        Ok(Self { shared: Arc::new(Shared { supply, environ }) })
    }
}

impl Guest for Wsgi {
    fn call(&self, call: Call) -> Task {
        let shared = Arc::clone(&self.shared);
        let limits = &self.shared.supply.app.limits;
        Task::new(Arc::clone(&call.state), limits, async move { shared.serve(call).await })
    }

    fn sweep(&self) {
        self.shared.supply.sweep();
    }

    fn gave_up_rewinding(&self) -> bool {
        self.shared.supply.gave_up_rewinding()
    }
}

impl Shared {
    /// One call, in a sandbox of its own or in one that has served before.
    async fn serve(self: &Arc<Self>, call: Call) -> Result<Finished, Error> {
        self.supply.engine.wake_ticker();
        let Call { state, parts, body, permit, script_name, path_info, origin } = call;
        // Before there is a sandbox: none waits for a client that sends slowly.
        let input = RequestBody::open(body, &self.supply.app, &state).await?;
        let place = Place {
            script_name: &script_name,
            path_info: &path_info,
            origin: &origin,
            spooled_bytes: input.spooled_bytes(),
        };
        let mut environ = EnvironBlock::of_request(&self.environ, &parts, &place);
        environ.push_display("wasgi.request_id", state.id);
        let no_body = wants_head_only(&parts.method);
        state.witness.keep_head(parts);
        let mut sandbox = self.supply.open(&state).await?;
        let host = &mut sandbox.store.data_mut().wsgi;
        host.no_body = no_body;
        host.input = Some(input);

        // Concurrent requests are served by concurrent sandboxes.
        let multiprocess = self.supply.app.limits.concurrent_calls > 1;
        let arguments = (environ.into_bytes(), origin.https, multiprocess, self.supply.serves_once());
        let exchange = Exchange { shared: self, sandbox: &mut sandbox, call: &state };
        let outcome = match exchange.run(arguments).await {
            Ok(finished) => {
                self.supply.keep(sandbox);
                Ok(finished.holding(permit))
            }
            Err(Failure::App(error)) => {
                self.supply.keep(sandbox);
                Err(error)
            }
            // What misbehaved is never used again.
            Err(Failure::Sandbox(error)) => Err(error),
        };
        outcome.map_err(|error| state.clients_fault().unwrap_or(error))
    }
}
