//! The last lines of an app, as it wrote them: a ring of bytes that is made with the first line and never grows, so that keeping a
//! line costs a copy of it and nothing else.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::RequestId;
use super::app_log::LogStream;

/// Before each line: request (8), whether there is one (1), stream (1), length (2).
const HEADER_BYTES: usize = 12;

pub(super) struct Tail {
    bytes_max: usize,
    ring: Mutex<VecDeque<u8>>,
}

/// A line that was kept.
pub(super) struct TailLine {
    pub(super) request: Option<RequestId>,
    pub(super) stream: LogStream,
    pub(super) line: Vec<u8>,
}

impl Tail {
    pub(super) fn new(bytes_max: usize) -> Self {
        Self { bytes_max, ring: Mutex::default() }
    }

    fn ring(&self) -> MutexGuard<'_, VecDeque<u8>> {
        // Nothing that holds the lock can panic halfway through a change.
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps a line, or the beginning of a long one, in place of the oldest.
    pub(super) fn push(&self, request: Option<RequestId>, stream: LogStream, line: &[u8]) {
        // An eighth each: one long line should not push out all others.
        let line = &line[..line.len().min(self.bytes_max / 8).min(usize::from(u16::MAX))];
        let mut ring = self.ring();
        if ring.capacity() == 0 {
            ring.reserve_exact(self.bytes_max);
        }
        while ring.len() + HEADER_BYTES + line.len() > self.bytes_max {
            let Some(oldest) = header(&ring) else { break };
            ring.drain(..HEADER_BYTES + oldest.2);
        }
        ring.extend(request.map_or(0, |request| request.0).to_le_bytes());
        ring.extend([u8::from(request.is_some()), stream as u8]);
        ring.extend((line.len() as u16).to_le_bytes());
        ring.extend(line);
    }

    /// The oldest first.
    pub(super) fn lines(&self) -> Vec<TailLine> {
        let mut rest = self.ring().clone();
        let mut lines = Vec::new();
        while let Some((request, stream, length)) = header(&rest) {
            rest.drain(..HEADER_BYTES);
            lines.push(TailLine { request, stream, line: rest.drain(..length).collect() });
        }
        lines
    }
}

/// Of the first line.
fn header(ring: &VecDeque<u8>) -> Option<(Option<RequestId>, LogStream, usize)> {
    if ring.len() < HEADER_BYTES {
        return None;
    }
    let number = u64::from_le_bytes(std::array::from_fn(|at| ring[at]));
    let request = (ring[8] != 0).then_some(RequestId(number));
    let stream = match ring[9] {
        stream if stream == LogStream::Stdout as u8 => LogStream::Stdout,
        stream if stream == LogStream::Stderr as u8 => LogStream::Stderr,
        _ => LogStream::Errors,
    };
    Some((request, stream, usize::from(u16::from_le_bytes([ring[10], ring[11]]))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_lines_stay_and_the_ring_never_grows() {
        let tail = Tail::new(1000);
        let request = RequestId::next();
        for number in 0..500 {
            tail.push((number % 2 == 0).then_some(request), LogStream::Stderr, format!("line {number}").as_bytes());
            assert!(tail.ring().capacity() < 1100 && tail.ring().len() <= 1000);
        }
        let lines = tail.lines();
        assert!(lines.len() > 40, "{}", lines.len());
        assert_eq!(lines.last().map(|line| &line.line[..]), Some(&b"line 499"[..]));
        assert!(lines.iter().all(|line| line.stream == LogStream::Stderr));
        assert_eq!(lines.iter().filter(|line| line.request == Some(request)).count(), lines.len() / 2);
    }

    #[test]
    fn a_long_line_is_cut_and_leaves_the_others() {
        let tail = Tail::new(800);
        (0..5).for_each(|_| tail.push(None, LogStream::Errors, b"short"));
        tail.push(None, LogStream::Stdout, &[b'x'; 10_000]);
        let lines = tail.lines();
        assert_eq!(lines.len(), 6);
        assert_eq!((lines[5].line.len(), lines[5].stream), (100, LogStream::Stdout));
        assert_eq!(lines[0].line, b"short");
    }
}
