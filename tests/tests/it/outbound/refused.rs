//! Requests that are not granted: by the list, or by where a name leads.

use tests::{Elsewhere, Host, guest};

use super::{ask, grant, kinds, serving, tries};

#[test]
fn what_is_not_listed_is_refused_and_nobody_is_connected_to() {
    let (granted, other) = (Elsewhere::http(), Elsewhere::http());
    let host = serving(&granted, &kinds(), |host| host);
    let port = granted.port();
    for (app, _) in kinds() {
        for url in [
            other.url("/hello"),
            format!("https://127.0.0.1:{port}/"),
            format!("http://localhost:{port}/hello"),
            format!("http://127.0.0.2:{port}/hello"),
            format!("http://[::1]:{port}/hello"),
            "http://169.254.169.254/latest/meta-data/".to_owned(),
            "http://elsewhere.example/".to_owned(),
        ] {
            let said = tries(&host, app, &format!("get,{url}"));
            assert_eq!(said, "error ErrorCode::HttpRequestDenied", "{app} {url}");
        }
        let line =
            host.log_contains("refused an outgoing request (GET http://elsewhere.example): the app has not asked");
        assert!(line.message().contains("http://elsewhere.example"), "{}", line.message());
    }
    assert_eq!((granted.connected(), other.connected()), (0, 0));
}

#[test]
fn a_name_that_leads_to_this_machine_is_refused_in_whatever_form() {
    let server = Elsewhere::http();
    let port = server.port();
    // All names, and all addresses there are: but nobody has said that this machine is meant.
    let all = [format!("http://*:{port}"), format!("http://0.0.0.0/0:{port}"), format!("http://[::/0]:{port}")];
    let host = Host::start(|host| {
        let host = host.config(&grant(&all));
        kinds().into_iter().fold(host, |host, (name, wasm)| host.app(name, wasm).sidecar(name, &ask(&all)))
    });
    for (app, _) in kinds() {
        for place in
            ["localhost", "LOCALHOST", "localhost.", "127.0.0.1", "[::1]", "[::ffff:127.0.0.1]", "0.0.0.0", "[::]"]
        {
            let said = tries(&host, app, &format!("get,http://{place}:{port}/hello"));
            assert_eq!(said, "error ErrorCode::DestinationIpProhibited", "{app} {place}");
        }
        for place in ["127.1", "2130706433", "0x7f.1", "0x7f000001"] {
            let said = tries(&host, app, &format!("get,http://{place}:{port}/hello"));
            assert_eq!(said, "error ErrorCode::HttpRequestUriInvalid", "{app} {place}");
        }
    }
    host.log_contains("leads to 127.0.0.1, which is this machine (loopback)");
    assert_eq!(server.connected(), 0);
}

#[test]
fn a_name_and_the_address_that_it_leads_to_have_both_to_be_named() {
    let server = Elsewhere::http();
    let port = server.port();
    let both = [format!("http://localhost:{port}"), format!("http://127.0.0.1:{port}")];
    let host = Host::start(|host| {
        let host = host.config(&grant(&both));
        host.app("both", guest("site"))
            .sidecar("both", &ask(&both))
            .app("name", guest("site"))
            .sidecar("name", &ask(&both[..1]))
    });
    let words = format!("get,http://localhost:{port}/hello");
    assert_eq!(tries(&host, "both", &words), "200 hello from elsewhere");
    assert_eq!(tries(&host, "name", &words), "error ErrorCode::DestinationIpProhibited");
    assert_eq!(server.connected(), 1);
}

#[test]
fn an_app_that_asks_for_more_than_is_granted_is_refused_with_the_line_that_asks() {
    let server = Elsewhere::http();
    let host = Host::start(|host| {
        host.config(&grant(&[server.url("")]))
            .app("site", guest("site"))
            .sidecar("site", "env = { A = 'b' }\noutbound = ['http://127.0.0.1']")
            .app("silent", guest("site"))
    });
    host.listed_problem(
        "site",
        "site.toml: line 2: outbound = [\"http://127.0.0.1\"]: the operator has not granted http://127.0.0.1",
    );
    // Who does not ask has nothing, whatever is granted.
    let said = tries(&host, "silent", &format!("get,{}", server.url("/hello")));
    assert_eq!(said, "error ErrorCode::HttpRequestDenied");
    assert_eq!(server.connected(), 0);
}

#[test]
fn no_request_makes_a_tunnel() {
    let server = Elsewhere::http();
    let host = serving(&server, &kinds(), |host| host);
    for (app, _) in kinds() {
        let said = tries(&host, app, &format!("connect,{}", server.url("/")));
        assert_eq!(said, "error ErrorCode::HttpRequestMethodInvalid", "{app}");
    }
    assert_eq!(server.connected(), 0);
}
