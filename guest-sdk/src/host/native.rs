//! The host in native tests: what crosses to it is recorded, per thread.

use std::boxed::Box;
use std::cell::RefCell;
use std::string::String;
use std::vec::Vec;

use super::Sink;
use crate::error::{Error, ProtocolError, StreamError};
use crate::start_response::Head;

/// What the host of one call has been told, and what it has to give.
#[derive(Default)]
pub(crate) struct Record {
    pub(crate) input: Vec<u8>,
    pub(crate) input_at: usize,
    /// Status and headers, when they came through `start-response.call`.
    pub(crate) head: Option<(String, Vec<(String, String)>)>,
    pub(crate) written: Vec<u8>,
    pub(crate) log: String,
}

std::thread_local! {
    static RECORD: RefCell<Record> = RefCell::default();
}

/// Puts a new record in place and hands out the last one.
pub(crate) fn exchange(record: Record) -> Record {
    RECORD.replace(record)
}

fn with<T>(use_it: impl FnOnce(&mut Record) -> T) -> T {
    RECORD.with_borrow_mut(use_it)
}

pub(crate) fn start_response(head: &Head, exc_info: Option<&Error>) -> Result<Box<dyn Sink>, ProtocolError> {
    with(|record| {
        if record.head.is_some() && exc_info.is_none() {
            return Err(ProtocolError::AlreadyStarted);
        }
        if !record.written.is_empty() {
            return Err(ProtocolError::HeadersSent);
        }
        if let Some(error) = exc_info {
            record.log.push_str(&std::format!("{error:?}\n"));
        }
        record.head = Some((head.status.clone(), head.headers.clone()));
        Ok(Box::new(Recorder) as Box<dyn Sink>)
    })
}

struct Recorder;

impl Sink for Recorder {
    fn write(&self, block: &[u8]) -> Result<(), StreamError> {
        with(|record| record.written.extend_from_slice(block));
        Ok(())
    }
}

pub(crate) struct Input;

impl Input {
    pub(crate) fn current() -> Input {
        Input
    }

    pub(crate) fn read(&mut self, bytes_max: u32) -> Result<Vec<u8>, StreamError> {
        Ok(with(|record| take(record, bytes_max, |rest| rest.len())))
    }

    pub(crate) fn readline(&mut self, bytes_max: u32) -> Result<Vec<u8>, StreamError> {
        let line_len = |rest: &[u8]| rest.iter().position(|byte| *byte == b'\n').map_or(rest.len(), |at| at + 1);
        Ok(with(|record| take(record, bytes_max, line_len)))
    }
}

fn take(record: &mut Record, bytes_max: u32, wanted: impl FnOnce(&[u8]) -> usize) -> Vec<u8> {
    let rest = &record.input[record.input_at..];
    let bytes = wanted(rest).min(bytes_max as usize);
    let block = rest[..bytes].to_vec();
    record.input_at += bytes;
    block
}

pub(crate) struct Errors;

impl Errors {
    pub(crate) fn current() -> Errors {
        Errors
    }

    pub(crate) fn write(&mut self, text: &str) {
        with(|record| record.log.push_str(text));
    }

    pub(crate) fn flush(&mut self) {
        with(|record| {
            if !record.log.is_empty() && !record.log.ends_with('\n') {
                record.log.push('\n');
            }
        });
    }
}
