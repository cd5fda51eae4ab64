//! The claims of configuration and sidecars.

use std::path::Path;

use super::*;
use crate::bundle::Manifest;

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

fn spec(sidecar: &str) -> Result<AppSpec, String> {
    Config::default().app_spec("hello", Some(sidecar), &Manifest::default()).map_err(|error| error.to_string())
}

#[track_caller]
fn check_sidecar_refused(sidecar: &str, expected: &str) {
    assert_eq!(spec(sidecar).expect_err(sidecar), expected);
}

#[track_caller]
fn check_route(text: &str, expected: Result<(HostPattern, &str), &str>) {
    let found = spec(&format!("routes = [{}]", toml::Value::String(text.to_owned())));
    let expected = expected.map_err(|reason| format!("line 1: route \"{}\": {reason}", text.escape_debug()));
    let found = found.map(|mut spec| spec.routes.remove(0));
    assert_eq!(found, expected.map(|(host, prefix)| RouteSpec { host, prefix: prefix.to_owned() }));
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
        user = "www-data"
        group = "web"
        capsules = "whole"
        capsules_count = 7
        capsules_size = "2MiB"
        capsules_body_size = "1KiB"
        capsules_module_size = "3MiB"
        [grant]
        data = ["shop", "*"]
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
        [tenant.acme.grant.outbound]
        "blog/*" = "http://*.example.org:8080"
        [tenant.acme.grant.env]
        "my.key" = "\""
        [tenant.acme.grant.secrets]
        DB = { file = "/run/db", apps = ["shop"] }
        [tenant.acme.grant.directories]
        "/media" = { path = "/srv/acme", write = true, apps = ["shop", "blog/*"] }
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
        log_rate = "3KiB"
        outbound_connections = 5
        outbound_rate = "6KiB"
        faults = 4
        fault_pause = "9s"
        [edge]
        connections = 10
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
    "#;
    let config = load(text).expect("it is right");
    let kept = Kept { requests_max: 5, idle_time: Duration::from_secs(90), memory_bytes_max: 1 << 20 };
    assert_eq!(config.instances, Instances::Reuse(kept));
    assert_eq!(config.tenants.len(), 2);
    let acme = config.tenants["acme"].clone();
    assert!(acme.grants.data.contain("blog/x") && !acme.grants.data.contain("other"));
    assert_eq!((acme.limits.memory_bytes, acme.limits.cpu_time), (32 << 20, Duration::from_secs(1)));
    assert_eq!(acme.grants.directories["/media"].access, Access::Write);
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
fn port_is_for_where_nothing_else_says_an_address() {
    let port = |settings: &mut Settings| settings.environment.port = Some("9000".to_owned());
    let bind = |config: Result<Config, String>| config.expect("it is right").bind[0].to_string();
    assert_eq!(bind(load_with("", port)), "0.0.0.0:9000");
    assert_eq!(bind(load_with("bind = \"127.0.0.1:1\"", port)), "127.0.0.1:1");
    assert_eq!(
        bind(load_with("", |settings| {
            port(settings);
            settings.bind = vec!["8001".to_owned()];
        })),
        "127.0.0.1:8001"
    );
    check_flag_refused(
        |settings| settings.environment.port = Some("http".to_owned()),
        "the environment variable PORT: \"http\": a port is wanted, 0 to 65535",
    );
}

#[test]
fn a_place_to_listen_is_read_and_survives_printing() {
    for (text, printed) in [
        ("8000", "127.0.0.1:8000"),
        ("localhost:8000", "127.0.0.1:8000"),
        ("https://[::]:443", "https://[::]:443"),
        ("http://0.0.0.0:80", "http://0.0.0.0:80"),
        ("unix:/run/w.sock", "unix:/run/w.sock"),
        ("proxy+https://unix:/run/w.sock", "proxy+https://unix:/run/w.sock"),
        ("proxy+fd://7", "proxy+fd://7"),
    ] {
        let config = load(&format!(
            "apps_dir = \"/a\"\nstate_dir = \"/s\"\ndata_dir = \"/d\"\ncertfile = \"/c\"\nforwarded_allow_ips = \"*\"\nbind = \"{text}\""
        ))
        .expect(text);
        assert_eq!(config.bind[0].to_string(), printed);
        assert_eq!(load(&config.to_toml()), Ok(config));
    }
}

#[test]
fn the_sockets_of_systemd_are_used_where_no_address_is_named() {
    let own = std::process::id().to_string();
    let activate = |settings: &mut Settings, fds: &str, pid: &str| {
        settings.environment.listen_fds = Some(fds.to_owned());
        settings.environment.listen_pid = Some(pid.to_owned());
        settings.environment.port = Some("9000".to_owned());
    };
    let bind = |config: Result<Config, String>| {
        config.expect("it is right").bind.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert_eq!(bind(load_with("", |settings| activate(settings, "2", &own))), ["fd://3", "fd://4"]);
    assert_eq!(bind(load_with("bind = \"1\"", |settings| activate(settings, "2", &own))), ["127.0.0.1:1"]);
    // What a parent was given is not for us.
    assert_eq!(bind(load_with("", |settings| activate(settings, "2", "1"))), ["0.0.0.0:9000"]);
    check_flag_refused(
        |settings| activate(settings, "many", &own),
        "the environment variable LISTEN_FDS: \"many\": a number of sockets is wanted, at most 64",
    );
}

#[test]
fn a_certificate_comes_with_its_key_and_only_a_restart_adds_or_removes_it() {
    let config = load("certfile = \"/c.pem\"").expect("it is right");
    let both = |file: &str| Some(Certificate { certfile: file.into(), keyfile: file.into() });
    assert_eq!(config.certificate, both("/c.pem"));
    let other = load("certfile = \"/d.pem\"").expect("it is right");
    assert_eq!(config.reloaded(other.clone()), (other, vec![]));
    let (kept, fixed) = config.reloaded(load("").expect("it is right"));
    assert_eq!((kept.certificate, fixed), (both("/c.pem"), vec!["certfile"]));
    let (none, fixed) = load("").expect("it is right").reloaded(config);
    assert_eq!((none.certificate, fixed), (None, vec!["certfile"]));
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
        "--edge: \"speed=1\": there is no \"speed\", but connections, streams, request_target_size, request_headers, \
         request_head_size, header_time, client_idle_time, half_closed_time, drain_time",
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
fn a_manifest_asks_and_a_sidecar_goes_before_it() {
    let manifest = Manifest {
        reuse: Some(true),
        data: true,
        assets: [("/static/", "s"), ("/media", "m")].map(|(path, target)| (path.to_owned(), target.to_owned())).into(),
        ..Manifest::default()
    };
    let config = load("[grant]\ndata = [\"a\"]\n").expect("it is right");
    let spec = |sidecar| config.app_spec("a", Some(sidecar), &manifest).map_err(|error| error.to_string());
    let asked = spec("").expect("it may");
    assert!(matches!(asked.instances, Instances::Reuse(_)));
    assert_eq!(asked.data, Some("data/a".into()));
    let assets: Vec<_> = asked.assets.iter().map(|asset| (asset.prefix.as_str(), asset.target.as_str())).collect();
    assert_eq!(assets, [("/media", "m"), ("/static", "s")]);
    let told = spec("instances = \"fresh\"\ndata = false\n[static]\n\"/media/\" = false\n\"/static\" = \"x/y/\"");
    let told = told.expect("it is right");
    assert_eq!((told.instances, told.data), (Instances::Fresh, None));
    assert_eq!(told.assets, [AssetSpec { prefix: "/static".to_owned(), target: "x/y".to_owned() }]);
    // Numbers of reuse are of use where the manifest says it.
    assert!(spec("reuse_requests = 5").is_ok());
    let other = config.app_spec("b", None, &manifest).expect_err("it may not").to_string();
    let remedy = "put \"b\" into `data` of [grant]";
    assert_eq!(other, format!("manifest: data = true: the operator has not granted it: {remedy}"));
    check_sidecar_refused("data = 1", "line 1: data = 1: true or false is wanted");
    let wanted = "put \"hello\" into `data` of [grant]";
    check_sidecar_refused("data = true", &format!("line 1: data = true: the operator has not granted it: {wanted}"));
}

#[test]
fn static_files_are_paths_and_folders_below() {
    for (entry, words) in [
        ("\"static\" = \"s\"", "a path below the app's own is wanted"),
        ("\"/a/../b\" = \"s\"", "no \"..\" segments"),
        ("\"/a%41\" = \"s\"", "no '%'"),
        ("\"/s\" = \"../s\"", "a folder or file of the app's bundle is wanted"),
        ("\"/s\" = \"/s\"", "a folder or file of the app's bundle is wanted"),
        ("\"/s\" = \"\"", "a folder or file of the app's bundle is wanted"),
        ("\"/s\" = 1", "a text in quotes is wanted"),
    ] {
        let refused = spec(&format!("[static]\n{entry}")).expect_err("it is wrong");
        assert!(refused.starts_with("line 2: ") && refused.contains(words), "{refused}");
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

#[test]
fn without_sidecar_an_app_is_served_at_its_name() {
    for (name, prefix) in [
        ("hello", "/hello"),
        ("index", ""),
        ("shop/cart", "/shop/cart"),
        ("shop/index", "/shop"),
        ("windex", "/windex"),
        ("a b é", "/a b é"),
    ] {
        let spec = Config::default().app_spec(name, None, &Manifest::default()).expect(name);
        assert_eq!(spec.routes, [RouteSpec { host: HostPattern::Any, prefix: prefix.to_owned() }]);
        assert_eq!((spec.name.as_str(), spec.instances, spec.limits), (name, Instances::Fresh, Limits::default()));
    }
    for name in ["a/../b", "a//b", "..", "a?b", "100%", "a\nb", ""] {
        assert!(name.is_empty() || Config::default().app_spec(name, None, &Manifest::default()).is_err(), "{name}");
    }
}

#[test]
fn routes_are_hosts_and_paths() {
    let exact = |host: &str| HostPattern::Exact(host.to_owned());
    check_route("/", Ok((HostPattern::Any, "")));
    check_route("/shop/", Ok((HostPattern::Any, "/shop")));
    check_route("/a/b", Ok((HostPattern::Any, "/a/b")));
    check_route("/Café", Ok((HostPattern::Any, "/Café")));
    check_route("Example.COM", Ok((exact("example.com"), "")));
    check_route("example.com/", Ok((exact("example.com"), "")));
    check_route("localhost/x", Ok((exact("localhost"), "/x")));
    check_route("*.Example.com/X", Ok((HostPattern::Suffix(".example.com".to_owned()), "/X")));
    check_route("127.0.0.1/", Ok((exact("127.0.0.1"), "")));
    check_route("[0:0::1]/", Ok((exact("[::1]"), "")));

    check_route("", Err("a route begins with \"/\" or with a host: is \"/\" meant, or \"/\"?"));
    check_route("shop", Err("a route begins with \"/\" or with a host: is \"/shop\" meant, or \"shop/\"?"));
    check_route("//", Err("a path has no empty segments"));
    check_route("/a//b", Err("a path has no empty segments"));
    check_route("/a/../b", Err("a path has no \"..\" segments"));
    check_route("/./b", Err("a path has no \".\" segments"));
    check_route("/a?b", Err("a path has no '?'"));
    check_route("/a%20b", Err("a path has no '%'; write the path decoded"));
    check_route("/a\u{7}b", Err("a path has no '\\u{7}'"));
    check_route("a.*.com/", Err("a wildcard stands only at the beginning, as \"*.\""));
    check_route("*/x", Err("a wildcard stands only at the beginning, as \"*.\""));
    check_route("example.com:80/", Err("a host stands without port"));
    check_route("http://example.com/", Err("a host stands without port"));
    check_route("bücher.example/", Err("a host name is written in ASCII (\"xn--…\")"));
    check_route("example..com/", Err("\"example..com\" is no host name"));
    check_route("*./", Err("\"*.\" is no host name"));
    check_route("a b.com/", Err("\"a b.com\" is no host name"));
    check_route("[::g]/", Err("\"[::g]\" is no IPv6 address"));
    check_route(&"/x".repeat(600), Err("at most 1024 bytes are allowed"));
}

#[test]
fn a_list_of_routes_is_whole() {
    check_sidecar_refused(
        "routes = []",
        "line 1: routes = []: at least one route is wanted; without the key an app is served at its name",
    );
    check_sidecar_refused("routes = [\"/a\", \"/a/\"]", "line 1: route \"/a/\": it is there twice");
    check_sidecar_refused("routes = 1", "line 1: routes = 1: a list of texts is wanted, such as [\"…\", \"…\"]");
    assert_eq!(spec("routes = \"/one\"").map(|spec| spec.routes.len()), Ok(1));
    let many = format!("routes = {:?}", (0..101).map(|n| format!("/{n}")).collect::<Vec<_>>());
    assert!(spec(&many).is_err_and(|reason| reason.ends_with("at most 100 routes are allowed")));
}

#[test]
fn environment_variables_cannot_pose_as_the_servers() {
    let spec = spec("[env]\nB = \"2\"\nA = \"é=\\n\"\n\"my.key\" = \"\"").expect("it is right");
    let variable = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    assert_eq!(spec.env, [variable("A", "é=\n"), variable("B", "2"), variable("my.key", "")]);

    check_sidecar_refused("[env]\nPATH_INFO = \"x\"", "line 2: env.PATH_INFO: the server sets this variable");
    check_sidecar_refused("[env]\nPath_Info = \"x\"", "line 2: env.Path_Info: the server sets this variable");
    check_sidecar_refused(
        "[env]\nHTTP_HOST = \"x\"",
        "line 2: env.HTTP_HOST: the variables that begin with \"HTTP_\" are the server's",
    );
    check_sidecar_refused(
        "[env]\n\"wsgi.input\" = \"x\"",
        "line 2: env.wsgi.input: the variables that begin with \"wsgi.\" are the server's",
    );
    let name = "a name has letters, digits, \"_\", \".\" and \"-\", and begins with a letter or \"_\"";
    check_sidecar_refused("[env]\n\"A=B\" = \"x\"", &format!("line 2: env.A=B: {name}"));
    check_sidecar_refused("[env]\n\"\" = \"x\"", &format!("line 2: env.: {name}"));
    check_sidecar_refused("[env]\n\"A\\u0000B\" = \"x\"", &format!("line 2: env.A\\0B: {name}"));
    check_sidecar_refused("[env]\nA = 1", "line 2: env.A: a text in quotes is wanted");
    check_sidecar_refused("[env]\nA = \"s3cret\\u0000\"", "line 2: env.A: a value has no NUL");
    let large = format!("[env]\nA = \"{}\"", "x".repeat(33 << 10));
    check_sidecar_refused(&large, "line 2: env.A: all variables together have at most 32KiB");
}

#[test]
fn an_app_chooses_its_instances_within_the_operators_numbers() {
    let kept = |requests_max, seconds| Kept {
        requests_max,
        idle_time: Duration::from_secs(seconds),
        memory_bytes_max: Config::default().reuse_memory_bytes,
    };
    let reuse = |requests_max, seconds| Instances::Reuse(kept(requests_max, seconds));
    let instances =
        |config: &Config, sidecar| config.app_spec("a", Some(sidecar), &Manifest::default()).map(|spec| spec.instances);
    let fresh = Config::default();
    assert_eq!(instances(&fresh, "instances = \"reuse\""), Ok(reuse(1000, 60)));
    assert_eq!(instances(&fresh, "instances = \"reuse\"\nreuse_requests = 5"), Ok(reuse(5, 60)));
    assert_eq!(instances(&fresh, "instances = \"fresh\""), Ok(Instances::Fresh));
    assert_eq!(instances(&fresh, "instances = \"rewind\"\nreuse_requests = 7"), Ok(Instances::Rewind(kept(7, 60))));
    let reusing = Config { instances: reuse(1000, 60), ..Config::default() };
    assert_eq!(instances(&reusing, ""), Ok(reuse(1000, 60)));
    assert_eq!(instances(&reusing, "reuse_idle_time = \"2s\""), Ok(reuse(1000, 2)));
    assert_eq!(instances(&reusing, "instances = \"fresh\""), Ok(Instances::Fresh));

    check_sidecar_refused(
        "reuse_requests = 5",
        "line 1: reuse_requests = 5: it says nothing without instances = \"reuse\" or \"rewind\"",
    );
    check_sidecar_refused(
        "instances = \"reuse\"\nreuse_requests = 5000",
        "line 2: reuse_requests = 5000: more than the operator's 1000; an app may only lower it",
    );
    check_sidecar_refused("instances = true", "line 1: instances = true: a text in quotes is wanted");
}

#[test]
fn an_app_lowers_its_limits_and_never_raises_them() {
    let limits = spec("[limits]\nmemory = \"1MiB\"\ncpu_time = \"5s\"").expect("it is right").limits;
    assert_eq!(limits, Limits { memory_bytes: 1 << 20, ..Limits::default() });
    check_sidecar_refused(
        "\n[limits]\nmemory = \"1GiB\"",
        "line 3: limits.memory = \"1GiB\": more than the operator's 128MiB; an app may only lower its limits",
    );
    check_sidecar_refused("[limits]\ncpu_time = \"0s\"", "line 2: limits.cpu_time = \"0s\": 1ms to 1h is allowed");
    let found = spec("[limits]\nworkers = 1").expect_err("it is refused");
    assert!(found.starts_with("line 2: limits.workers is unknown; there are memory"), "{found}");
}

#[test]
fn a_sidecar_with_anything_unknown_is_refused() {
    let found = spec("route = [\"/x\"]").expect_err("it is refused");
    assert!(
        found.starts_with("line 1: unknown field `route`, expected one of `routes`, `env`, `instances`"),
        "{found}"
    );
    let found = spec("routes = [\"/x\"").expect_err("it is refused");
    assert!(found.starts_with("line 1: "), "{found}");
    let found = spec(&"#".repeat(300 << 10)).expect_err("it is refused");
    assert_eq!(found, "sidecar: 307200 bytes: at most 262144 are allowed");
}

#[test]
fn development_mode_listens_on_this_machine_only() {
    for (bind, allowed) in [
        ("127.0.0.1:8000", true),
        ("[::1]:8000", true),
        ("unix:/run/wasgi.sock", true),
        ("0.0.0.0:8000", false),
        ("[::]:8000", false),
        ("192.0.2.1:80", false),
        ("fd://3", false),
    ] {
        let found = load(&format!("dev = true\nbind = [\"127.0.0.1:0\", \"{bind}\"]"));
        assert_eq!(found.is_ok(), allowed, "{bind}: {found:?}");
        assert!(found.is_ok_and(|config| config.dev) || !allowed);
        let flag = load_with(&format!("bind = \"{bind}\""), |settings| settings.dev = true);
        assert_eq!(flag.is_ok(), allowed, "{bind}");
    }
    check_refused("dev = \"yes\"", "wasgi.toml line 1: dev = \"yes\": true or false is wanted");
}
