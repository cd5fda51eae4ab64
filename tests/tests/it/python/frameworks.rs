//! Flask, Bottle and classic CGI code, as their users write it, in one component and one host.

use tests::{Client, End, Host, Request, Response, guest};

use super::django;

fn host() -> Host {
    // Hashing passwords is work on purpose, and machines that test are busy.
    Host::start(|host| {
        host.app("site", guest("frameworks")).sidecar("site", "instances = 'reuse'").limit("cpu_time=60s")
    })
}

const FORM: &str = "application/x-www-form-urlencoded";

pub(super) fn form(target: &str, body: &str) -> Request {
    Request::post(target, body).header("Content-Type", FORM)
}

/// A form with a file (its field, its name) of these bytes, as browsers send it.
pub(super) fn upload(target: &str, file: (&str, &str), bytes: &[u8], fields: &[(&str, &str)]) -> Request {
    let mut body = Vec::new();
    for (field, value) in fields {
        let part = format!("--edge\r\nContent-Disposition: form-data; name=\"{field}\"\r\n\r\n{value}\r\n");
        body.extend_from_slice(part.as_bytes());
    }
    let (field, name) = file;
    let part = format!(
        "--edge\r\nContent-Disposition: form-data; name=\"{field}\"; filename=\"{name}\"\r\nContent-Type: image/png\r\n\r\n"
    );
    body.extend_from_slice(part.as_bytes());
    body.extend_from_slice(bytes);
    body.extend_from_slice(b"\r\n--edge--\r\n");
    Request::post(target, body).header("Content-Type", "multipart/form-data; boundary=edge")
}

#[track_caller]
pub(super) fn check(response: &Response, status: u16, words: &str) {
    assert!(
        response.status() == status && response.text().contains(words) && response.end == End::Whole,
        "{words}: {} {}",
        response.status(),
        response.text()
    );
}

/// The cookie of a response, as the next request sends it.
#[track_caller]
fn cookie(response: &Response) -> String {
    let cookie = response.header("set-cookie").expect("a cookie is set");
    cookie.split(';').next().unwrap_or_default().to_owned()
}

/// One test, since the component takes a while to load.
#[test]
fn flask_bottle_and_cgi_work_unchanged() {
    let host = host();
    let mut client = host.connect();
    flask_has_practised_without_the_app(&mut client);
    flask_routes(&mut client);
    flask_renders_and_serves_files(&mut client);
    flask_keeps_sessions(&mut client);
    flask_reads_forms_and_uploads(&mut client);
    flask_checks_passwords(&mut client);
    flask_streams(&mut client);
    flask_fails_alone(&host);
    flask_has_its_commands(&host);
    bottle_works(&mut client);
    cgi_works(&mut client);
}

/// The first request of the instance.
fn flask_has_practised_without_the_app(client: &mut Client) {
    let practised = client.get("/site/practised").text();
    let expected = r#"{"before":[],"templates":["base.html","index.html","missing.html"]}"#;
    assert_eq!(practised.trim(), expected);
}

fn flask_routes(client: &mut Client) {
    check(&client.get("/site/teapot"), 418, "short and stout");
    check(&client.get("/site/shop/cart"), 200, "the cart of nobody at /site/shop/cart");
}

