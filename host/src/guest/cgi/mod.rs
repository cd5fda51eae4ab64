//! Guests that are WASI commands: CGI programs (RFC 3875). A call is one run of the program, with the request in its
//! environment and on its standard input, and the response on its standard output.
//!
//! [`request`] and [`response`] know CGI's grammar, [`stdin`] and [`stdout`] stream.

pub(crate) mod request;
pub(crate) mod response;
mod stdin;
mod stdout;

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Instant;

use bytes::BytesMut;
use wasmtime::Store;
use wasmtime::component::{Component, ComponentExportIndex, Instance, TypedFunc};
use wasmtime_wasi::I32Exit;

use self::response::Form;
use self::stdin::Stdin;
use self::stdout::{Ended, Stdout};
use crate::body::{Block, RequestBody};
use crate::config::AppSpec;
use crate::error::{Busy, Error};
use crate::guest::environ::{Constant, EnvironBlock, Place};
use crate::guest::head::HeadError;
use crate::guest::wasi::Process;
use crate::guest::{self, Call, Guest};
use crate::sandbox::supply::{self, Entry, Supply};
use crate::sandbox::task::{Finished, Task, Whole};
use crate::sandbox::{Belongings, CallState, Engine, State, fault};
use crate::telemetry::printable;

pub(super) const INTERFACE: &str = "wasi:cli/run@0.2.0";

/// An app that is a CGI program.
pub(crate) struct Cgi {
    shared: Arc<Shared>,
}

struct Shared {
    supply: Arc<Supply<Run>>,
    /// The variables that are the same for all requests.
    environ: Constant,
    form: Form,
}

/// Where a component has its `main`.
struct Run(ComponentExportIndex);

/// What `run` returns.
pub(super) type Returned = (Result<(), ()>,);

type RunFunction = TypedFunc<(), Returned>;
type Sandbox = supply::Sandbox<RunFunction>;

impl Entry for Run {
    type Functions = RunFunction;

    fn find(&self, store: &mut Store<State>, instance: &Instance) -> wasmtime::Result<RunFunction> {
        instance.get_typed_func(store, self.0)
    }
}

/// What is logged of a Location that leads nowhere.
const LOCATION_BYTES_MAX: usize = 1 << 10;

/// How a program ended by itself.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Exit {
    Success,
    Failure,
}

impl Cgi {
    pub(crate) fn load(
        engine: &Arc<Engine>,
        component: &Component,
        spec: &AppSpec,
        own: Belongings,
    ) -> anyhow::Result<Self> {
        let linked = engine.link(component)?;
        let run = guest::exported::<(), Returned>(&linked, INTERFACE, "run")?;
        let supply = Supply::new(engine, linked, Run(run), spec, own);
        debug_assert!(supply.is_fresh(), "the settings were settled for this kind");
        let environ = Constant::new(supply.app.variables());
        Ok(Self { shared: Arc::new(Shared { supply, environ, form: Form::of(&spec.name) }) })
    }
}

impl Guest for Cgi {
    fn call(&self, call: Call) -> Task {
        let shared = Arc::clone(&self.shared);
        let limits = &self.shared.supply.app.limits;
        Task::new(Arc::clone(&call.state), limits, async move { shared.serve(call).await })
    }

    fn sweep(&self) {
        self.shared.supply.sweep();
    }
}

impl Shared {
    /// One run, in a sandbox of its own: a program may be started once.
    async fn serve(&self, mut call: Call) -> Result<Finished, Error> {
        self.supply.engine.wake_ticker();
        // Before there is a sandbox: none waits for a client that sends slowly.
        let body = RequestBody::open(call.body.take(), &self.supply.app, &call.state).await?;
        let env = self.variables(&call, &body);
        let args = request::arguments(&self.supply.app.name, &call.parts);
        let Call { state, parts, permit, .. } = call;
        state.witness.keep_head(parts);
        let mut sandbox = self.supply.open(&state).await?;
        let stdout = Stdout::new(&self.supply.app, &state, self.form);
        sandbox.store.data_mut().start(Process {
            args,
            env,
            stdin: Box::new(Stdin::new(body, &state)),
            stdout: Box::new(stdout.clone()),
            stderr: None,
        });
        let exit = run(&mut sandbox, &stdout, &state).await;
        if exit.is_ok() {
            self.supply.keep(sandbox);
        }
        let answered = self.answer(&state, exit, stdout.end()).await;
        answered.map(|finished| finished.holding(permit)).map_err(|error| state.clients_fault().unwrap_or(error))
    }

