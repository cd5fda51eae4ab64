//! Grants that change while the host runs.

use rustix::process::Signal;
use tests::{Elsewhere, Host, Request, eventually};

use super::{ask, grant, kinds, target, tries};

#[test]
fn a_grant_that_is_taken_away_ends_what_is_under_way_and_comes_back_without_a_restart() {
    let (one, two) = (Elsewhere::http(), Elsewhere::http());
    let both = [one.url(""), two.url("")];
    let host = Host::start(|host| {
        let host = host.config(&grant(&both));
        kinds().into_iter().fold(host, |host, (name, wasm)| host.app(name, wasm).sidecar(name, &ask(&both)))
    });
    for (app, _) in kinds() {
        let begun = host.log().all(|event| event.message().contains("the response has begun")).len();
        let mut stays = host.connect();
        stays.send(&Request::get(&target(app, &format!("read,{}", two.url("/begin")))).to_bytes());
        let mut goes = host.connect();
        goes.send(&Request::get(&target(app, &format!("read,{}", one.url("/begin")))).to_bytes());
        eventually("both have begun", || {
            (host.log().all(|event| event.message().contains("the response has begun")).len() == begun + 2)
                .then_some(())
        });
        host.write_config(&grant(&both[1..]));
        host.signal(Signal::HUP);
        let said = goes.response("GET").text();
        assert!(said.contains("7 bytes, then Err(") && said.contains("HttpRequestDenied"), "{app}: {said}");
        one.until_alone();
        host.log_contains("its grant was taken away");
        // The old release stays, without what it may no longer have.
        let words = format!("get,{}", one.url("/hello"));
        assert_eq!(tries(&host, app, &words), "error ErrorCode::HttpRequestDenied", "{app}");
        assert_eq!(tries(&host, app, &format!("get,{}", two.url("/hello"))), "200 hello from elsewhere", "{app}");
        host.listed_problem(app, "the operator has not granted");
        host.write_config(&grant(&both));
        host.signal(Signal::HUP);
        eventually("it is granted again", || (tries(&host, app, &words) == "200 hello from elsewhere").then_some(()));
        drop(stays);
        two.until_alone();
    }
}

#[test]
fn a_configuration_whose_authorities_cannot_be_read_changes_nothing() {
    let server = Elsewhere::http();
    let destinations = [server.url("")];
    let wasm = kinds().into_iter().next().expect("there are kinds").1;
    let host =
        Host::start(|host| host.config(&grant(&destinations)).app("wsgi", wasm).sidecar("wsgi", &ask(&destinations)));
    host.write_config("outbound_cafile = 'missing.pem'\n");
    host.signal(Signal::HUP);
    let said = host.log_contains("missing.pem");
    assert_eq!(said.text("level"), "ERROR", "{}", said.message());
    assert_eq!(tries(&host, "wsgi", &format!("get,{}", server.url("/hello"))), "200 hello from elsewhere");
}
