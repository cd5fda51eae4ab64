//! The claims of configuration.

use std::path::Path;

use super::*;
use crate::bundle::Manifest;

mod listening;
mod places;
mod sidecars;
mod tenants;

/// Loads `text` as a configuration file, with `change` made to the flags and the environment.
fn load_with(text: &str, change: impl FnOnce(&mut Settings)) -> Result<Config, String> {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("wasgi.toml");
    std::fs::write(&path, text).expect("the file is written");
    let mut settings = Settings { file: Some(path), ..Settings::default() };
    change(&mut settings);
    let strip = format!("{}/", folder.path().display());
    Config::load(&settings).map_err(|error| error.to_string().replace(&strip, ""))
}

fn load(text: &str) -> Result<Config, String> {
    load_with(text, |_| {})
}

#[track_caller]
fn check_refused(text: &str, expected: &str) {
    assert_eq!(load(text).expect_err(text), expected);
}

#[track_caller]
fn check_flag_refused(change: impl FnOnce(&mut Settings), expected: &str) {
    assert_eq!(load_with("", change).expect_err("it is refused"), expected);
}

#[test]
fn an_empty_file_is_the_defaults() {
    assert_eq!(load(""), Ok(Config::default()));
}

#[test]
fn the_defaults_lie_within_their_ranges_and_survive_printing() {
    let folder = Path::new("/srv/wasgi");
    let config = Config {
        apps_dir: folder.join("apps"),
        state_dir: folder.join("state"),
        data_dir: folder.join("data"),
        ..Config::default()
    };
    assert_eq!(load(&config.to_toml()), Ok(config));
}

