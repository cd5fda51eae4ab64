//! Development mode: a fault shows its developer what happened, and nobody else ever.

use tests::{Host, Request, Response, guest, wasgi};

/// A value in every place that a page could have it from.
const CANARIES: &[&str] = &[
    "canary-query",
    "canary-header",
    "canary-cookie",
    "canary-login",
    "canary-env",
    "canary-secret",
    "secret reason",
    "secret panic",
];

const SIDECAR: &str = "env = { GREETING = 'canary-env', APP_TOKEN = 'canary-secret' }";

fn host(dev: bool) -> Host {
    Host::start(|host| {
        let host = host.app("probe", guest("probe")).sidecar("probe", SIDECAR);
        let host = host.app("http", guest("http-p2")).app("cgi", guest("cgi-probe")).app("bad", "<!DOCTYPE html>");
        host.config(&format!("dev = {dev}\n"))
    })
}

fn ask(host: &Host, target: &str, accept: &str) -> Response {
    let request = Request::get(&format!("{target}&canary=canary-query"));
    let request = request.header("X-Canary", "<i>canary-header").header("Cookie", "a=canary-cookie");
    let request = request.header("Host", "localhost");
    host.ask(&request.header("Authorization", "Basic canary-login").header("Accept", accept))
}

#[track_caller]
fn shows(page: &str, words: &[&str]) {
    for words in words {
        assert!(page.contains(words), "{words} is missing in\n{page}");
    }
}

#[test]
fn a_fault_shows_what_happened_whatever_kind_of_guest_it_was() {
    let host = host(true);
    host.log_contains("development mode");
    let raised = ask(&host, "/probe/fault?kind=raise", "*/*");
    assert_eq!((raised.status(), raised.header("content-type").as_deref()), (500, Some("text/plain; charset=utf-8")));
    shows(
        &raised.text(),
        &["cause: exception", "ProbeError: secret reason", "PATH_INFO = /fault", "GREETING = canary-env", "--dev"],
    );
    assert_eq!(host.failure(&raised).text("cause"), "exception", "the log has it as ever");

    let panicked = ask(&host, "/probe/fault?kind=panic", "*/*").text();
    shows(
        &panicked,
        &[
            "cause: trap",
            "at probe::fault::run",
            "stderr: ",
            "secret panic",
            "QUERY_STRING = kind=panic&canary=canary-query",
        ],
    );
    let late = ask(&host, "/http/panic?x", "*/*").text();
    shows(&late, &["cause: trap", "secret panic", "incoming-handler", "http (http, "]);
    let program = ask(&host, "/cgi/say-and-panic?", "*/*").text();
    shows(&program, &["it panics", "cgi (cgi, ", "PATH_INFO = /say-and-panic"]);
}

/// As frameworks do: the app catches what it raised, and answers with `exc_info` (PEP 3333).
#[test]
fn an_exception_that_the_app_answers_for_by_itself_is_shown_too() {
    let ask = |host: &Host, steps: &str, name: &str| {
        host.ask(&Request::get(&format!("/probe/script?{steps}")).header("Host", name).header("Accept", "*/*"))
    };
    let (own, streamed) = ("restart=500%20Oops&block=own%20page", "restart=503%20Oops&iterate=&block=own%20page");
    let developing = host(true);
    for (steps, status) in [(own, 500), (streamed, 503), ("start=200%20OK&restart=500%20Oops&block=own%20page", 500)] {
        let page = ask(&developing, steps, "localhost");
        assert_eq!(page.status(), status, "{steps}");
        shows(&page.text(), &["secret reason", "caught and answered by itself", "PATH_INFO = /script", "--dev"]);
        assert!(!page.text().contains("own page"), "{}", page.text());
    }
    // It is no fault of the program's: it has answered.
    assert!(developing.log().all(|event| event.text("cause") == "exception").is_empty());
    let passed = |host: &Host, steps: &str, name: &str| {
        let text = ask(host, steps, name).text();
        assert!(text.contains("own page") && !text.contains("secret"), "{steps}: {text}");
    };
    // What is no error, has a page with a traceback of its own, or is asked for by who may not see.
    passed(&developing, "restart=200%20OK&block=own%20page", "localhost");
    passed(&developing, "restart=404%20No&block=own%20page", "localhost");
    passed(&developing, &format!("{own}%20Traceback%20(most%20recent%20call%20last)"), "localhost");
    passed(&developing, own, "evil.example");
    passed(&host(false), own, "localhost");
    passed(&host(false), streamed, "localhost");
}

#[test]
fn a_browser_is_shown_a_page_in_which_nothing_runs() {
    let page = ask(&host(true), "/probe/fault?kind=panic", "text/html,application/xhtml+xml;q=0.9");
    assert_eq!(page.header("content-type").as_deref(), Some("text/html; charset=utf-8"));
    assert!(page.header("content-security-policy").is_some_and(|policy| policy.contains("default-src 'none'")));
    let text = page.text();
    shows(&text, &["<!DOCTYPE html>", "at probe::fault::run", "HTTP_X_CANARY = &lt;i&gt;canary-header"]);
    assert!(!text.contains("<i>"), "{text}");
}

#[test]
fn what_looks_like_a_secret_is_not_shown() {
    let page = ask(&host(true), "/probe/fault?kind=raise", "text/html").text();
    shows(&page, &["HTTP_COOKIE = (not shown", "HTTP_AUTHORIZATION = (not shown", "APP_TOKEN = (not shown"]);
    for secret in ["canary-cookie", "canary-login", "canary-secret"] {
        assert!(!page.contains(secret), "{secret} is in\n{page}");
    }
}

#[test]
fn only_the_lines_of_this_call_are_shown() {
    let host = host(true);
    host.get("/probe/log?lines=3");
    let page = ask(&host, "/probe/fault?kind=raise", "*/*").text();
    assert!(!page.contains("on wsgi.errors"), "{page}");
}

