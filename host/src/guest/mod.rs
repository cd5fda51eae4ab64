//! The ways of talking to a guest. Which one is chosen once, by what the component exports, when a release is loaded; nothing
//! matches on it again per request.

pub(crate) mod cgi;
pub mod clocks;
pub mod command;
pub(crate) mod descriptors;
pub(crate) mod environ;
pub(crate) mod filesystem;
pub(crate) mod head;
pub(crate) mod http;
pub(crate) mod keyvalue;
pub(crate) mod random;
pub(crate) mod sockets;
mod streams;
pub(crate) mod wasi;
pub(crate) mod wsgi;

#[doc(hidden)]
pub use wsgi::probe;

pub(crate) use environ::client_environ;

use std::sync::Arc;

use ::http::request;
use hyper::body::Incoming;
use wasmtime::component::types::ComponentItem;
use wasmtime::component::{Component, ComponentExportIndex, ComponentNamedList, InstancePre, Lift, Linker, Lower};

use crate::admission::Permit;
use crate::config::{AppSpec, Instances};
use crate::origin::Origin;
use crate::sandbox::task::Task;
use crate::sandbox::{Belongings, CallState, Engine, State, Variant};

/// What a guest speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// `wasgi:gateway/application`
    Wsgi,
    /// `wasi:http`'s handlers
    Http,
    /// `wasi:cli/run`, and core modules with `_start`
    Cgi,
}

impl Kind {
    /// What an app's settings come to for this kind. A program is started once, and the handles of `wasi:http` are not rewound:
    /// where the operator's default for instances does not apply, it is "fresh".
    ///
    /// # Errors
    /// If the app itself asks for what cannot be.
    pub fn settle(self, spec: AppSpec) -> anyhow::Result<AppSpec> {
        match (self, spec.instances) {
            (Self::Cgi, Instances::Reuse(_)) if spec.instances_chosen => anyhow::bail!(
                "instances = \"reuse\" is not for CGI programs: each request starts the program anew; remove it from the sidecar"
            ),
            (Self::Cgi | Self::Http, Instances::Rewind(_)) if spec.instances_chosen => anyhow::bail!(
                "instances = \"rewind\" is for apps that speak WSGI: this one ({self}) can have \"fresh\"{}",
                if self == Self::Http { " or \"reuse\"" } else { "" }
            ),
            (Self::Cgi, _) | (Self::Http, Instances::Rewind(_)) => Ok(AppSpec { instances: Instances::Fresh, ..spec }),
            (Self::Wsgi | Self::Http, _) => Ok(spec),
        }
    }
}

impl std::fmt::Display for Kind {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(match self {
            Self::Wsgi => "wsgi",
            Self::Http => "http",
            Self::Cgi => "cgi",
        })
    }
}

/// One request on its way through a guest.
pub struct Call {
    pub(crate) state: Arc<CallState>,
    pub(crate) parts: Box<request::Parts>,
    /// None where a local redirect made the request.
    pub(crate) body: Option<Incoming>,
    /// The part of the decoded path that led to the app, in bytes: `SCRIPT_NAME`.
    pub(crate) script_name: Vec<u8>,
    /// The rest of it: `PATH_INFO`.
    pub(crate) path_info: Vec<u8>,
    pub(crate) origin: Arc<Origin>,
    /// Kept as long as the sandbox.
    pub(crate) permit: Permit,
}

/// One way of talking to a guest.
pub trait Guest: Send + Sync {
    /// Begins a call. Nothing runs until the task is polled; the sandbox (store, permit, meter) lives as long as it.
    fn call(&self, call: Call) -> Task;

    /// Retires idle instances whose time is over. Called about once a second.
    fn sweep(&self);

    /// Whether its instances should be rewound, and are not since none could be.
    fn gave_up_rewinding(&self) -> bool {
        false
    }
}

/// Offers guests what this host has for them. One linker serves all apps of an engine.
pub(crate) fn link(linker: &mut Linker<State>, variant: Variant) -> wasmtime::Result<()> {
    wasi::link_p2(linker)?;
    clocks::link_p2(linker)?;
    random::link_p2(linker)?;
    filesystem::link_p2(linker)?;
    sockets::link_p2(linker)?;
    http::link_p2(linker)?;
    keyvalue::link(linker)?;
    if variant == Variant::Async {
        wasi::link_p3(linker)?;
        clocks::link_p3(linker)?;
        random::link_p3(linker)?;
        filesystem::link_p3(linker)?;
        descriptors::link_p3(linker)?;
        sockets::link_p3(linker)?;
        http::link_p3(linker)?;
    }
    wsgi::gateway::link(linker)
}

/// Where a component has a function of an interface that it exports, whatever patch of the version it names.
///
/// # Errors
/// If it has none, or one of another type than the interface's: otherwise that would come out with the first request only.
pub(crate) fn exported<P, R>(
    linked: &InstancePre<State>,
    interface: &str,
    name: &str,
) -> anyhow::Result<ComponentExportIndex>
where
    P: ComponentNamedList + Lower,
    R: ComponentNamedList + Lift,
{
    let component = linked.component();
    let found = component.get_export_index(None, interface);
    match found.and_then(|found| component.get_export(Some(&found), name)) {
        Some((ComponentItem::ComponentFunc(function), index)) => {
            // As the bindings that wasmtime generates do it, which cannot tell apart functions of an interface.
            function.typecheck::<P, R>(&linked.instance_type()).map_err(|error| {
                anyhow::anyhow!(
                    "its {interface} has a function {name} of another type: {error:#}; build it against that interface as published"
                )
            })?;
            Ok(index)
        }
        Some(_) => anyhow::bail!("its {interface} has something called {name} that is no function"),
        None => anyhow::bail!("it does not export {interface} with a function {name}"),
    }
}

/// Makes a loaded component of this kind callable: links what it imports.
///
/// # Errors
/// Says which import or export does not fit, in words for the operator.
pub fn load(
    engine: &Arc<Engine>,
    kind: Kind,
    component: &Component,
    spec: &AppSpec,
    own: Belongings,
) -> anyhow::Result<Box<dyn Guest>> {
    Ok(match kind {
        Kind::Wsgi => Box::new(wsgi::Wsgi::load(engine, component, spec, own)?),
        Kind::Http => http::load(engine, component, spec, own)?,
        Kind::Cgi => Box::new(cgi::Cgi::load(engine, component, spec, own)?),
    })
}
