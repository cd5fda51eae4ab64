//! Python apps, built by the SDK in guest-sdk/python: what only Python can do right or wrong. The rules of WSGI are in
//! `conformance`, which runs against a Python guest, too.

mod frameworks;
mod probe;
