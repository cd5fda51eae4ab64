//! A file as a response body: read block by block, as the client takes it, on threads that may block.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::task::JoinHandle;

use super::Block;
use crate::account::{Account, Held};
use crate::admission::Seat;
use crate::error::Error;

/// What is read at once, and so what a slow client has in memory.
const BLOCK_BYTES: u64 = 128 << 10;

/// What is still to come of a file.
pub(crate) struct FileBody {
    file: Arc<File>,
    left: Range<u64>,
    reading: Option<JoinHandle<io::Result<Block>>>,
    account: Arc<Account>,
    /// It counts as being sent until its end, and as open.
    _permits: (Seat, Seat, Held),
}

impl FileBody {
    pub(crate) fn new(file: File, range: Range<u64>, account: &Arc<Account>, permits: (Seat, Seat, Held)) -> Self {
        let account = Arc::clone(account);
        Self { file: Arc::new(file), left: range, reading: None, account, _permits: permits }
    }

    pub(super) fn poll_block(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Block, Error>>> {
        if self.left.is_empty() {
            return Poll::Ready(None);
        }
        let (at, length) = (self.left.start, (self.left.end - self.left.start).min(BLOCK_BYTES));
        let file = &self.file;
        let reading = match &mut self.reading {
            Some(reading) => reading,
            None => {
                let room = match Block::room(length, &self.account) {
                    Ok(room) => room,
                    Err(error) => return Poll::Ready(Some(Err(error))),
                };
                let file = Arc::clone(file);
                self.reading.insert(tokio::task::spawn_blocking(move || {
                    let mut block = vec![0; length as usize];
                    // The file is the host's own and does not change: less than was promised is an error.
                    file.read_exact_at(&mut block, at)?;
                    Ok(Block::within(room, block.into()))
                }))
            }
        };
        let block = ready!(Pin::new(reading).poll(context));
        self.reading = None;
        self.left.start += length;
        let block = block.map_err(io::Error::other).flatten();
        Poll::Ready(Some(block.map_err(|error| Error::Host(format!("a static file: {error}")))))
    }
}
