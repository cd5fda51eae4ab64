//! `wsgi.file_wrapper`.

use std::fmt::Write as _;
use std::io::{Cursor, Read, Seek, SeekFrom};

use wasgi::{Body, Environ, FileWrapper, StartResponse};

use crate::{Answer, Query};

/// A file that says when it is closed. Its bytes count up.
struct File {
    environ: Environ,
    bytes: Cursor<Vec<u8>>,
}

impl Drop for File {
    fn drop(&mut self) {
        let _ = writeln!(self.environ.errors(), "closed the file at {}", self.bytes.position());
    }
}

impl Read for File {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        self.bytes.read(buffer)
    }
}

impl Seek for File {
    fn seek(&mut self, to: SeekFrom) -> std::io::Result<u64> {
        self.bytes.seek(to)
    }
}

/// A file of `bytes`, from `offset`, in blocks of `block`; with `promise`, a Content-Length.
pub(crate) fn wrap(environ: Environ, query: &Query, start_response: &StartResponse) -> Answer {
    let bytes = (0..query.number("bytes", 10)).map(|at| (at % 251) as u8).collect();
    let mut file = File { environ, bytes: Cursor::new(bytes) };
    file.seek(SeekFrom::Start(query.number("offset", 0) as u64))?;
    let promise = query.text("promise", "");
    let headers: Vec<(&str, &str)> = if promise.is_empty() { vec![] } else { vec![("Content-Length", &promise)] };
    start_response.call("200 OK", &headers)?;
    let wrapper = FileWrapper::with_block_size(file, query.number("block", 256 << 10))?;
    Ok(Body::from(wrapper))
}
