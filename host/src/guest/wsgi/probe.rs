//! A call taken apart into its steps, with a clock between them: for `make bench`, not an interface. It takes the very
//! functions that serve requests, and leaves out what happens around them (connection, admission, log).

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::anyhow;
use http::request::Parts;
use wasmtime::component::Component;

use super::{EnvironBlock, Exchange, Failure, Place, Sandbox, Shared, Wsgi};
use crate::account::Account;
use crate::bundle::Manifest;
use crate::config::Config;
use crate::origin::Origin;
use crate::sandbox::{self, Belongings, CallState, Engine, Variant};
use crate::telemetry::{AppLog, RequestId};

/// An app that is called again and again with the same request, each time in a fresh sandbox.
pub struct Probe {
    shared: Arc<Shared>,
    parts: Parts,
    origin: Arc<Origin>,
}

/// How long each step of one call took.
pub struct Steps {
    /// The request as an environ block.
    pub environ: Duration,
    /// The store, with its limits.
    pub store: Duration,
    /// The instance in it.
    pub instantiate: Duration,
    /// The application, until its response is there.
    pub call: Duration,
    /// The sandbox, thrown away.
    pub drop: Duration,
}

impl Probe {
    /// Compiles and loads a component as a host with this configuration would.
    ///
    /// # Errors
    /// Where the component would not deploy.
    pub fn load(config: &Config, wasm: &[u8]) -> anyhow::Result<Self> {
        let engine = Arc::new(Engine::new(config)?);
        let component = Component::new(engine.wasmtime(Variant::Sync)?, wasm).map_err(|error| anyhow!("{error:#}"))?;
        let spec = config.app_spec("probe", None, &Manifest::default())?;
        let account = Account::of_nobody();
        let log = Arc::new(AppLog::new(&spec.name, &spec.limits, &account));
        let Wsgi { shared } = Wsgi::load(
            &engine,
            &component,
            &spec,
            Belongings {
                log,
                files: None,
                data: None,
                directories: Arc::default(),
                secrets: Arc::default(),
                account,
                outbound: None,
                keyvalue: None,
            },
        )?;
        let (parts, ()) = http::Request::get("/probe").header("host", "127.0.0.1:8000").body(())?.into_parts();
        let origin = Origin::of_connection(None, None, false);
        Ok(Self { shared, parts, origin })
    }

    /// One call.
    ///
    /// # Errors
    /// Where the app fails.
    pub async fn call(&self) -> anyhow::Result<Steps> {
        let shared = &self.shared;
        shared.supply.engine.wake_ticker();
        let began = Instant::now();
        let call = Arc::new(CallState::new(
            RequestId::next(),
            began,
            shared.supply.app.limits.cpu_time,
            &shared.supply.app.account,
        ));
        let environ = self.environ();
        let packed = Instant::now();
        let mut store = sandbox::store(shared.supply.linked.engine(), &shared.supply.app, &call);
        let stored = Instant::now();
        let failed = |error: wasmtime::Error| anyhow!("{error:#}");
        let instance = shared.supply.linked.instantiate_async(&mut store).await.map_err(failed)?;
        let function = instance.get_typed_func(&mut store, shared.supply.entry.call).map_err(failed)?;
        let mut sandbox = Sandbox::new(store, instance, function);
        let instantiated = Instant::now();
        call.poll_begins();
        let exchange = Exchange { shared, sandbox: &mut sandbox, call: &call };
        let answer = exchange.run((environ, false, true, true)).await;
        call.poll_ends();
        let called = Instant::now();
        drop(sandbox);
        let dropped = Instant::now();
        match answer {
            Ok(_) => Ok(Steps {
                environ: packed - began,
                store: stored - packed,
                instantiate: instantiated - stored,
                call: called - instantiated,
                drop: dropped - called,
            }),
            Err(Failure::App(error) | Failure::Sandbox(error)) => Err(error.into()),
        }
    }

    fn environ(&self) -> Vec<u8> {
        let place = Place { script_name: b"/probe", path_info: b"", origin: &self.origin, spooled_bytes: None };
        EnvironBlock::of_request(&self.shared.environ, &self.parts, &place).into_bytes()
    }
}
