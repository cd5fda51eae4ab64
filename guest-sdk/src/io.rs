//! `wsgi.input` and `wsgi.errors`.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use crate::error::StreamError;
use crate::host;

/// `wsgi.input`: the request body, decoded from any transfer coding. With `std` it is a [`std::io::Read`].
///
/// It keeps no buffer, so that a part may be read here and the rest through another handle; each read is a call of the
/// host. For many small reads wrap it in a [`std::io::BufReader`].
pub struct Input(host::Input);

impl Input {
    pub(crate) fn current() -> Input {
        Input(host::Input::current())
    }

    /// `read(size)`: at most `bytes_max` bytes, waiting until at least one is there. Empty means the end, now and ever
    /// after. The host may give fewer bytes than asked for.
    pub fn read_block(&mut self, bytes_max: usize) -> Result<Vec<u8>, StreamError> {
        self.0.read(clamp(bytes_max))
    }

    /// `readline(size)`: the bytes up to and with the next `\n`, at most `bytes_max` of them; the rest of a longer line
    /// is left for the next read. Empty means the end.
    pub fn readline(&mut self, bytes_max: usize) -> Result<Vec<u8>, StreamError> {
        let mut line = self.0.readline(clamp(bytes_max))?;
        // The host gives a long line in pieces.
        while !line.is_empty() && line.len() < bytes_max && line.last() != Some(&b'\n') {
            let piece = self.0.readline(clamp(bytes_max - line.len()))?;
            if piece.is_empty() {
                break;
            }
            line.extend_from_slice(&piece);
        }
        Ok(line)
    }

    /// `readlines(hint)`: lines until they are `bytes_hint` bytes together, or until the end; 0 means until the end.
    pub fn readlines(&mut self, bytes_hint: usize) -> Result<Vec<Vec<u8>>, StreamError> {
        let (mut lines, mut bytes) = (Vec::new(), 0);
        for line in self.lines() {
            let line = line?;
            bytes += line.len();
            lines.push(line);
            if bytes_hint > 0 && bytes >= bytes_hint {
                break;
            }
        }
        Ok(lines)
    }

    /// Iteration: line by line until the end, each with its `\n`. A line is as long as the client makes it.
    pub fn lines(&mut self) -> impl Iterator<Item = Result<Vec<u8>, StreamError>> {
        core::iter::from_fn(|| match self.readline(usize::MAX) {
            Ok(line) if line.is_empty() => None,
            line => Some(line),
        })
    }
}

fn clamp(bytes: usize) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX)
}

#[cfg(feature = "std")]
impl std::io::Read for Input {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let block = self.read_block(buffer.len())?;
        buffer[..block.len()].copy_from_slice(&block);
        Ok(block.len())
    }
}

/// `wsgi.errors`: lines of text for the application's log. Writing never fails; text beyond the application's log
/// limits is dropped and counted by the host.
///
/// Text is handed over line by line, and the rest when this is flushed or dropped.
pub struct Errors {
    host: host::Errors,
    line: Vec<u8>,
}

/// A line longer than this is handed over in pieces.
const LINE_BYTES_MAX: usize = 8 * 1024;

impl Errors {
    pub(crate) fn current() -> Errors {
        Errors { host: host::Errors::current(), line: Vec::new() }
    }

    /// `flush()`: hands over what is there, and ends the line.
    pub fn flush(&mut self) {
        self.hand_over(self.line.len());
        self.host.flush();
    }

    /// `writelines(seq)`: one after the other, as they are.
    pub fn writelines<T: AsRef<str>>(&mut self, texts: impl IntoIterator<Item = T>) {
        texts.into_iter().for_each(|text| self.push(text.as_ref().as_bytes()));
    }

    fn push(&mut self, bytes: &[u8]) {
        self.line.extend_from_slice(bytes);
        if let Some(end) = self.line.iter().rposition(|byte| *byte == b'\n') {
            self.hand_over(end + 1);
        } else if self.line.len() > LINE_BYTES_MAX {
            self.hand_over(self.line.len());
        }
    }

    fn hand_over(&mut self, bytes: usize) {
        if bytes > 0 {
            self.host.write(&String::from_utf8_lossy(&self.line[..bytes]));
            self.line.drain(..bytes);
        }
    }
}

impl Drop for Errors {
    fn drop(&mut self) {
        self.hand_over(self.line.len());
    }
}

impl fmt::Write for Errors {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.push(text.as_bytes());
        Ok(())
    }
}

#[cfg(feature = "std")]
impl std::io::Write for Errors {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.push(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Errors::flush(self);
        Ok(())
    }
}
