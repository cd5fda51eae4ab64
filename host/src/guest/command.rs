//! What an operator runs in an app's sandbox: `wasi:cli/run`, with the app's files, data and variables, on the operator's terminal.
//! It is no call: nobody waits for a response, and no clock stops it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{anyhow, bail};
use wasmtime::component::Component;
use wasmtime_wasi::I32Exit;

use super::cgi;
use super::wasi::Process;
use crate::config::AppSpec;
use crate::sandbox::{self, AppContext, Belongings, CallState, Engine, fault};
use crate::telemetry::RequestId;

/// What a command is given.
pub struct Command {
    pub args: Vec<String>,
    /// On top of the app's own variables.
    pub env: Vec<(String, String)>,
}

/// Runs a command to its end, on this process's standard streams. Returns its exit status.
///
/// # Errors
/// If the component has no command, cannot be instantiated, or traps.
pub async fn run(
    engine: &Engine,
    component: &Component,
    spec: &AppSpec,
    own: Belongings,
    command: Command,
) -> anyhow::Result<u8> {
    if component.get_export_index(None, cgi::INTERFACE).is_none() {
        bail!("the app has no command: it does not export {}", cgi::INTERFACE);
    }
    let linked = engine.link(component)?;
    let export = super::exported::<(), cgi::Returned>(&linked, cgi::INTERFACE, "run")?;
    let shelves = engine.shelves(component, &own.images);
    let app = Arc::new(AppContext::new(spec, own));
    // Whoever sits before it ends it.
    let call = Arc::new(CallState::new(RequestId::next(), Instant::now(), Duration::MAX, &app.account));
    let mut store = sandbox::store(linked.engine(), &app, &call);
    let is_new = |(name, _): &(&str, &str)| command.env.iter().all(|(given, _)| given != name);
    let own = app.variables().filter(is_new).map(|(name, value)| (name.to_owned(), value.to_owned()));
    let mut env: Vec<_> = own.collect();
    env.extend(command.env);
    store.data_mut().start(Process {
        args: [vec![app.name.clone()], command.args].concat(),
        env,
        stdin: Box::new(std::io::stdin()),
        stdout: Box::new(std::io::stdout()),
        stderr: Some(Box::new(std::io::stderr())),
    });
    engine.wake_ticker();
    let returned = async {
        let instance = sandbox::instantiate(shelves.as_ref(), &linked, &mut store).await?;
        let run = instance.get_typed_func::<(), cgi::Returned>(&mut store, export)?;
        run.call_async(&mut store, ()).await
    };
    let error = match returned.await {
        Ok((Ok(()),)) => return Ok(0),
        Ok((Err(()),)) => return Ok(1),
        Err(error) => error,
    };
    match error.downcast_ref::<I32Exit>() {
        // What a shell would see of a process.
        Some(I32Exit(status)) => Ok(*status as u8),
        None => Err(anyhow!("{}", fault::classify(error, store.data()))),
    }
}
