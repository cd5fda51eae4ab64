//! The world in native tests: a function answers.

use std::boxed::Box;
use std::cell::RefCell;
use std::vec::Vec;

use super::{Error, Kind, Request, Response};

type Answer = Box<dyn Fn(&Request) -> Result<Response, Error>>;

std::thread_local! {
    static ANSWER: RefCell<Option<Answer>> = const { RefCell::new(None) };
}

pub(crate) fn answer(answer: impl Fn(&Request) -> Result<Response, Error> + 'static) {
    ANSWER.set(Some(Box::new(answer)));
}

pub(super) fn send(request: Request) -> Result<Response, Error> {
    ANSWER.with_borrow(|answer| match answer {
        Some(answer) => answer(&request),
        None => Err(Error::new(Kind::Denied, "no test answers: see wasgi::testing::answer_fetches")),
    })
}

/// A body that is there already.
pub(super) struct Incoming(Vec<u8>);

impl Incoming {
    pub(super) fn new(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    pub(super) fn next(&mut self) -> Result<Option<Vec<u8>>, Error> {
        let rest = std::mem::take(&mut self.0);
        Ok((!rest.is_empty()).then_some(rest))
    }

    pub(super) fn read(&mut self, buffer: &mut [u8]) -> Result<usize, Error> {
        let bytes = buffer.len().min(self.0.len());
        buffer[..bytes].copy_from_slice(&self.0[..bytes]);
        self.0.drain(..bytes);
        Ok(bytes)
    }
}
