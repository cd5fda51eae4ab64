//! Hosts and paths: a tenant has its own, and nobody else's.

use super::reload;
use tests::{Host, Request, Response, eventually, guest};

const PLACES: &str = "[tenant.acme]\nroutes = ['acme.example', '/acme']\n[tenant.hive]\nroutes = ['hive.example']\n";

fn ask(host: &Host, name: &str, path: &str) -> Response {
    host.ask(&Request::get(path).header("Host", name))
}

#[test]
fn without_configuration_a_folder_has_the_paths_below_its_name_and_no_others() {
    let host = Host::start(|host| {
        let host = host.app("hello", guest("probe")).app("shop/cart", guest("probe")).app("shop/own", guest("probe"));
        let host = host.sidecar("shop/own", "routes = ['/shop', '/shop/deep/er']").app("shop/thief", guest("probe"));
        host.sidecar("shop/thief", "\nroutes = ['/shop/x', '/hello/x']")
            .app("shop/host", guest("probe"))
            .sidecar("shop/host", "routes = ['shop.example']")
    });
    for path in ["/hello/hello", "/shop/cart/hello", "/shop/hello", "/shop/deep/er/hello"] {
        assert_eq!(host.get(path).text(), "hello", "{path}");
    }
    let refused =
        host.listed_problem("shop/thief", "line 2: route \"/hello/x\": the operator has not given it to shop");
    assert_eq!([refused.text("state"), refused.text("tenant")], ["refused", "shop"]);
    host.listed_problem(
        "shop/host",
        "line 1: route \"shop.example/\": the operator has not given it to shop, which has \"/shop\"",
    );
    assert_eq!(host.listed("hello").expect("it is live").text("tenant"), "");
}

#[test]
fn a_tenant_serves_its_hosts_and_nobody_else_does() {
    let host = Host::start(|host| {
        let host = host.config(PLACES).app("acme/index", guest("probe")).app("acme/shop", guest("probe"));
        let host = host
            .app("hive/thief", guest("probe"))
            .sidecar("hive/thief", "routes = ['hive.example', 'acme.example/free']");
        host.app("index", guest("probe")).app("top", guest("probe")).sidecar("top", "routes = ['hive.example']")
    });
    assert_eq!(ask(&host, "acme.example", "/hello").text(), "hello");
    assert_eq!(ask(&host, "acme.example", "/shop/hello").text(), "hello");
    for (app, route) in [("hive/thief", "acme.example/free"), ("top", "hive.example/")] {
        let refused = host.listed_problem(app, &format!("line 1: route \"{route}\": "));
        let other = if app == "top" { "hive/" } else { "acme/" };
        assert!(!refused.text("problem").contains(other), "{}", refused.text("problem"));
    }
    // What it does not serve itself, nobody answers: not even who has the root of all hosts.
    assert_eq!(host.get("/anything").status(), 404);
    assert_eq!(host.get("/hello").text(), "hello");
    assert_eq!(ask(&host, "hive.example", "/hello").status(), 404);
    assert_eq!(ask(&host, "other.example", "/hello").text(), "hello");
}

#[test]
fn who_wants_what_another_tenant_has_learns_that_it_is_taken_and_no_more() {
    let host = Host::start(|host| host.app("shop/cart", guest("probe")));
    host.drop_in("cart.toml", "routes = ['/shop/cart']");
    host.drop_in("cart.wasm", guest("probe"));
    let refused = host.listed_problem("cart", "the route /shop/cart is taken");
    assert!(!refused.text("problem").contains("shop/cart has"), "{}", refused.text("problem"));
    let holder = eventually("the holder is told", || {
        host.listed("shop/cart").filter(|listed| listed.to_string().contains("an app of another tenant claims"))
    });
    assert!(!holder.to_string().contains("\"cart "), "{holder}");
}

#[test]
fn a_place_that_is_given_to_another_is_served_by_that_one_from_then_on() {
    let host = Host::start(|host| {
        let host = host.config(PLACES).app("acme/shop", guest("probe")).app("hive/index", guest("probe"));
        host.sidecar("acme/shop", "routes = ['acme.example']").sidecar("hive/index", "instances = 'reuse'")
    });
    assert_eq!(ask(&host, "acme.example", "/hello").text(), "hello");
    assert_eq!(ask(&host, "hive.example", "/state").text(), "call 1");
    // Another tenant's calls and instances do not notice.
    let mut under_way = host.connect();
    let request = Request::chunked("/echo-blocks").header("Host", "hive.example");
    reload(&host, "chunked_bodies = 'stream'\n");
    host.log_contains("no longer served");
    reload(&host, &format!("chunked_bodies = 'stream'\n{PLACES}"));
    eventually("it is back", || (ask(&host, "acme.example", "/hello").status() == 200).then_some(()));
    eventually("so is the other", || (ask(&host, "hive.example", "/state").status() == 200).then_some(()));
    under_way.send(&request.to_bytes());
    under_way.chunk(b"one");
    assert_eq!(under_way.head("POST").status, 200);
    assert_eq!(under_way.piece().as_deref(), Ok(&b"one"[..]));
    let before = ask(&host, "hive.example", "/state").text();

    let moved = "[tenant.acme]\nroutes = ['/acme']\n[tenant.hive]\nroutes = ['hive.example', 'acme.example']\n";
    reload(&host, &format!("chunked_bodies = 'stream'\n{moved}"));
    eventually("it is served no more", || (ask(&host, "acme.example", "/hello").status() == 404).then_some(()));
    let refused =
        host.listed_problem("acme/shop", "line 1: route \"acme.example/\": the operator has not given it to acme");
    assert_eq!(refused.text("state"), "refused");
    let number = |text: &str| text.trim_start_matches("call ").parse::<u32>().expect("a number");
    let after = ask(&host, "hive.example", "/state").text();
    assert_eq!(number(&after), number(&before) + 1, "the same instance");
    under_way.chunk(b"two");
    assert_eq!(under_way.piece().as_deref(), Ok(&b"two"[..]), "the call goes on");
}
