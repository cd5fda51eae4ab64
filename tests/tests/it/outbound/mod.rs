//! What guests reach beyond the host: what the operator grants and the app asks for, within limits, and nothing else.

mod http;
mod refused;
mod reload;
mod tcp;
pub(crate) mod tls;

use tests::{Builder, Elsewhere, Host};

fn kinds() -> [(&'static str, Vec<u8>); 4] {
    crate::kinds::kinds("elsewhere")
}

#[track_caller]
fn tries(host: &Host, app: &str, words: &str) -> String {
    crate::kinds::tries("elsewhere", host, app, words)
}

fn target(app: &str, words: &str) -> String {
    crate::kinds::target("elsewhere", app, words)
}

fn list(destinations: &[String]) -> String {
    let texts: Vec<String> = destinations.iter().map(|text| format!("'{text}'")).collect();
    format!("[{}]", texts.join(", "))
}

fn grant(destinations: &[String]) -> String {
    format!("[grant.outbound]\n'*' = {}\n", list(destinations))
}

fn ask(destinations: &[String]) -> String {
    format!("outbound = {}\n", list(destinations))
}

/// Apps that ask for all that is granted: the server by its address.
fn serving(server: &Elsewhere, apps: &[(&str, Vec<u8>)], change: impl FnOnce(Builder) -> Builder) -> Host {
    let destinations = [server.url("")];
    Host::start(|host| {
        let host = change(host.config(&grant(&destinations)));
        apps.iter().fold(host, |host, (name, wasm)| host.app(name, wasm).sidecar(name, &ask(&destinations)))
    })
}