#[test]
fn every_key_is_read_and_survives_printing() {
    let text = r#"
        apps_dir = "/srv/a \"b\""
        state_dir = "/var/lib/wasgi"
        data_dir = "/srv/data"
        outbound_cafile = "/etc/wasgi/ca.pem"
        keyvalue_redis = "redis://127.0.0.1:6379/3"
        bind = ["0.0.0.0:80", "[::1]:8080"]
        certfile = "/etc/wasgi/cert.pem"
        keyfile = "/etc/wasgi/key.pem"
        forwarded_allow_ips = ["127.0.0.1", "10.0.0.0/8", "fd00::/8", "unix"]
        dev = false
        workers = 3
        sandboxes = 77
        sandbox_memory = "3GiB"
        stack = "512KiB"
        app_idle_time = "8s"
        rescan_time = "7s"
        settle_time = "0s"
        instances = "reuse"
        chunked_bodies = "stream"
        passes = "needed"
        reuse_requests = 5
        reuse_idle_time = "1m 30s"
        reuse_memory = "1MiB"
        confine = "strict"
        confine_paths = ["/srv/media", "/run/secrets"]
        user = "www-data"
        group = "web"
        capsules = "whole"
        capsules_count = 7
        capsules_size = "2MiB"
        capsules_body_size = "1KiB"
        capsules_module_size = "3MiB"
        [grant]
        data = ["shop", "*"]
        wall_clock = false
        randomness = ["shop"]
        [grant.outbound]
        shop = ["https://api.example.com", "tcp://10.0.0.0/8:5432"]
        [grant.env]
        REGION = "eu"
        [grant.secrets]
        KEY = { env = "HOST_KEY" }
        [grant.directories]
        "/media" = { path = "/srv/media" }
        [grant.keyvalue]
        default = {}
        [tenant.acme]
        routes = ["acme.example", "/acme"]
        [tenant.acme.limits]
        memory = "32MiB"
        cpu_time = "1s"
        [tenant.acme.budget]
        weight = 7
        [tenant.acme.grant]
        data = ["blog/*"]
        randomness = true
        [tenant.acme.grant.outbound]
        "blog/*" = "http://*.example.org:8080"
        [tenant.acme.grant.env]
        "my.key" = "\""
        [tenant.acme.grant.secrets]
        DB = { file = "/run/db", apps = ["shop"] }
        [tenant.acme.grant.directories]
        "/media" = { path = "/srv/acme", write = true, size = "1.5GiB", files = 77, apps = ["shop", "blog/*"] }
        [tenant.acme.grant.keyvalue]
        sessions = { apps = ["shop"], shared = true, backend = "redis" }
        [tenant.other]
        [log]
        filter = "warn,wasgi_host=debug"
        format = "json"
        [access_log]
        file = "/var/log/wasgi.log"
        format = "json"
        [budget]
        concurrent_calls = 10
        queued_calls = 0
        call_rate = 12
        weight = 2
        memory = "1GiB"
        cpu_time = "8s"
        cpu_window = "4s"
        disk = "2GiB"
        disk_files = 13
        descriptors = 14
        log_rate = "3KiB"
        outbound_connections = 5
        outbound_rate = "6KiB"
        faults = 4
        fault_pause = "9s"
        [edge]
        connections = 10
        connections_per_address = 9
        streams = 11
        request_target_size = "1KiB"
        request_headers = 20
        request_head_size = "16KiB"
        header_time = "1s"
        client_idle_time = "2s"
        half_closed_time = "4s"
        drain_time = "3s"
        [limits]
        memory = "64MiB"
        table_elements = 1000
        cpu_time = "250ms"
        wall_time = "1h"
        first_byte_time = "4s"
        idle_time = "5s"
        concurrent_calls = 6
        queued_calls = 0
        queue_time = "7s"
        request_body_size = "1GiB"
        response_headers = 8
        response_header_size = "9000B"
        host_call_size = "1.5MiB"
        handles = 10
        log_line_size = "1KiB"
        log_rate = "2KiB"
        module_size = "3MiB"
        compile_time = "4s"
        compile_memory = "1GiB"
        bundle_size = "1MiB"
        bundle_files = 10
        concurrent_assets = 9
        outbound_connections = 8
        outbound_connect_time = "9s"
        outbound_time = "11s"
        outbound_sent_size = "12KiB"
        outbound_received_size = "13KiB"
        data_size = "20KiB"
        data_files = 21
        keyvalue_size = "14KiB"
        keyvalue_keys = 15
        keyvalue_key_size = "16B"
        keyvalue_value_size = "17KiB"
        clock_resolution = "1ms"
    "#;
    let config = load(text).expect("it is right");
    let kept = Kept { requests_max: 5, idle_time: Duration::from_secs(90), memory_bytes_max: 1 << 20 };
    assert_eq!(config.instances, Instances::Reuse(kept));
    assert_eq!(config.tenants.len(), 2);
    let acme = config.tenants["acme"].clone();
    assert!(acme.grants.data.contain("blog/x") && !acme.grants.data.contain("other"));
    assert_eq!((acme.limits.memory_bytes, acme.limits.cpu_time), (32 << 20, Duration::from_secs(1)));
    let media = &acme.grants.directories["/media"];
    assert_eq!((media.access, media.bytes_max, media.names_max), (Access::Write, Some(3 << 29), Some(77)));
    assert!(config.outbound_of("acme/blog/x").name(Protocol::Http, "a.example.org", 8080));
    assert!(config.outbound_of("shop").name(Protocol::Https, "api.example.com", 443));
    assert!(config.outbound_of("blog/x").is_empty() && config.outbound_of("acme/shop").is_empty());
    assert_eq!(config.store_of("acme/shop", "sessions").map(|store| store.sharing), Some(Sharing::Shared));
    assert_eq!(config.store_of("shop", "default").map(|store| store.sharing), Some(Sharing::Own));
    for (app, store) in
        [("acme/blog", "sessions"), ("acme/shop", "default"), ("shop", "sessions"), ("x/shop", "default")]
    {
        assert!(config.store_of(app, store).is_none(), "{app} {store}");
    }
    assert_eq!(config.confine_paths, ["/srv/media", "/run/secrets"].map(PathBuf::from));
    assert_eq!(config.outbound_cafile, Some("/etc/wasgi/ca.pem".into()));
    assert_eq!(config.chunked_bodies, ChunkedBodies::Stream);
    assert_eq!(
        config.bind,
        ["0.0.0.0:80", "[::1]:8080"].map(|text| text.parse::<SocketAddr>().expect("an address").into())
    );
    assert_eq!(config.access_log, Some(AccessLogTarget::File("/var/log/wasgi.log".into())));
    assert_eq!(config.limits.host_call_bytes, 3 << 19);
    assert_eq!(config.limits.cpu_time, Duration::from_millis(250));
    let default = Config::default();
    for field in field::LIMITS {
        assert_ne!(field.text(&config.limits), field.text(&default.limits), "{} was not read", field.key);
    }
    for field in field::BUDGET {
        assert_ne!(field.text(&config.budget), field.text(&default.budget), "{} was not read", field.key);
    }
    assert_eq!((acme.budget.weight, acme.budget.faults), (7, 4), "numbers are inherited");
    for field in field::EDGE {
        assert_ne!(field.text(&config.edge), field.text(&default.edge), "{} was not read", field.key);
    }
    for field in field::TOP {
        assert_ne!(field.text(&config), field.text(&default), "{} was not read", field.key);
    }
    assert_eq!(load(&config.to_toml()), Ok(config));
}