fn flask_renders_and_serves_files(client: &mut Client) {
    let page = client.get("/site/");
    check(&page, 200, "<li>&lt;row 19&gt;</li>");
    check(&page, 200, r#"<link rel="stylesheet" href="/site/static/style.css">"#);
    assert_eq!(page.header("content-type").as_deref(), Some("text/html; charset=utf-8"));
    let style = client.get("/site/static/style.css");
    check(&style, 200, "color: black");
    assert_eq!((page.header("x-app").as_deref(), style.header("x-app")), (Some("flask"), None), "the host serves it");
    assert_eq!(style.header("etag").map(|etag| etag.len()), Some(34));
    check(&client.get("/site/shop/shop_static/cart.css"), 200, "color: navy");
    let absent = client.get("/site/static/absent.css");
    assert_eq!(
        (absent.status(), absent.header("x-app").as_deref()),
        (404, Some("flask")),
        "what is no file is the app's"
    );
    check(&client.get("/site/nowhere"), 404, "<h1>No /nowhere here</h1>");
    let file = client.get("/site/download");
    check(&file, 200, "margin");
    let disposition = file.header("content-disposition").unwrap_or_default();
    assert!(disposition.contains("sp%C3%A4ti.css"), "{disposition}");
    check(&client.get("/site/late"), 200, r#""first":"body { color: black }""#);
    check(&client.get("/site/bottle/view"), 200, "row 0\nrow 1\nrow 2\n");
    check(&client.get("/site/bottle/file"), 200, "color: black");
}

fn flask_keeps_sessions(client: &mut Client) {
    let first = client.get("/site/count");
    check(&first, 200, "visit 1");
    let second = client.ask(&Request::get("/site/count").header("Cookie", cookie(&first)));
    check(&second, 200, "visit 2");
    check(&client.get("/site/count"), 200, "visit 1");
    let forged = client.ask(&Request::get("/site/count").header("Cookie", format!("{}x", cookie(&second))));
    check(&forged, 200, "visit 1");
}

fn flask_reads_forms_and_uploads(client: &mut Client) {
    let answer = client.ask(&form("/site/form?q=a+b", "name=J%C3%B6rg&tag=x&tag=y"));
    check(&answer, 200, r#""name":"J\u00f6rg""#);
    check(&answer, 200, r#""all":["x","y"]"#);
    check(&answer, 200, r#""query":"a b""#);
    check(&client.ask(&form("/site/form", "tag=x")), 400, "Bad Request");
    // Werkzeug keeps more than 500 KB in a temporary file.
    let answer = client.ask(&upload("/site/upload", ("file", "../a b.png"), &vec![1; 700_000], &[]));
    check(&answer, 200, r#""name":"a_b.png","size":700000,"sum":700000,"type":"image/png""#);
}

fn flask_checks_passwords(client: &mut Client) {
    for method in ["scrypt", "pbkdf2"] {
        let hashed = client.ask(&form("/site/register", &format!("user=ann&password=secret&method={method}")));
        check(&hashed, 200, &format!("{method}:"));
        check(&client.ask(&form("/site/login", "user=ann&password=wrong")), 302, "");
        let login = client.ask(&form("/site/login", "user=ann&password=secret"));
        assert_eq!(login.header("location").as_deref(), Some("/site/shop/cart"), "{method}");
        let cart = client.ask(&Request::get("/site/shop/cart").header("Cookie", cookie(&login)));
        check(&cart, 200, "the cart of ann");
    }
}

fn flask_streams(client: &mut Client) {
    let streamed = client.get("/site/stream");
    check(&streamed, 200, "line 0 of /stream\nline 1 of /stream\nline 2 of /stream\n");
    assert_eq!(streamed.header("transfer-encoding").as_deref(), Some("chunked"));
}

fn flask_fails_alone(host: &Host) {
    let failed = host.get("/site/fail");
    check(&failed, 500, "Internal Server Error");
    assert!(!failed.text().contains("secret"), "{}", failed.text());
    check(&host.get("/site/fail-mine"), 503, "try again");
    let late = host.get("/site/fail-late");
    assert_eq!((late.status(), late.text().as_str(), late.end), (200, "a line\n", End::Aborted));
    // Of each that Flask has caught it logs the traceback; what it would answer for that is told by name once more.
    host.log().wait_for("all are in the log", 5, |event| event.message().contains("ValueError: secret reason"));
    let traced = host.log().all(|event| event.message() == "Traceback (most recent call last):");
    assert_eq!(traced.len(), 2, "{traced:?}");
    check(&host.get("/site/shop/cart"), 200, "nobody");
}

fn flask_has_its_commands(host: &Host) {
    let (done, said) = django::run(host, "apps/site.wasm", &["registered"]);
    assert!(done && said.contains("0 registered, /0/instance"), "{said}");
    let (done, said) = django::run(host, "apps/site.wasm", &["routes"]);
    assert!(done && said.contains("/shop/cart"), "{said}");
    let (done, said) = django::run(host, "apps/site.wasm", &["no-such-command"]);
    assert!(!done && said.contains("No such command 'no-such-command'"), "{said}");
}

fn bottle_works(client: &mut Client) {
    check(&client.get("/site/bottle/hello/%3Ci%3E"), 200, "<b>Hello &lt;i&gt;</b>!");
    let first = client.ask(&form("/site/bottle/form", "name=J%C3%B6rg"));
    check(&first, 200, r#""seen": null"#);
    let again = form("/site/bottle/form", "name=x").header("Cookie", cookie(&first));
    check(&client.ask(&again), 200, r#""seen": "yes""#);
    check(
        &client.ask(&upload("/site/bottle/upload", ("file", "a.png"), &[2; 1000], &[])),
        200,
        r#""size": 1000, "sum": 2000"#,
    );
    check(&client.get("/site/bottle/generator"), 200, "piece 0 piece 1 piece 2 ");
    check(&client.get("/site/bottle/nowhere"), 404, "nothing here");
    let failed = client.get("/site/bottle/fail");
    check(&failed, 500, "");
    assert!(!failed.text().contains("secret"), "{}", failed.text());
}

fn cgi_works(client: &mut Client) {
    check(&client.get("/site/cgi/?name=ann"), 200, "ann 0");
    check(&client.ask(&form("/site/cgi/", "name=ann")), 200, "ann 0");
    check(
        &client.ask(&upload("/site/cgi/", ("file", "a.png"), &[2; 100_000], &[("name", "value")])),
        200,
        "value 100000",
    );
    check(&client.get("/site/cgi/?fail=1"), 500, "shown on purpose");
}

/// The frameworks catch what their handlers raise, and answer for it.
#[test]
fn development_mode_shows_what_flask_and_bottle_have_caught() {
    let host = Host::start(|host| {
        let host = host.app("site", guest("frameworks")).sidecar("site", "instances = 'reuse'").limit("cpu_time=60s");
        host.config("dev = true\n")
    });
    for (target, status, line) in [
        ("/site/fail", 500, "flask_app.py"),
        ("/site/fail-handled", 503, "flask_app.py"),
        ("/site/bottle/fail", 500, "bottle_app.py"),
        ("/site/cgi/?fail=1", 500, "cgi_app.py"),
    ] {
        let request = |name: &str| Request::get(target).header("Host", name).header("Accept", "text/html");
        let page = host.ask(&request("localhost"));
        assert_eq!(page.status(), status, "{target}: {}", page.text());
        let text = page.text();
        assert!(
            text.contains("ValueError") && text.contains(line) && text.contains("Traceback (most"),
            "{target}: {text}"
        );
        if !target.contains("cgi") {
            assert!(text.contains("secret reason") && text.contains("by development mode"), "{target}: {text}");
            let hidden = host.ask(&request("shop.example")).text();
            assert!(!hidden.contains("secret") && !hidden.contains("Traceback"), "{target}: {hidden}");
        }
    }
    // What the app has logged and answered itself is meant so.
    check(&host.ask(&Request::get("/site/fail-mine").header("Host", "localhost")), 503, "try again");
    // What is well is the app's, after a failure too.
    check(&host.ask(&Request::get("/site/shop/cart").header("Host", "localhost")), 200, "the cart of nobody");
}