#[test]
fn who_finds_nothing_is_shown_what_there_is_and_what_was_refused() {
    let host = host(true);
    let page = ask(&host, "/bad?", "*/*");
    assert_eq!(page.status(), 404);
    shows(&page.text(), &["bad: not WebAssembly", "probe at /probe", "cause: no_route"]);
}

#[test]
fn without_development_mode_nothing_of_it_is_shown() {
    let host = host(false);
    for target in
        ["/probe/fault?kind=raise", "/probe/fault?kind=panic", "/http/panic?x", "/cgi/say-and-panic?", "/bad?"]
    {
        for accept in ["*/*", "text/html"] {
            let response = ask(&host, target, accept);
            let text = response.text();
            let lines: Vec<&str> = text.lines().collect();
            assert_eq!((lines.len(), lines[1], lines[3]), (5, "", ""), "{target}: {text}");
            assert!(lines[4] == format!("Request id: {}", response.request_id()), "{text}");
            for canary in CANARIES.iter().chain(&["WebAssembly", "probe", "wasm", "panic"]) {
                assert!(!text.contains(canary), "{target}: {canary} is in {text}");
            }
            let fields = format!("{:?}", response.head.headers);
            assert!(!fields.contains("canary") && !fields.contains("secret"), "{fields}");
        }
    }
}

#[test]
fn development_mode_does_not_listen_where_others_could_ask() {
    let folder = tempfile::tempdir().expect("there is a temporary directory");
    std::fs::create_dir(folder.path().join("apps")).expect("the directory is ours");
    for (place, dev) in [("0.0.0.0:0", "--dev"), ("[::]:0", "--dev")] {
        let ran = wasgi().current_dir(&folder).args(["serve", "--bind", place, dev]).output().expect("it can be run");
        let said = String::from_utf8_lossy(&ran.stderr);
        assert_eq!(ran.status.code(), Some(1), "{said}");
        assert!(said.contains("development mode") && said.contains(place), "{said}");
    }
}

#[test]
fn a_client_that_a_proxy_speaks_for_is_shown_nothing() {
    let host = Host::start(|host| {
        host.app("probe", guest("probe")).config("dev = true\nforwarded_allow_ips = ['127.0.0.1']\n")
    });
    let ask = |target: &str, fields: &[(&str, &str)]| {
        let request = fields.iter().fold(Request::get(target), |request, (name, value)| request.header(name, value));
        host.ask(&request).text()
    };
    let asked = |client: &str| ask("/probe/fault", &[("Host", "localhost"), ("X-Forwarded-For", client)]);
    assert!(asked("127.0.0.1").contains("secret reason"));
    assert!(!asked("192.0.2.7").contains("secret reason"), "it is not on this machine");
    // Nor where the request is refused before anybody asks whom it is from, or nobody can say that.
    for (name, value) in [("Host", "a b"), ("Expect", "more"), ("Forwarded", "garbage")] {
        let host = if name == "Host" { value } else { "localhost" };
        let mut fields = vec![("Host", host), ("X-Forwarded-For", "192.0.2.7")];
        fields.extend((name != "Host").then_some((name, value)));
        let page = ask("/nope", &fields);
        assert!(!page.contains("--dev") && !page.contains("/probe"), "{name}: {page}");
    }
}

#[test]
fn a_client_that_a_proxy_does_not_name_is_shown_nothing() {
    let host = Host::start(|host| {
        let host = host.app("probe", guest("probe")).bind(&["proxy+127.0.0.1:0"]);
        host.config("dev = true\nforwarded_allow_ips = ['127.0.0.1']\n")
    });
    let asked = |header: &str| {
        let mut client = host.connect();
        client.send(header.as_bytes());
        client.ask(&Request::get("/probe/fault").header("Host", "localhost")).text()
    };
    assert!(asked("PROXY TCP4 127.0.0.1 127.0.0.1 4711 80\r\n").contains("secret reason"));
    for header in ["PROXY UNKNOWN\r\n", "PROXY TCP4 192.0.2.7 127.0.0.1 4711 80\r\n"] {
        let page = asked(header);
        assert!(!page.contains("secret reason") && !page.contains("--dev"), "{header}: {page}");
    }
}

#[test]
fn a_client_that_somebody_speaks_for_who_is_not_trusted_is_shown_nothing() {
    let host = host(true);
    for (name, value) in [
        ("X-Forwarded-For", "192.0.2.7"),
        ("X-Forwarded-For", "127.0.0.1"),
        ("Forwarded", "for=127.0.0.1"),
        ("X-Forwarded-Host", "localhost"),
        // NGINX with `X-Real-IP` alone, and proxies of every kind.
        ("X-Real-IP", "192.0.2.7"),
        ("Via", "1.1 proxy"),
    ] {
        let page = host.ask(&Request::get("/nope").header("Host", "localhost").header(name, value)).text();
        assert!(!page.contains("--dev") && !page.contains("/probe"), "{name}: {value}: {page}");
    }
}

#[test]
fn who_asks_by_a_name_that_may_be_anybodys_is_shown_nothing() {
    let host = host(true);
    let ask = |name: &str| host.ask(&Request::get("/nope").header("Host", name)).text();
    for name in ["localhost", "localhost:8000", "probe.localhost", "127.0.0.1:8000", "[::1]:8000"] {
        shows(&ask(name), &["--dev", "probe at /probe"]);
    }
    for name in ["evil.example", "localhost.evil.example", "192.0.2.7", "127.0.0.1.evil.example:8000", ""] {
        let page = ask(name);
        assert!(!page.contains("--dev") && !page.contains("/probe"), "{name}: {page}");
    }
}