#[test]
fn a_flag_counts_more_than_the_environment_and_that_more_than_the_file() {
    let text = "[limits]\ncpu_time = \"1s\"\nmemory = \"1MiB\"\nhandles = 10";
    let config = load_with(text, |settings| {
        settings.environment.limits = Some("memory=2MiB, handles=20".to_owned());
        settings.limits = vec!["handles=30".to_owned()];
    });
    let limits = config.expect("it is right").limits;
    assert_eq!((limits.cpu_time, limits.memory_bytes, limits.handles), (Duration::from_secs(1), 2 << 20, 30));
}

#[test]
fn paths_in_the_file_start_from_its_folder() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("wasgi.toml");
    std::fs::write(&path, "apps_dir = \"sites\"\nstate_dir = \"state\"").expect("the file is written");
    let config = Config::load(&Settings { file: Some(path), ..Settings::default() }).expect("it is right");
    assert_eq!(config.apps_dir, folder.path().join("sites"));
    assert_eq!(config.state_dir, folder.path().join("state"));
}

#[test]
fn errors_name_place_key_value_and_what_is_allowed() {
    let size = "a size is wanted, such as \"64KiB\" or \"1.5MiB\"";
    let time = "a time with its unit is wanted, such as \"500ms\", \"5s\" or \"1m 30s\"";
    check_refused("workers = 0", "wasgi.toml line 1: workers = 0: 1 to 1024 is allowed");
    check_refused("\nworkers = -1", "wasgi.toml line 2: workers = -1: it must not be negative");
    check_refused("workers = \"many\"", "wasgi.toml line 1: workers = \"many\": a whole number is wanted");
    check_refused("workers = 1.5", "wasgi.toml line 1: workers = 1.5: a whole number is wanted");
    check_refused("[limits]\nmemory = 0", "wasgi.toml line 2: limits.memory = 0: 64KiB to 4GiB is allowed");
    check_refused(
        "[limits]\nmemory = \"99999999999TiB\"",
        "wasgi.toml line 2: limits.memory = \"99999999999TiB\": 64KiB to 4GiB is allowed",
    );
    check_refused("[limits]\nmemory = \"lots\"", &format!("wasgi.toml line 2: limits.memory = \"lots\": {size}"));
    check_refused("[limits]\nmemory = \"-1MiB\"", &format!("wasgi.toml line 2: limits.memory = \"-1MiB\": {size}"));
    check_refused("[limits]\nmemory = []", &format!("wasgi.toml line 2: limits.memory = []: {size}"));
    check_refused("[limits]\ncpu_time = 5", &format!("wasgi.toml line 2: limits.cpu_time = 5: {time}"));
    check_refused("[limits]\ncpu_time = \"5\"", &format!("wasgi.toml line 2: limits.cpu_time = \"5\": {time}"));
    check_refused("[limits]\ncpu_time = \"0s\"", "wasgi.toml line 2: limits.cpu_time = \"0s\": 1ms to 1h is allowed");
    check_refused(
        "[limits]\ncpu_time = \"99999999999years\"",
        "wasgi.toml line 2: limits.cpu_time = \"99999999999years\": 1ms to 1h is allowed",
    );
    check_refused(
        "chunked_bodies = \"both\"",
        "wasgi.toml line 1: chunked_bodies = \"both\": it is one of \"spool\", \"stream\"",
    );
    check_refused(
        "instances = \"forever\"",
        "wasgi.toml line 1: instances = \"forever\": it is one of \"fresh\", \"rewind\", \"reuse\"",
    );
    check_refused("log.format = 1", "wasgi.toml line 1: log.format = 1: a text in quotes is wanted");
    check_refused("apps_dir = \"\"", "wasgi.toml line 1: apps_dir = \"\": a path is wanted");
    check_refused(
        "log.filter = \"a=b=c\"",
        "wasgi.toml line 1: log.filter = \"a=b=c\": a level (error, warn, info, debug, trace) is wanted, or levels by module",
    );
    check_refused("bind = []", "wasgi.toml line 1: bind = []: 1 to 64 addresses are allowed");
    check_refused("bind = [1]", "wasgi.toml line 1: bind = [1]: a list of texts is wanted, such as [\"…\", \"…\"]");
    check_refused(
        "bind = \"10.0.0.1\"",
        "wasgi.toml line 1: bind = \"10.0.0.1\": the port is missing: \"10.0.0.1:8000\"",
    );
    check_refused(
        "bind = \"example.com:80\"",
        "wasgi.toml line 1: bind = \"example.com:80\": an address is wanted, such as \"127.0.0.1:8000\", \"[::1]:8000\", \
         \"8000\", \"unix:/run/wasgi.sock\" or \"fd://3\"",
    );
    let bind = |text: &str| format!("wasgi.toml line 1: bind = \"{text}\": ");
    for (text, reason) in [
        ("unix:", "a path is wanted after \"unix:\""),
        ("fd://2", "a descriptor is wanted after \"fd://\", 3 or more"),
        ("fd://x", "a descriptor is wanted after \"fd://\", 3 or more"),
    ] {
        check_refused(&format!("bind = \"{text}\""), &(bind(text) + reason));
    }
    check_refused(
        "bind = [\"8000\", \"http://127.0.0.1:8000\"]",
        "wasgi.toml line 1: bind = [\"8000\", \"http://127.0.0.1:8000\"]: http://127.0.0.1:8000 is named twice",
    );
    check_refused("bind = \"https://8443\"", "bind https://127.0.0.1:8443: HTTPS needs a certificate: give certfile");
    check_refused(
        "bind = \"proxy+8000\"",
        "bind proxy+127.0.0.1:8000: nobody is allowed to speak the PROXY protocol: name its peers in forwarded_allow_ips",
    );
    check_refused(
        "keyfile = \"/key.pem\"",
        "keyfile /key.pem: a key is of no use without a certificate: give certfile beside it",
    );
    let allow = |text: &str, reason: &str| {
        let place = format!("wasgi.toml line 1: forwarded_allow_ips = \"{text}\": ");
        check_refused(&format!("forwarded_allow_ips = \"{text}\""), &(place + reason));
    };
    allow("10.0.0.1/8", "\"10.0.0.1/8\" is written \"10.0.0.0/8\"");
    allow(
        "proxy",
        "\"proxy\" is not an address (\"10.0.0.1\"), a network (\"10.0.0.0/8\", \"fd00::/8\"), \"unix\" or \"*\"",
    );
    check_refused(
        "[edge]\nrequest_target_size = \"128KiB\"",
        "edge.request_target_size: is larger than edge.request_head_size, of which it is a part",
    );
}

