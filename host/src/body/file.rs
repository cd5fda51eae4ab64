//! A file as a response body: read block by block, as the client takes it, on threads that may block.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use tokio::sync::OwnedSemaphorePermit;
use tokio::task::JoinHandle;

use crate::account::Held;

/// What is read at once, and so what a slow client has in memory.
const BLOCK_BYTES: u64 = 128 << 10;

/// What is still to come of a file.
pub(crate) struct FileBody {
    file: Arc<File>,
    left: Range<u64>,
    reading: Option<JoinHandle<io::Result<Bytes>>>,
    /// It counts as being sent until its end, and as open.
    _permits: (OwnedSemaphorePermit, Held),
}

impl FileBody {
    pub(crate) fn new(file: File, range: Range<u64>, permits: (OwnedSemaphorePermit, Held)) -> Self {
        Self { file: Arc::new(file), left: range, reading: None, _permits: permits }
    }

    pub(super) fn poll_block(&mut self, context: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        if self.left.is_empty() {
            return Poll::Ready(None);
        }
        let (at, length) = (self.left.start, (self.left.end - self.left.start).min(BLOCK_BYTES));
        let file = &self.file;
        let reading = self.reading.get_or_insert_with(|| {
            let file = Arc::clone(file);
            tokio::task::spawn_blocking(move || {
                let mut block = vec![0; length as usize];
                // The file is the host's own and does not change: less than was promised is an error.
                file.read_exact_at(&mut block, at)?;
                Ok(block.into())
            })
        });
        let block = ready!(Pin::new(reading).poll(context));
        self.reading = None;
        self.left.start += length;
        Poll::Ready(Some(block.map_err(io::Error::other).flatten()))
    }
}
