//! A request body of unknown length, kept until its end is there: in memory while it is small, then in a file without a name.
//!
//! What is held per request is bounded: [`MEMORY_BYTES`] of memory, and on disk what `request_body_size` lets through, which
//! [`RequestBody`](super::RequestBody) sees to. A call that spools has its permit, so an app has no more of them than
//! `concurrent_calls`.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};

use crate::account::{Account, Held};

/// A larger body goes to the file, in pieces of this size.
const MEMORY_BYTES: usize = 256 << 10;

/// How much is read from the file at once.
const READ_BYTES: u64 = 256 << 10;

/// Takes a body piece by piece.
#[derive(Default)]
pub(super) struct Spool {
    /// What is not in the file.
    memory: BytesMut,
    file: Option<(Arc<File>, Held)>,
    /// What is in the file.
    filed: u64,
}

/// A body that is there to its end.
pub(super) enum Spooled {
    Memory(Bytes),
    File(SpoolFile),
}

/// Read from its beginning to its end, once. The file is gone with the last handle, also where the host is killed.
pub(super) struct SpoolFile {
    file: Arc<File>,
    _held: Held,
    at: u64,
    end: u64,
    reading: Option<Reading>,
}

/// The piece under way.
type Reading = Pin<Box<dyn Future<Output = io::Result<Vec<u8>>> + Send>>;

impl Spool {
    /// Keeps a piece; the file, if there has to be one, is in `directory`, and open for the account's tenant.
    pub(super) async fn push(&mut self, piece: &[u8], directory: &Path, account: &Arc<Account>) -> Result<(), Unkept> {
        if !self.memory.is_empty() && self.memory.len() + piece.len() > MEMORY_BYTES {
            self.write_out(directory, account).await?;
        }
        self.memory.extend_from_slice(piece);
        Ok(())
    }

    /// The whole of it.
    pub(super) async fn finish(mut self, directory: &Path, account: &Arc<Account>) -> Result<Spooled, Unkept> {
        if self.file.is_none() {
            return Ok(Spooled::Memory(self.memory.freeze()));
        }
        self.write_out(directory, account).await?;
        let Self { file, filed, .. } = self;
        let (file, held) = file.ok_or_else(|| io::Error::other("nothing was written"))?;
        Ok(Spooled::File(SpoolFile { file, _held: held, at: 0, end: filed, reading: None }))
    }

    async fn write_out(&mut self, directory: &Path, account: &Arc<Account>) -> Result<(), Unkept> {
        let (file, held) = match self.file.take() {
            Some((file, held)) => (Some(file), held),
            None => (None, account.take_descriptors(1).ok_or(Unkept::Descriptors)?),
        };
        let block = self.memory.split().freeze();
        let (at, bytes, directory) = (self.filed, block.len() as u64, directory.to_owned());
        let file = off_the_worker(move || {
            let file = match file {
                Some(file) => file,
                // The kernel makes it without a name (O_TMPFILE), where the file system can.
                None => Arc::new(tempfile::tempfile_in(directory)?),
            };
            file.write_all_at(&block, at)?;
            Ok(file)
        })
        .await?;
        self.file = Some((file, held));
        self.filed += bytes;
        Ok(())
    }
}

/// Why a piece is not kept.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unkept {
    #[error("its tenant has as many files open as it may")]
    Descriptors,
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl SpoolFile {
    /// The next piece; empty at the end.
    pub(super) fn poll_read(&mut self, context: &mut Context<'_>) -> Poll<io::Result<Bytes>> {
        let (at, bytes) = (self.at, (self.end - self.at).min(READ_BYTES));
        if bytes == 0 {
            return Poll::Ready(Ok(Bytes::new()));
        }
        let reading = self.reading.get_or_insert_with(|| {
            let file = Arc::clone(&self.file);
            Box::pin(off_the_worker(move || {
                let mut block = vec![0; bytes as usize];
                file.read_exact_at(&mut block, at)?;
                Ok(block)
            }))
        });
        let block = ready!(reading.as_mut().poll(context));
        self.reading = None;
        self.at += bytes;
        Poll::Ready(block.map(Bytes::from))
    }
}

/// A disk may take its time, and nothing else would run on the worker's thread meanwhile.
async fn off_the_worker<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| Err(io::Error::other(error)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;

    async fn check(pieces: &[usize], in_file: bool) {
        let directory = tempfile::tempdir().unwrap();
        let (mut spool, account) = (Spool::default(), Account::of_nobody());
        let mut expected = Vec::new();
        for (index, bytes) in pieces.iter().enumerate() {
            let piece: Vec<u8> = (0..*bytes).map(|at| (at * 7 + index) as u8).collect();
            expected.extend_from_slice(&piece);
            spool.push(&piece, directory.path(), &account).await.unwrap();
            assert!(spool.memory.len() <= MEMORY_BYTES.max(*bytes), "{} bytes in memory", spool.memory.len());
        }
        let mut got = Vec::new();
        match spool.finish(directory.path(), &account).await.unwrap() {
            Spooled::Memory(bytes) => {
                assert!(!in_file);
                got.extend_from_slice(&bytes);
            }
            Spooled::File(mut file) => {
                assert!(in_file);
                assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0, "the file has no name");
                while let block @ 1.. = poll_fn(|context| file.poll_read(context))
                    .await
                    .map(|block| (got.extend_from_slice(&block), block.len()).1)
                    .unwrap()
                {
                    assert!(block as u64 <= READ_BYTES);
                }
            }
        }
        assert!(got == expected, "{} bytes of {}", got.len(), expected.len());
    }

    #[tokio::test]
    async fn what_goes_in_comes_out() {
        check(&[], false).await;
        check(&[1, 2, 3], false).await;
        check(&[MEMORY_BYTES], false).await;
        check(&[MEMORY_BYTES, 1], true).await;
        check(&[100_000; 20], true).await;
        check(&[2 * MEMORY_BYTES, 5], true).await;
    }
}