    fn variables(&self, call: &Call, body: &RequestBody) -> Vec<(String, String)> {
        let place = Place {
            script_name: &call.script_name,
            path_info: &call.path_info,
            origin: &call.origin,
            spooled_bytes: body.spooled_bytes(),
        };
        request::variables(&EnvironBlock::of_request(&self.environ, &call.parts, &place), &call.parts)
    }

    /// What the end of the program makes of what it said.
    async fn answer(
        &self,
        call: &CallState,
        exit: Result<Exit, Error>,
        ended: Result<Ended, HeadError>,
    ) -> Result<Finished, Error> {
        let (exit, ended) = match (exit, ended) {
            (Ok(exit), Ok(ended)) => (exit, ended),
            (Ok(exit), Err(error)) => return Err(no_response(exit, error)),
            (Err(fault), ended) => {
                // What it said before belongs to the client, who learns by the connection's end that it was not all.
                if let Ok(Ended::Rest(rest)) = ended {
                    hand_over(call, rest).await?;
                }
                return Err(fault);
            }
        };
        if exit == Exit::Failure && call.account().may_report(0, Instant::now()) {
            let (app, request) = (self.supply.app.name.as_str(), call.id);
            tracing::warn!(target: "wasgi::request", %request, app, "after its response head, the program failed (exit status)");
        }
        match ended {
            Ended::Whole(head, rest) => {
                let blocks = if rest.is_empty() { Vec::new() } else { vec![Block::buffered(rest, call)?] };
                Ok(Finished::Whole(Whole { head, blocks }))
            }
            Ended::Rest(rest) => {
                hand_over(call, rest).await?;
                Ok(Finished::Streamed)
            }
            Ended::LocalRedirect(location) => match redirected(call, &location) {
                Some(again) => Ok(Finished::Redirect(Box::new(again))),
                None => {
                    let location = printable(&location, LOCATION_BYTES_MAX);
                    let location = self.supply.app.log.charged(location);
                    Err(Error::CgiResponse(format!("Location: {location} is no path")))
                }
            },
        }
    }
}

/// The request that a local redirect makes of the call's.
fn redirected(call: &CallState, location: &str) -> Option<http::request::Parts> {
    let parts = call.witness.take_head()?;
    let again = request::redirected(&parts, location);
    call.witness.keep_head(parts);
    again
}

/// Runs the program to its end.
async fn run(sandbox: &mut Sandbox, stdout: &Stdout, call: &CallState) -> Result<Exit, Error> {
    let Sandbox { store, functions: run, .. } = sandbox;
    // An interruption while the instance was made says nothing about the run.
    call.was_interrupted();
    let returned = {
        let mut running = pin!(run.call_async(&mut *store, ()));
        poll_fn(|context| {
            // If it still waits for its input, it will say so again.
            call.input_unwatched();
            let polled = running.as_mut().poll(context);
            if polled.is_pending() {
                stdout.program_pauses();
            }
            // What it has said cannot be kept for its client: it need not go on.
            if stdout.is_refused() { Poll::Ready(None) } else { polled.map(Some) }
        })
        .await
    };
    let error = match returned {
        None => return Err(Error::Busy(Busy::TenantsMemory)),
        Some(Ok((Ok(()),))) => return Ok(Exit::Success),
        Some(Ok((Err(()),))) => return Ok(Exit::Failure),
        Some(Err(error)) => error,
    };
    match error.downcast_ref::<I32Exit>() {
        Some(I32Exit(0)) => Ok(Exit::Success),
        Some(I32Exit(_)) => Ok(Exit::Failure),
        None => Err(fault::classify(error, store.data())),
    }
}

async fn hand_over(call: &CallState, rest: BytesMut) -> Result<(), Error> {
    if !rest.is_empty() {
        call.hand_over(Block::buffered(rest, call)?).await;
    }
    Ok(())
}

fn no_response(exit: Exit, error: HeadError) -> Error {
    match (exit, error) {
        (Exit::Success, HeadError::TooLarge(why)) => Error::ResponseHead(why),
        (Exit::Success, error) => Error::CgiResponse(error.to_string()),
        (Exit::Failure, error) => Error::CgiResponse(format!("it failed (exit status); {error}")),
    }
}
