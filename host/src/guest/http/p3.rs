//! Guests of WASI 0.3: `wasi:http/handler`. Each call has an instance of its own, and its own future drives it;
//! [`super::shared`] is for apps that chose reuse.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;

use http::header;
use http::uri::{Authority, Scheme};
use wasmtime::Store;
use wasmtime::component::{
    Accessor, Component, ComponentExportIndex, GuestTaskId, Instance, InstancePre, Resource, TypedFunc,
};
use wasmtime_wasi_http::p3::bindings::http::types::ErrorCode;
use wasmtime_wasi_http::p3::{Request, Response};
use wasmtime_wasi_http::{Error as HttpError, FieldMap, WasiHttpHooks, WasiHttpView};

use super::exchange::{Answer, Exchange, alone};
use super::request::{self, RequestBody};
use crate::config::AppSpec;
use crate::error::Error;
use crate::guest::{self, Call, Guest};
use crate::origin::Origin;
use crate::sandbox::supply::{Entry, Supply};
use crate::sandbox::task::{Finished, Task};
use crate::sandbox::{Belongings, CallState, Engine, State, fault};

/// Any 0.3.x fits.
pub(super) const INTERFACE: &str = "wasi:http/handler@0.3.0";

/// An app that speaks `wasi:http` 0.3.
pub(super) struct Http {
    supply: Arc<Supply<Handle>>,
}

/// Where a component has its `handle`.
pub(super) struct Handle(ComponentExportIndex);

type Arguments = (Resource<Request>,);
type Returned = (Result<Resource<Response>, ErrorCode>,);

pub(super) type Function = TypedFunc<Arguments, Returned>;

impl Entry for Handle {
    type Functions = Function;

    fn find(&self, store: &mut Store<State>, instance: &Instance) -> wasmtime::Result<Function> {
        instance.get_typed_func(store, self.0)
    }
}

/// What a call of a component needs, linked and checked.
pub(super) fn link(engine: &Engine, component: &Component) -> anyhow::Result<(InstancePre<State>, Handle)> {
    let linked = engine.link(component)?;
    let handle = guest::exported::<Arguments, Returned>(&linked, INTERFACE, "handle")?;
    Ok((linked, Handle(handle)))
}

impl Http {
    pub(super) fn load(
        engine: &Arc<Engine>,
        component: &Component,
        spec: &AppSpec,
        own: Belongings,
    ) -> anyhow::Result<Self> {
        let (linked, handle) = link(engine, component)?;
        Ok(Self { supply: Supply::new(engine, linked, handle, spec, own) })
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

/// One call, in a sandbox of its own.
async fn serve(supply: &Arc<Supply<Handle>>, call: Call) -> Result<Finished, Error> {
    supply.engine.wake_ticker();
    let Call { state: call, parts, body, origin, permit, .. } = call;
    let method = parts.method.clone();
    call.witness.keep_head(parts);
    let mut sandbox = supply.open(&call).await?;
    let (request, upload) = request::open(body, &origin, &call, supply.app.limits.request_body_bytes)?;
    let answer = Answer::default();
    let (store, handle) = (&mut sandbox.store, sandbox.functions);
    let end = {
        let guest = pin!(async {
            let ran = store.run_concurrent(async |accessor| {
                respond(accessor, handle, request, &origin, (&call, &answer), |_| ()).await?;
                // The guest's tasks may go on when they have returned; and what is under way of the body must arrive.
                poll_fn(|context| accessor.poll_no_interesting_tasks(context)).await;
                answer.delivered().await;
                Ok(())
            });
            let ran = ran.await.flatten();
            ran.map_err(|error| fault::classify(error, store.data()))
        });
        Exchange::new(&supply.app, &call, &method, &answer, &upload).run(guest, alone).await
    };
    super::settle(supply, sandbox, end, &call, permit)
}

/// Calls the guest, and leaves its response in `answer`. `entered` learns which of its tasks this is.
pub(super) async fn respond(
    accessor: &Accessor<State>,
    handle: Function,
    request: http::Request<RequestBody>,
    origin: &Origin,
    (call, answer): (&CallState, &Answer),
    entered: impl FnOnce(GuestTaskId),
) -> wasmtime::Result<()> {
    let (task, sent) = accessor.with(|mut access| {
        let http = access.get().http();
        let (request, sent) = wasi_request(request, origin, call, http.hooks);
        let request = http.table.push(request)?;
        Ok::<_, wasmtime::Error>((handle.start_call_concurrent(access, (request,))?, sent))
    })?;
    entered(task.task());
    match handle.finish_call_concurrent(accessor, task).await? {
        (Ok(response),) => accessor.with(|mut access| {
            let response = access.get().http().table.delete(response)?;
            answer.set(Ok(response.into_http(access, sent)?));
            Ok(())
        }),
        (Err(code),) => {
            answer.set(Err(HttpError::from(code)));
            Ok(())
        }
    }
}

/// The request with its parts where WASI 0.3 has them; and what becomes known of its body later.
fn wasi_request(
    request: http::Request<RequestBody>,
    origin: &Origin,
    call: &CallState,
    hooks: &mut dyn WasiHttpHooks,
) -> (Request, impl Future<Output = Result<(), HttpError>> + Send + use<>) {
    let (parts, body) = request.into_parts();
    let scheme = if origin.https { Scheme::HTTPS } else { Scheme::HTTP };
    let named = parts.headers.get(header::HOST).and_then(|host| Authority::try_from(host.as_bytes()).ok());
    let path = parts.uri.path_and_query().cloned();
    let headers = FieldMap::new_immutable(hooks, parts.headers);
    call.witness.share_fields(&headers);
    Request::new(parts.method, Some(scheme), named, path, headers, None, body)
}
