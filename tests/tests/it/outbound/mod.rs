//! What guests reach beyond the host: what the operator grants and the app asks for, within limits, and nothing else.

mod http;
mod refused;
mod reload;
mod tcp;
pub(crate) mod tls;

use tests::{Builder, Elsewhere, Host, guest};

/// One app of each kind that can send requests, by name.
fn kinds() -> [(&'static str, Vec<u8>); 4] {
    [("wsgi", guest("site")), ("cgi", guest("elsewhere")), ("p2", guest("http-p2")), ("p3", guest("http-p3"))]
}

/// What came of a guest's try.
#[track_caller]
fn tries(host: &Host, app: &str, words: &str) -> String {
    let response = host.get(&target(app, words));
    assert_eq!(response.status(), 200, "{app} {words}: {}", response.text());
    response.text().trim_end().to_owned()
}

fn target(app: &str, words: &str) -> String {
    match app {
        "cgi" => format!("/{app}?{words}"),
        "p2" | "p3" => format!("/{app}/elsewhere?{words}"),
        _ => format!("/{app}?elsewhere={words}"),
    }
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
