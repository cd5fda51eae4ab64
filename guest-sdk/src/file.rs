//! `wsgi.file_wrapper`: a file as a response.

use alloc::boxed::Box;
use alloc::vec::Vec;
use std::io::{Read, Seek, SeekFrom};

use crate::body::{Body, Iterable};
use crate::error::{Error, Result};

/// PEP 3333's `wsgi.file_wrapper(filelike, block_size)`: the returned iterable that stands for a file, from where it stands
/// to its end.
///
/// ```
/// use std::io::{Cursor, Seek, SeekFrom};
/// use wasgi::{Body, Environ, FileWrapper, StartResponse};
///
/// fn app(_environ: Environ, start_response: StartResponse) -> wasgi::Result<FileWrapper> {
///     let mut file = Cursor::new(include_bytes!("../Cargo.toml"));
///     file.seek(SeekFrom::Start(10))?;
///     start_response.call("200 OK", &[("Content-Type", "text/plain")])?;
///     Ok(FileWrapper::new(file)?)
/// }
/// ```
///
/// What is faster than [`Body::stream`]: the length is known, so the response has a `Content-Length` (unless the application
/// gave a smaller one, which counts) instead of chunks; a file of one block is a whole response in one call of the
/// guest; blocks are large, and are not zeroed before they are read into. Every byte is copied twice, as in any other
/// body: from the file into the block, and out of the sandbox. There is no `sendfile`: the contract has no way to pass the host
/// a file, be it one of a directory that the app was granted.
///
/// The file is closed (dropped) once: after its last block, when the client is gone, or with its instance.
pub struct FileWrapper(Box<dyn Blocks>);

/// What one call of the guest hands over, where nothing else was asked for.
const BLOCK_BYTES: usize = 256 * 1024;

impl FileWrapper {
    /// The rest of a file, from its current offset.
    ///
    /// # Errors
    /// Where the file cannot be asked for its length.
    pub fn new(file: impl Read + Seek + 'static) -> std::io::Result<FileWrapper> {
        FileWrapper::with_block_size(file, BLOCK_BYTES)
    }

    /// The same in blocks of `bytes`: what one call of the guest hands over, and so what it holds in memory.
    ///
    /// # Errors
    /// Where the file cannot be asked for its length.
    pub fn with_block_size(mut file: impl Read + Seek + 'static, bytes: usize) -> std::io::Result<FileWrapper> {
        let offset = file.stream_position()?;
        let end = file.seek(SeekFrom::End(0))?;
        file.seek(SeekFrom::Start(offset))?;
        let left = end.saturating_sub(offset);
        Ok(FileWrapper(Box::new(Rest { file, block_bytes: bytes.max(1), left })))
    }

    /// How many bytes it will give.
    pub fn bytes(&self) -> u64 {
        self.0.left()
    }
}

/// A file, of whatever type.
pub(crate) trait Blocks: Iterator<Item = Result<Vec<u8>>> {
    /// How many bytes are to come.
    fn left(&self) -> u64;

    /// Gives no more than this many.
    fn limit(&mut self, bytes: u64);
}

struct Rest<F> {
    file: F,
    block_bytes: usize,
    left: u64,
}

impl<F: Read> Blocks for Rest<F> {
    fn left(&self) -> u64 {
        self.left
    }

    fn limit(&mut self, bytes: u64) {
        self.left = self.left.min(bytes);
    }
}

impl<F: Read> Iterator for Rest<F> {
    type Item = Result<Vec<u8>>;

    fn next(&mut self) -> Option<Result<Vec<u8>>> {
        if self.left == 0 {
            return None;
        }
        let bytes = usize::try_from(self.left).unwrap_or(usize::MAX).min(self.block_bytes);
        let mut block = Vec::with_capacity(bytes);
        // Unlike `read` into a slice, this reads into memory that nobody had to zero.
        match (&mut self.file).take(bytes as u64).read_to_end(&mut block) {
            // The file has become shorter meanwhile. The host sees that something is missing, and breaks off.
            Ok(0) => self.left = 0,
            Ok(read) => self.left -= read as u64,
            Err(error) => {
                self.left = 0;
                return Some(Err(Error::from(error)));
            }
        }
        (!block.is_empty()).then_some(Ok(block))
    }
}

impl From<FileWrapper> for Body {
    fn from(FileWrapper(blocks): FileWrapper) -> Body {
        Body(Iterable::File(blocks))
    }
}

/// The iterable itself, for code that goes on with the blocks.
impl Iterator for FileWrapper {
    type Item = Result<Vec<u8>>;

    fn next(&mut self) -> Option<Result<Vec<u8>>> {
        self.0.next()
    }
}
