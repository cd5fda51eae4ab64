//! What wasgi promises, proven from outside. Names are claims; a module for each kind of promise.

mod capsules;
mod cgi;
mod cli;
mod confine;
mod conformance;
mod deploy;
mod dev;
mod edge;
mod files;
mod isolation;
mod keyvalue;
mod kinds;
mod limits;
mod outbound;
mod passes;
mod python;
mod response;
mod reuse;
mod rewind;
mod selftest;
mod signals;
mod tenants;
mod tidy;
mod wasi_http;
