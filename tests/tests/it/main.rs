//! What wasgi promises, proven from outside. Names are claims; a module for each kind of promise.

mod isolation;
mod limits;
mod response;
mod reuse;
mod signals;
