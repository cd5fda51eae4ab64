//! All connections, for the one task that looks for clients that are too slow with a request's head. A timer for each request
//! would cost more than all that this does.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::task::AbortHandle;

use super::connection::{Connection, Verdict};

#[derive(Default)]
pub(super) struct Roll(Mutex<Vec<(Arc<Connection>, AbortHandle)>>);

/// How often the roll is called.
const ROLL_CALL: Duration = Duration::from_millis(250);

impl Roll {
    fn connections(&self) -> MutexGuard<'_, Vec<(Arc<Connection>, AbortHandle)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn enter(&self, connection: Arc<Connection>, task: AbortHandle) {
        self.connections().push((connection, task));
    }

    /// Tells who is overdue, cuts off who does not end then, and forgets who has left, again and again.
    pub(super) async fn call(self: Arc<Self>) {
        loop {
            tokio::time::sleep(ROLL_CALL).await;
            let now = Instant::now();
            self.connections().retain(|(connection, task)| {
                match connection.verdict(now) {
                    Verdict::Stay => {}
                    Verdict::Tell => connection.tell_overdue(),
                    Verdict::Leave => connection.leave(),
                    Verdict::Cut => task.abort(),
                }
                !task.is_finished()
            });
        }
    }
}
