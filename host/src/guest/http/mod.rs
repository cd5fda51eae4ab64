//! Guests that speak `wasi:http`: components built for `wasmtime serve`, Spin or wasmCloud. Everything that the interfaces
//! mean is `wasmtime-wasi-http`'s part; here are the limits, and the ways to and from the connection.
//!
//! [`request`] is what a guest is given, [`exchange`] carries its response to the connection, [`outgoing`] sends its own requests,
//! [`p2`], [`p3`] and [`shared`] call guests of WASI 0.2 and 0.3.

mod counted;
mod exchange;
mod outgoing;
mod p2;
mod p3;
mod request;
mod shared;

use std::sync::Arc;

use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use wasmtime::StoreContextMut;
use wasmtime::component::{Component, Linker};
use wasmtime_wasi_http::p2::bindings::http::types;
use wasmtime_wasi_http::{
    Error as HttpError, RequestOptions, WasiBody, WasiHttpCtx, WasiHttpCtxView, WasiHttpHooks, WasiHttpView,
};

use self::exchange::End;
use self::outgoing::Outgoing;
use crate::admission::Permit;
use crate::config::{AppSpec, Instances};
use crate::error::Error;
use crate::guest::Guest;
use crate::limits::Limits;
use crate::outbound::Traffic;
use crate::sandbox::supply::{Entry, Sandbox, Supply};
use crate::sandbox::task::Finished;
use crate::sandbox::{AppContext, Belongings, CallState, Engine, State};
use crate::telemetry::RequestId;

/// Makes a loaded component callable, by the newest of the interfaces that it exports.
pub(crate) fn load(
    engine: &Arc<Engine>,
    component: &Component,
    spec: &AppSpec,
    own: Belongings,
) -> anyhow::Result<Box<dyn Guest>> {
    let is_p3 = component.get_export_index(None, p3::INTERFACE).is_some();
    Ok(match spec.instances {
        _ if !is_p3 => Box::new(p2::Http::load(engine, component, spec, own)?),
        // What guests still do between their calls they would do to the app's data beside each other.
        Instances::Reuse(kept) if own.data.is_none() => {
            Box::new(shared::Http::load(engine, component, spec, kept.idle_time, own)?)
        }
        _ => Box::new(p3::Http::load(engine, component, spec, own)?),
    })
}

/// Offers WASI 0.2's part.
pub(crate) fn link_p2(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    wasmtime_wasi_http::p2::add_only_http_to_linker_async(linker)?;
    // Bodies end with the host's own errors, which the function of wasmtime-wasi-http 48 does not know.
    linker.allow_shadowing(true);
    linker.instance(TYPES)?.func_wrap("http-error-code", |mut store: StoreContextMut<'_, State>, (error,)| {
        let error = store.data_mut().table.get::<types::IoError>(&error)?;
        Ok((outgoing::error_code(error),))
    })?;
    linker.allow_shadowing(false);
    Ok(())
}

/// In the version that `wasmtime-wasi-http` offers: what is linked under another would hide the rest of it.
const TYPES: &str = "wasi:http/types@0.2.12";

/// Offers WASI 0.3's part.
pub(crate) fn link_p3(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    wasmtime_wasi_http::p3::add_to_linker(linker)
}

/// What becomes of a sandbox when its call has ended, and of the call.
fn settle<E: Entry>(
    supply: &Supply<E>,
    sandbox: Sandbox<E::Functions>,
    end: End,
    call: &CallState,
    permit: Permit,
) -> Result<Finished, Error> {
    let sent = match end {
        End::Sound(sent) => {
            supply.keep(sandbox);
            sent
        }
        // What misbehaved is never used again.
        End::Faulty(sent) => sent,
    };
    let sent = sent.map(|finished| finished.holding(permit));
    sent.map_err(|error| call.clients_fault().unwrap_or(error))
}

/// A body as `wasmtime-wasi-http` hands it over.
type Body = UnsyncBoxBody<Bytes, HttpError>;

/// What a guest writes of a body at once. It buffers up to two of these for each body that it holds.
const CHUNK_BYTES: usize = 64 << 10;

/// What `wasmtime-wasi-http` counts for a header field beside its name and value.
const FIELD_BYTES: usize = 80;

