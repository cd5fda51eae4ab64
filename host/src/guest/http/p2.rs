//! Guests of WASI 0.2: `wasi:http/incoming-handler`. A call is one call of `handle`.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;

use wasmtime::Store;
use wasmtime::component::{Component, ComponentExportIndex, Instance, Resource, TypedFunc};
use wasmtime_wasi_http::WasiHttpView;
use wasmtime_wasi_http::p2::bindings::http::types::{IncomingRequest, ResponseOutparam, Scheme};

use super::exchange::{Answer, Exchange, alone};
use super::request;
use crate::config::AppSpec;
use crate::error::Error;
use crate::guest::{self, Call, Guest};
use crate::sandbox::supply::{Entry, Supply};
use crate::sandbox::task::{Finished, Task};
use crate::sandbox::{Belongings, Engine, State, fault};

/// Any 0.2.x fits.
const INTERFACE: &str = "wasi:http/incoming-handler@0.2.0";

/// An app that speaks `wasi:http` 0.2.
pub(super) struct Http {
    supply: Arc<Supply<Handle>>,
}

/// Where a component has its `handle`.
struct Handle(ComponentExportIndex);

type Arguments = (Resource<IncomingRequest>, Resource<ResponseOutparam>);

impl Entry for Handle {
    type Functions = TypedFunc<Arguments, ()>;

    fn find(&self, store: &mut Store<State>, instance: &Instance) -> wasmtime::Result<Self::Functions> {
        instance.get_typed_func(store, self.0)
    }
}

impl Http {
    pub(super) fn load(
        engine: &Arc<Engine>,
        component: &Component,
        spec: &AppSpec,
        own: Belongings,
    ) -> anyhow::Result<Self> {
        let linked = engine.link(component)?;
        let handle = guest::exported::<Arguments, ()>(&linked, INTERFACE, "handle")?;
        Ok(Self { supply: Supply::new(engine, linked, Handle(handle), spec, own) })
    }
}

impl Guest for Http {
    fn call(&self, call: Call) -> Task {
        let supply = Arc::clone(&self.supply);
        Task::new(Arc::clone(&call.state), &self.supply.app.limits, async move { serve(&supply, call).await })
    }

    fn sweep(&self) {
        self.supply.sweep();
    }
}

/// One call, in a sandbox of its own or in one that has served before.
async fn serve(supply: &Arc<Supply<Handle>>, call: Call) -> Result<Finished, Error> {
    supply.engine.wake_ticker();
    let Call { state: call, parts, body, origin, permit, .. } = call;
    let method = parts.method.clone();
    call.witness.keep_head(parts);
    let mut sandbox = supply.open(&call).await?;
    let (request, upload) = request::open(body, &origin, &call, supply.app.limits.request_body_bytes)?;
    call.witness.copy_fields(request.headers());
    let answer = Answer::default();
    let store = &mut sandbox.store;
    let pushed = {
        let (mut http, answer) = (store.data_mut().http(), answer.clone());
        let scheme = if origin.https { Scheme::Https } else { Scheme::Http };
        let request = http.new_incoming_request(scheme, request);
        request.and_then(|request| {
            let set = move |said: Result<_, _>| answer.set(said.map_err(Into::into));
            Ok((request, http.new_response_outparam_from_callback(set)?))
        })
    };
    let arguments = pushed.map_err(|error| Error::Host(format!("{error:#}")))?;
    let handle = sandbox.functions;
    let end = {
        let guest = pin!(async {
            let returned = {
                let mut handled = pin!(handle.call_async(&mut *store, arguments));
                // Whatever a guest waits for is polled each time.
                poll_fn(|context| {
                    upload.look_away();
                    handled.as_mut().poll(context)
                })
                .await
            };
            returned.map_err(|error| fault::classify(error, store.data()))
        });
        Exchange::new(&supply.app, &call, &method, &answer, &upload).run(guest, alone).await
    };
    super::settle(supply, sandbox, end, &call, permit)
}
