//! The ways of talking to a guest. Which one is chosen once, by what the component exports, when a release is loaded; nothing
//! matches on it again per request.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use crate::body::ResponseBody;
use crate::config::AppSpec;
use crate::error::Error;
use crate::sandbox::Engine;
use crate::telemetry::AppLog;

pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// What a guest speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// `wasgi:gateway/application`
    Wsgi,
}

/// One request on its way through a guest.
pub struct Call {
    pub request: http::Request<hyper::body::Incoming>,
}

/// One way of talking to a guest.
pub trait Guest: Send + Sync {
    /// Resolves once status and headers are committed. The body streams on, and the sandbox (store, permit, meter)
    /// lives exactly as long as the body does.
    fn call(&self, call: Call) -> BoxFuture<'_, Result<http::Response<ResponseBody>, Error>>;

    /// Retires idle instances whose time is over. Called about once a second.
    fn sweep(&self);
}

/// Makes a loaded component callable: picks the kind by what it exports, links what it imports.
///
/// # Errors
/// Says which import or export does not fit, in words for the operator.
pub fn load(_engine: &Engine, _component: &wasmtime::component::Component, _spec: &AppSpec, _log: Arc<AppLog>) -> anyhow::Result<Box<dyn Guest>> {
    anyhow::bail!("not yet")
}
