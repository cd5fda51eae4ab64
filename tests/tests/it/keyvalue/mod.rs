//! Key-value stores: what the operator grants and the app asks for, within limits, for guests of every kind, and durable.

mod embedded;
mod limits;
mod redis;
mod tenants;

use tests::{Host, guest};

fn kinds() -> [(&'static str, Vec<u8>); 4] {
    crate::kinds::kinds("shelf")
}

#[track_caller]
fn tries(host: &Host, app: &str, words: &str) -> String {
    crate::kinds::tries("shelf", host, app, words)
}

fn target(app: &str, words: &str) -> String {
    crate::kinds::target("shelf", app, words)
}

const GRANT: &str = "[grant.keyvalue]\ndefault = {}\n";
const ASK: &str = "keyvalue = 'default'\n";

/// One app with a store.
fn serving(sidecar: &str) -> Host {
    Host::start(|host| host.config(GRANT).app("site", guest("site")).sidecar("site", &format!("{ASK}{sidecar}")))
}
