//! The claims of sidecars: what apps may say, and how it counts with what the operator says.

use super::*;

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
    let coarser = spec("[limits]\nclock_resolution = \"1ms\"").expect("it is right").limits;
    assert_eq!(coarser.clock_resolution, Duration::from_millis(1));
    let config = load("[limits]\nclock_resolution = \"1ms\"").expect("it is right");
    let finer = config.app_spec("a", Some("[limits]\nclock_resolution = \"999us\""), &Manifest::default());
    assert_eq!(
        finer.expect_err("it is refused").to_string(),
        "line 2: limits.clock_resolution = \"999us\": less than the operator's 1ms; an app may only raise it"
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
