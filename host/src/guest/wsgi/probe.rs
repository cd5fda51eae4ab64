//! A call taken apart into its steps, with a clock between them: for `make bench`, not an interface. It takes the very
//! functions that serve requests, and leaves out what happens around them (connection, admission, log).

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::anyhow;
use http::request::Parts;
use wasmtime::component::Component;

use super::{EnvironBlock, Exchange, Failure, Place, Sandbox, Shared, Wsgi};
use crate::bundle::Manifest;
use crate::config::Config;
use crate::deploy::{Prepared, images};
use crate::origin::Origin;
use crate::sandbox::{self, Belongings, CallState, Engine, Variant};
use crate::telemetry::RequestId;

/// An app that is called again and again with the same request, each time in a fresh sandbox.
pub struct Probe {
    shared: Arc<Shared>,
    parts: Parts,
    origin: Arc<Origin>,
}

/// How long each step took.
#[derive(Default)]
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
    pub fn load(config: &Config, variant: Variant, prepared: &Prepared<'_>) -> anyhow::Result<Self> {
        let engine = Arc::new(Engine::new(config)?);
        let component = Component::new(engine.wasmtime(variant)?, &prepared.component);
        let component = component.map_err(|error| anyhow!("{error:#}"))?;
        let spec = config.app_spec("probe", None, &Manifest::default())?;
        let own = Belongings::of_nobody(config, &spec, images::of_contents(&prepared.contents)?)?;
        let Wsgi { shared } = Wsgi::load(&engine, &component, &spec, own)?;
        let (parts, ()) = http::Request::get("/probe").header("host", "127.0.0.1:8000").body(())?.into_parts();
        let origin = Origin::of_connection(None, None, false);
        Ok(Self { shared, parts, origin })
    }

    /// So many calls: their sandboxes are made, then called, then thrown away, as a host does for an app that is called often.
    /// The steps are those of all of them.
    ///
    /// # Errors
    /// Where the app fails.
    pub async fn calls(&self, count: usize) -> anyhow::Result<Steps> {
        let shared = &self.shared;
        let supply = &shared.supply;
        let mut steps = Steps::default();
        supply.engine.wake_ticker();
        let mut sandboxes = Vec::with_capacity(count);
        for _ in 0..count {
            let began = Instant::now();
            let call = CallState::new(RequestId::next(), began, supply.app.limits.cpu_time, &supply.app.account);
            let call = Arc::new(call);
            let mut store = sandbox::store(supply.linked.engine(), &supply.app, &call);
            let stored = Instant::now();
            let failed = |error: wasmtime::Error| anyhow!("{error:#}");
            let instance = sandbox::instantiate(supply.shelves(), &supply.linked, &mut store).await.map_err(failed)?;
            let function = instance.get_typed_func(&mut store, supply.entry.call).map_err(failed)?;
            sandboxes.push((Sandbox::new(store, instance, function), call));
            steps.store += stored - began;
            steps.instantiate += stored.elapsed();
        }
        for (sandbox, call) in &mut sandboxes {
            let began = Instant::now();
            let environ = self.environ();
            let packed = Instant::now();
            call.poll_begins();
            let answer = Exchange { shared, sandbox, call }.run((environ, false, true, true)).await;
            call.poll_ends();
            steps.environ += packed - began;
            steps.call += packed.elapsed();
            if let Err(Failure::App(error) | Failure::Sandbox(error)) = answer {
                return Err(error.into());
            }
        }
        let called = Instant::now();
        drop(sandboxes);
        steps.drop = called.elapsed();
        Ok(steps)
    }

    fn environ(&self) -> Vec<u8> {
        let place = Place { script_name: b"/probe", path_info: b"", origin: &self.origin, spooled_bytes: None };
        EnvironBlock::of_request(&self.shared.environ, &self.parts, &place).into_bytes()
    }
}
