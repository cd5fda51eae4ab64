//! What a tenant's apps have kept is counted before the first of them can write, whether or not they are there now.

use std::sync::Arc;

use super::load::{Loader, Outcome};
use super::turns::Turns;
use crate::account::Account;

/// Tenants whose files are counted at once. Mostly that waits for the disk, and threads are needed for other things as well.
const AT_ONCE: usize = 32;

/// Turns at counting. Not those of the loader's hands: a key-value file that was not closed in order is repaired, for as long as it is large.
pub(super) fn turns() -> Turns {
    Turns::new(AT_ONCE, 1)
}

impl Loader {
    /// Charges an account with it, once.
    ///
    /// # Errors
    /// If it cannot be counted: as long as nobody knows, nobody writes.
    pub(super) async fn measure(self: &Arc<Self>, account: &Arc<Account>) -> Result<(), Outcome> {
        let mut is_measured = Arc::clone(account.measured()).lock_owned().await;
        if *is_measured {
            return Ok(());
        }
        let (loader, account) = (Arc::clone(self), Arc::clone(account));
        // Not the job's: it goes on where that is cancelled, and the next one waits for its end.
        let task = tokio::spawn(async move {
            let turn = loader.measuring.take(account.tenant()).await;
            let done = loader.under(turn, move |loader| {
                loader.common.stores.measure(&account);
                loader.left.charge(&account).map_err(unmeasured)?;
                *is_measured = true;
                Ok(())
            });
            done.await.map(|_| ())
        });
        task.await.unwrap_or_else(|error| Err(unmeasured(error)))
    }

    /// Counts anew what apps that are gone have left behind, and stores hold, where somebody has no room who may have some by now.
    pub fn recount(self: &Arc<Self>) {
        for account in self.accounts.to_recount() {
            let loader = Arc::clone(self);
            tokio::spawn(async move {
                let turn = loader.measuring.take(account.tenant()).await;
                let done = loader.under(turn, move |loader| {
                    loader.common.stores.measure(&account);
                    loader.left.charge_again(&account);
                    Ok(())
                });
                // What fails was said, and is done again when that is due.
                let _ = done.await;
            });
        }
    }
}

fn unmeasured(error: impl std::fmt::Display) -> Outcome {
    Outcome::Passing(format!("what its tenant keeps cannot be measured: {error}"))
}
