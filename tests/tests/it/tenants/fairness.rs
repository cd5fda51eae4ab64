//! Processor time: tenants share it by their weights, whatever their guests do. What is compared is who is done first.

use tests::{Client, Event, Host, Request, eventually, guest};

/// Two tenants with an app that computes until it has had its `cpu_time`, on one worker.
fn serving(config: &str, acme: &str, hive: &str) -> Host {
    Host::start(|host| {
        let limit = |time: &str| format!("[limits]\ncpu_time = '{time}'\n");
        host.config(config)
            .app("acme/one", guest("probe"))
            .sidecar("acme/one", &limit(acme))
            .app("hive/one", guest("probe"))
            .sidecar("hive/one", &limit(hive))
            .app("hive/two", guest("probe"))
            .workers(1)
            .edge("half_closed_time=100ms")
    })
}

fn spin(host: &Host, app: &str) -> Client {
    let mut client = host.connect();
    client.send(&Request::get(&format!("/{app}/fault?kind=spin")).to_bytes());
    client
}

fn calls(host: &Host, tenant: &str) -> f64 {
    host.metric(&format!("wasgi_tenant_calls{{tenant=\"{tenant}\"}}")).unwrap_or_default()
}

/// The apps whose calls had their time, in the order in which that came.
fn ended(host: &Host, count: usize) -> Vec<String> {
    let fits = |event: &Event| event.text("cause") == "cpu";
    let ended = host.log().wait_for("calls that have had their time", count, fits);
    ended.iter().map(|event| event.text("app")).collect()
}

#[test]
fn a_tenant_with_one_call_is_done_before_another_that_has_ten() {
    let host = serving("", "400ms", "400ms");
    let crowd: Vec<_> = (0..10).map(|_| spin(&host, "acme/one")).collect();
    eventually("all ten run", || (calls(&host, "acme") == 10.0).then_some(()));
    let mut one = spin(&host, "hive/one");
    assert_eq!(one.response("GET").status(), 504);
    assert_eq!(calls(&host, "acme"), 10.0, "each of the ten has had a tenth of what the one has");
    drop(crowd);
}

#[test]
fn who_weighs_more_has_more_time() {
    let host = serving("[tenant.hive.budget]\nweight = 8\n", "400ms", "800ms");
    let (mut one, mut other) = (spin(&host, "acme/one"), spin(&host, "hive/one"));
    assert_eq!(ended(&host, 2), ["hive/one", "acme/one"], "twice the work, in a quarter of the time");
    assert_eq!([one.response("GET").status(), other.response("GET").status()], [504, 504]);
}

#[test]
fn short_calls_are_served_beside_any_number_of_long_ones() {
    let host = serving("[limits]\ncpu_time = '1m'\n", "1m", "1m");
    let crowd: Vec<_> = (0..50).map(|_| spin(&host, "acme/one")).collect();
    eventually("all run", || (calls(&host, "acme") == 50.0).then_some(()));
    for _ in 0..50 {
        assert_eq!(host.get("/hive/two/hello").text(), "hello");
    }
    assert_eq!(calls(&host, "acme"), 50.0);
    // A client that leaves ends its guest, wherever that is.
    drop(crowd);
    eventually("all are gone", || (calls(&host, "acme") == 0.0).then_some(()));
}