/// What a sandbox keeps for `wasi:http`.
pub(crate) struct Host {
    context: WasiHttpCtx,
    hooks: Hooks,
}

impl Host {
    pub(crate) fn new(app: &Arc<AppContext>, call: RequestId) -> Self {
        let mut context = WasiHttpCtx::new();
        context.set_field_size_limit(field_bytes_max(&app.limits));
        Self { context, hooks: Hooks { app: Arc::clone(app), call: Some(call), calls: 1, traffic: None } }
    }

    /// What the call under way has sent and got. Connections that are kept from call to call count for whichever is
    /// under way.
    pub(crate) fn traffic(&mut self) -> Arc<Traffic> {
        self.hooks.traffic()
    }

    /// What is logged from now on is for this call; or for none in particular.
    pub(crate) fn begin(&mut self, call: Option<RequestId>) {
        self.hooks.call = call;
        self.hooks.calls = 1;
        if let (Some(_), Some(traffic)) = (call, &self.hooks.traffic) {
            traffic.begin();
        }
    }

    /// A call begins beside others: with it so many are under way.
    pub(crate) fn join(&mut self, calls: u32) {
        self.hooks.call = None;
        self.hooks.calls = calls;
        if let (Some(traffic), Some(outbound)) = (&self.hooks.traffic, &self.hooks.app.outbound) {
            traffic.join(calls, outbound);
        }
    }
}

/// What a guest may put into one `fields`. Requests' heads may be larger than responses', and be copied; what goes out is
/// measured exactly.
fn field_bytes_max(limits: &Limits) -> usize {
    let bytes = usize::try_from(limits.response_header_bytes).unwrap_or(usize::MAX);
    bytes.saturating_mul(2).saturating_add(limits.response_headers as usize * FIELD_BYTES)
}

impl WasiHttpView for State {
    fn http(&mut self) -> WasiHttpCtxView<'_> {
        WasiHttpCtxView { hooks: &mut self.http.hooks, table: &mut self.table, ctx: &mut self.http.context }
    }
}

/// Where `wasmtime-wasi-http` asks the host.
struct Hooks {
    app: Arc<AppContext>,
    call: Option<RequestId>,
    /// Under way.
    calls: u32,
    /// Of the calls under way, once there was any.
    traffic: Option<Arc<Traffic>>,
}

impl Hooks {
    fn traffic(&mut self) -> Arc<Traffic> {
        let calls = self.calls;
        Arc::clone(self.traffic.get_or_insert_with(|| Arc::new(Traffic::of(calls))))
    }
}

type Sending<T> = Box<dyn Future<Output = Result<T, HttpError>> + Send>;

impl WasiHttpHooks for Hooks {
    /// RFC 9110 §7.6.1: these are between two neighbours on the way, and so the server's alone. A guest neither sees nor sets
    /// them; it does see Host.
    fn is_forbidden_header(&mut self, name: &http::HeaderName) -> bool {
        is_forbidden(name)
    }

    fn forbidden_header_filter(&mut self) -> wasmtime_wasi_http::ForbiddenHeaderFilter {
        Arc::new(is_forbidden)
    }

    /// What the operator grants goes out; the rest the guest learns as an error, the app's log in words.
    fn send_request(
        &mut self,
        request: http::Request<WasiBody>,
        options: Option<RequestOptions>,
        _: Sending<()>,
    ) -> Sending<outgoing::Answered> {
        if self.app.outbound.is_none() {
            let refused = outgoing::refuse(&self.app, self.call, &request);
            return Box::new(std::future::ready(Err(refused)));
        }
        let traffic = self.traffic();
        let (app, call, options) = (Arc::clone(&self.app), self.call, options.unwrap_or_default());
        Box::new(Outgoing { app, call, traffic, request, options }.send())
    }

    fn p2_outgoing_body_chunk_size(&mut self) -> usize {
        CHUNK_BYTES
    }

    fn p3_outgoing_body_chunk_size(&mut self) -> usize {
        CHUNK_BYTES
    }
}

fn is_forbidden(name: &http::HeaderName) -> bool {
    *name != http::header::HOST && wasmtime_wasi_http::DEFAULT_FORBIDDEN_HEADERS.contains(name)
}