#[test]
fn unknown_keys_and_broken_files_are_refused_with_their_line() {
    let found = load("\n\nworker = 1").expect_err("it is refused");
    assert!(found.starts_with("wasgi.toml line 3: unknown field `worker`, expected one of `apps_dir`"), "{found}");
    let found = load("[limits]\ncpu = \"1s\"").expect_err("it is refused");
    assert!(found.starts_with("wasgi.toml line 2: limits.cpu is unknown; there are memory, table_elements"), "{found}");
    let found = load("workers = \n").expect_err("it is refused");
    assert!(found.starts_with("wasgi.toml line 1: "), "{found}");
    let found = load("workers = 1\nworkers = 2").expect_err("it is refused");
    assert!(found.starts_with("wasgi.toml line 2: duplicate key"), "{found}");
    let found = load("[access_log]\npath = \"x\"").expect_err("it is refused");
    assert!(found.starts_with("wasgi.toml line 2: unknown field `path`"), "{found}");
    let found = Config::load(&Settings { file: Some("/nonexistent.toml".into()), ..Settings::default() });
    assert!(
        found.expect_err("it is refused").to_string().starts_with("/nonexistent.toml: it cannot be read: No such file")
    );
    let found = load(&"#".repeat(300 << 10)).expect_err("it is refused");
    assert_eq!(found, "wasgi.toml: 307200 bytes: a settings file has at most 262144");
}

