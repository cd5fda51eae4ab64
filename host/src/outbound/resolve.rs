//! Names → addresses.

use std::future::Future;
use std::io;
use std::net::{IpAddr, ToSocketAddrs};
use std::pin::Pin;
use std::sync::Arc;

use tokio::sync::Semaphore;

use super::Slot;

/// Look-ups of all apps at the same time: each takes a thread for as long as the system's resolver takes.
const LOOK_UPS_MAX: usize = 64;

pub(super) type Looking = Pin<Box<dyn Future<Output = io::Result<Vec<IpAddr>>> + Send>>;

/// Who looks names up.
pub(super) trait Resolve: Send + Sync {
    /// The app's slot is held until the look-up has really ended, whoever still waits for it.
    fn resolve(&self, name: String, slot: Arc<Slot>) -> Looking;
}

/// The system's resolver: `/etc/hosts`, DNS, or whatever the machine is set up to ask.
pub(super) struct System {
    threads: Arc<Semaphore>,
}

impl Default for System {
    fn default() -> Self {
        Self { threads: Arc::new(Semaphore::new(LOOK_UPS_MAX)) }
    }
}

impl Resolve for System {
    fn resolve(&self, name: String, slot: Arc<Slot>) -> Looking {
        let threads = Arc::clone(&self.threads);
        Box::pin(async move {
            let thread = threads.acquire_owned().await.map_err(io::Error::other)?;
            let looking = tokio::task::spawn_blocking(move || {
                let _held = (thread, slot);
                let found = (name.as_str(), 0).to_socket_addrs()?;
                Ok(found.map(|address| address.ip()).collect())
            });
            looking.await.map_err(io::Error::other)?
        })
    }
}
