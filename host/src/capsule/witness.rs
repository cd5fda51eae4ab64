//! What a call leaves behind should it fail: its request's head, which guests have read by then, and how much came after it.
//! Nothing of it is copied while the call goes well.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use http::HeaderMap;
use http::request::Parts;
use wasmtime_wasi_http::FieldMap;

use super::Recorder;

/// Kept with the call.
#[derive(Default)]
pub(crate) struct Witness {
    /// None for calls that nobody made over HTTP.
    recorder: Option<Arc<Recorder>>,
    https: bool,
    script_name_bytes: usize,
    seen: Mutex<Seen>,
    /// Of the request body, as far as the guest has asked for it.
    input_bytes: AtomicU64,
    memory_bytes: AtomicU64,
    is_recorded: AtomicBool,
}

/// What was seen of the call.
#[derive(Default)]
pub(super) struct Seen {
    /// The head of the request, when the guest does not need it any more.
    pub(super) parts: Option<Box<Parts>>,
    /// Its fields, where the guest has taken them over and shares them.
    pub(super) fields: Option<FieldMap>,
    /// The beginning of the request body, where it is to be kept.
    pub(super) body: Vec<u8>,
    /// What is known of a fault, whether or not the log has room for it.
    pub(super) words: Option<String>,
    /// What the app raised and answered by itself.
    caught: Option<String>,
}

impl Witness {
    pub(crate) fn new(recorder: &Arc<Recorder>, https: bool, script_name_bytes: usize) -> Self {
        Self { recorder: Some(Arc::clone(recorder)), https, script_name_bytes, ..Self::default() }
    }

    pub(super) fn recorder(&self) -> Option<&Arc<Recorder>> {
        self.recorder.as_ref()
    }

    pub(super) fn https(&self) -> bool {
        self.https
    }

    pub(super) fn script_name_bytes(&self) -> usize {
        self.script_name_bytes
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        // Nothing that holds the lock can panic halfway through a change.
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the head of the request into keeping.
    pub(crate) fn keep_head(&self, parts: Box<Parts>) {
        self.seen().parts = Some(parts);
    }

    /// Gives it back.
    pub(crate) fn take_head(&self) -> Option<Box<Parts>> {
        self.seen().parts.take()
    }

    /// The fields, where the guest takes them over and does not share them: two allocations.
    pub(crate) fn copy_fields(&self, fields: &HeaderMap) {
        if !self.recorder.as_ref().is_some_and(|recorder| recorder.is_on()) {
            return;
        }
        if let Some(parts) = &mut self.seen().parts {
            parts.headers = fields.clone();
        }
    }

    /// The fields, which have become the guest's.
    pub(crate) fn share_fields(&self, fields: &FieldMap) {
        self.seen().fields = Some(fields.clone());
    }

    /// A piece of the request body has arrived.
    pub(crate) fn input(&self, piece: &Bytes) {
        self.input_bytes.fetch_add(piece.len() as u64, Ordering::Relaxed);
        let Some(room) = self.recorder.as_ref().and_then(|recorder| recorder.body_bytes_max()) else { return };
        let mut seen = self.seen();
        let room = room.saturating_sub(seen.body.len());
        seen.body.extend_from_slice(&piece[..piece.len().min(room)]);
    }

    /// What the sandbox has had of memory.
    pub(crate) fn used(&self, memory_bytes: u64) {
        self.memory_bytes.fetch_max(memory_bytes, Ordering::Relaxed);
    }

    /// What a fault says, with its backtrace.
    pub(crate) fn explain(&self, words: &str) {
        if self.recorder.is_some() {
            self.seen().words = Some(words.to_owned());
        }
    }

    /// An exception that the app has caught, and answers for (PEP 3333, `exc_info`).
    pub(crate) fn caught(&self, words: String) {
        if self.recorder.is_some() {
            self.seen().caught = Some(words);
        }
    }

    pub(crate) fn take_caught(&self) -> Option<String> {
        self.seen().caught.take()
    }

    /// True once.
    pub(super) fn begin_record(&self) -> bool {
        !self.is_recorded.swap(true, Ordering::Relaxed)
    }

    pub(super) fn take(&self) -> Seen {
        std::mem::take(&mut self.seen())
    }

    pub(super) fn input_bytes(&self) -> u64 {
        self.input_bytes.load(Ordering::Relaxed)
    }

    /// None where no sandbox was made, or it is still in use.
    pub(super) fn memory_bytes(&self) -> Option<u64> {
        Some(self.memory_bytes.load(Ordering::Relaxed)).filter(|bytes| *bytes > 0)
    }
}