#[test]
fn flags_are_refused_by_their_names() {
    check_flag_refused(
        |settings| settings.workers = Some("x".to_owned()),
        "--workers (WASGI_WORKERS): \"x\": a whole number is wanted",
    );
    check_flag_refused(
        |settings| settings.limits = vec!["cpu_time=2h".to_owned()],
        "--limit: cpu_time = \"2h\": 1ms to 1h is allowed",
    );
    check_flag_refused(
        |settings| settings.environment.limits = Some("memory".to_owned()),
        "WASGI_LIMITS: \"memory\": KEY=VALUE is wanted, such as \"cpu_time=2s\"",
    );
    check_flag_refused(
        |settings| settings.edge = vec!["speed=1".to_owned()],
        "--edge: \"speed=1\": there is no \"speed\", but connections, connections_per_address, streams, request_target_size, \
         request_headers, request_head_size, header_time, client_idle_time, half_closed_time, drain_time",
    );
    check_flag_refused(
        |settings| settings.access_log_format = Some("xml".to_owned()),
        "--access-log-format (WASGI_ACCESS_LOG_FORMAT): \"xml\": it is one of \"combined\", \"json\"",
    );
}

#[test]
fn apps_cannot_reach_the_state_directory() {
    for (apps, state) in [("a", "a"), ("a", "a/state"), ("a", "b/../a/.wasgi"), ("a/b", "a")] {
        let found = load(&format!("apps_dir = \"{apps}\"\nstate_dir = \"{state}\""));
        assert!(found.as_ref().is_err_and(|reason| reason.contains("lies inside")), "{apps} {state}: {found:?}");
    }
    assert!(load("apps_dir = \"a\"\nstate_dir = \"ab\"").is_ok());
    for data in ["a", "a/data", "s", "s/data", "."] {
        let text = format!("apps_dir = \"a\"\nstate_dir = \"s\"\ndata_dir = \"{data}\"\n");
        let found = load(&format!("{text}[grant]\ndata = \"*\""));
        assert!(found.as_ref().is_err_and(|error| error.starts_with("data_dir ")), "{data}: {found:?}");
        assert!(load(&text).is_ok(), "nobody has data");
    }
}

#[test]
fn only_a_restart_changes_what_was_laid_out_at_the_start() {
    let old = Config::default();
    let mut new = old.clone();
    assert_eq!(old.needs_restart(&new), Vec::<&str>::new());
    new.limits.memory_bytes /= 2;
    new.limits.cpu_time *= 2;
    assert_eq!(old.needs_restart(&new), Vec::<&str>::new());
    new.limits.memory_bytes *= 4;
    new.workers += 1;
    new.edge.connections += 1;
    new.edge.header_time *= 2;
    let (reloaded, fixed) = old.reloaded(new.clone());
    assert_eq!(fixed, ["workers", "edge.connections", "limits.memory"]);
    assert_eq!((reloaded.workers, reloaded.edge.connections), (old.workers, old.edge.connections));
    assert_eq!(reloaded.limits, Limits { cpu_time: new.limits.cpu_time, ..old.limits.clone() });
    assert_eq!(reloaded.edge.header_time, new.edge.header_time);
    assert_eq!(old.needs_restart(&reloaded), Vec::<&str>::new());
}
