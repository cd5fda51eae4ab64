//! The right to a connection, and its end.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::policy::Target;
use super::{Outbound, Slot, is_own};

/// The right to a connection.
pub(crate) struct Lease {
    pub(crate) bounds: Bounds,
    /// Its place among those that the app may have, and its tenant: kept until the socket is closed.
    pub(crate) slot: Arc<Slot>,
}

/// How long a connection may be, and as long as what is granted.
pub(crate) struct Bounds {
    outbound: Arc<Outbound>,
    target: Target,
    address: IpAddr,
    deadline: Instant,
}

/// Why a connection has to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Ended {
    #[error("more than limits.outbound_time = {0:?}")]
    Time(Duration),
    #[error("its grant was taken away")]
    Revoked,
}

impl Lease {
    pub(super) fn new(
        outbound: &Arc<Outbound>,
        target: Target,
        address: IpAddr,
        deadline: Instant,
        slot: Arc<Slot>,
    ) -> Self {
        Self { bounds: Bounds { outbound: Arc::clone(outbound), target, address, deadline }, slot }
    }
}

impl Bounds {
    /// Resolves when the connection has to end.
    pub(crate) async fn ended(self) -> Ended {
        let over = tokio::time::sleep_until(self.deadline.into());
        let revoked = async {
            let mut granted = self.outbound.network.granted.subscribe();
            // The grant may be gone since it was looked at.
            while self.is_granted() {
                // The sender lives as long as the network, which the app's way out holds.
                if granted.changed().await.is_err() {
                    std::future::pending::<()>().await;
                }
            }
        };
        tokio::select! {
            () = over => Ended::Time(self.outbound.time),
            () = revoked => Ended::Revoked,
        }
    }

    fn is_granted(&self) -> bool {
        let rights = self.outbound.rights();
        rights.may_ask(&self.target).is_ok()
            && rights.may_reach(&self.target, self.address, is_own(self.address)).is_ok()
    }
}
