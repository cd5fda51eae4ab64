//! Requests of Python programs, as they are written anywhere: `urllib.request`, `http.client`, `requests`.

use tests::{Elsewhere, Host, guest};

use crate::outbound::tls;

fn serving(server: &Elsewhere) -> Host {
    let place = server.url("");
    Host::start(|host| {
        host.config(&format!("[grant.outbound]\n'*' = ['{place}']"))
            .app("app", guest("outbound-python"))
            .sidecar("app", &format!("outbound = ['{place}']\ninstances = 'reuse'"))
            .limit("cpu_time=60s")
    })
}

#[test]
fn urllib_and_http_client_and_requests_work_through_the_host() {
    let server = Elsewhere::http();
    let host = serving(&server);
    let url = |path: &str| server.url(path);
    let place = format!("127.0.0.1:{}", server.port());
    for (words, expected) in [
        (format!("urlopen,{}", url("/hello")), "200 text/plain hello from elsewhere"),
        (format!("urlopen,{},a-body", url("/echo")), "200 text/plain a-body"),
        (format!("client,{place},/hello,/missing"), "200 hello from elsewhere; 404 nothing here"),
        (format!("chunks,{place},50"), "50000"),
        (format!("large,{}", url("/big?3000")), "500000"),
        (format!("requests,{}", url("/hello")), "200 hello from elsewhere"),
        (format!("requests,{}", url("/missing")), "404 nothing here"),
        (format!("requests-post,{},yes", url("/echo")), r#"200 {"given": "yes"}"#),
        (format!("session,{},{}", url("/hello"), url("/hello")), "hello from elsewhere; hello from elsewhere"),
    ] {
        assert_eq!(host.get(&format!("/app?{words}")).text(), expected, "{words}");
    }
    let head = host.get(&format!("/app?urlopen,{}", url("/head"))).text();
    assert!(head.contains("x-given: by urllib\r\n") && head.matches("host: ").count() == 1, "{head}");
    server.until_alone();
}

#[test]
fn what_goes_wrong_is_an_exception_as_sockets_have_them() {
    let server = Elsewhere::http();
    let host = serving(&server);
    for (words, expected) in [
        (
            "urlopen,http://127.0.0.1:1/".to_owned(),
            "error URLError: <urlopen error [Errno 2] the host denies the request",
        ),
        ("urlopen,https://elsewhere.example/".to_owned(), "error URLError: "),
        ("requests,https://elsewhere.example/".to_owned(), "error ConnectionError: "),
        (format!("urlopen,{}", server.url("/garbage")), "error URLError: "),
        (format!("urlopen,{}", server.url("/short")), "error ConnectionResetError: "),
    ] {
        let said = host.get(&format!("/app?{words}")).text();
        assert!(said.starts_with(expected), "{words}: {said}");
    }
    // Nothing of it has done harm to the instance.
    let said = host.get(&format!("/app?urlopen,{}", server.url("/hello"))).text();
    assert_eq!(said, "200 text/plain hello from elsewhere");
}

#[test]
fn https_is_the_hosts_to_speak_and_to_believe() {
    let (known, trusted) = tls::server(&["localhost"]);
    let (other, _) = tls::server(&["localhost"]);
    let place = format!("https://localhost:{}", known.port());
    // In that certificate there is no address; and nobody vouches for the other one.
    let doubtful = [format!("https://127.0.0.1:{}", known.port()), format!("https://localhost:{}", other.port())];
    // The address that the names lead to is one that has to be named.
    let destinations = format!("'{place}', '{}', 'https://127.0.0.1:{}'", doubtful.join("', '"), other.port());
    let host = Host::start(|host| {
        std::fs::write(host.folder().join("ca.pem"), &trusted).expect("the folder is ours");
        host.config(&format!("outbound_cafile = 'ca.pem'\n[grant.outbound]\n'*' = [{destinations}]"))
            .app("app", guest("outbound-python"))
            .sidecar("app", &format!("outbound = [{destinations}]\ninstances = 'reuse'"))
            .limit("cpu_time=60s")
    });
    let said = |words: String| host.get(&format!("/app?{words}")).text();
    for (words, expected) in [
        (format!("urlopen,{place}/hello"), "200 text/plain hello from elsewhere"),
        (format!("urlopen,{place}/echo,a-body"), "200 text/plain a-body"),
        (
            format!("secure-client,localhost:{},/hello,/missing", known.port()),
            "200 hello from elsewhere; 404 nothing here",
        ),
        (format!("large,{place}/big?3000"), "500000"),
        (format!("requests,{place}/hello"), "200 hello from elsewhere"),
        (format!("requests-post,{place}/echo,yes"), r#"200 {"given": "yes"}"#),
        (format!("session,{place}/hello,{place}/hello"), "hello from elsewhere; hello from elsewhere"),
    ] {
        assert_eq!(said(words.clone()), expected, "{words}");
    }
    for place in doubtful {
        for (word, kind) in [("urlopen", "error URLError: "), ("requests", "error ConnectionError: ")] {
            let said = said(format!("{word},{place}/hello"));
            assert!(said.starts_with(kind) && said.contains("nobody vouches for the server"), "{word} {place}: {said}");
        }
    }
    assert_eq!(other.asked(), Vec::<String>::new());
}
