//! The claims of tenants and what they are granted.

use super::*;

/// Two tenants that the operator speaks of.
const TENANTS: &str = r#"
    [grant]
    data = ["*"]
    [grant.env]
    REGION = "here"
    [tenant.acme]
    routes = ["/acme", "acme.example", "*.acme.example/shop"]
    [tenant.acme.limits]
    memory = "16MiB"
    queue_time = "9s"
    [tenant.acme.grant]
    data = ["shop"]
    [tenant.acme.grant.env]
    REGION = "eu"
    MODE = "live"
    [tenant.acme.grant.secrets]
    TOKEN = { env = "HUSH", apps = ["shop"] }
    [tenant.acme.grant.directories]
    "/media" = { path = "/srv/media", apps = ["shop"] }
    [tenant.hive]
    routes = ["/bee", "/acme/bee", "www.acme.example"]
"#;

/// What becomes of an app with this sidecar.
fn ask(config: &Config, name: &str, sidecar: &str) -> Result<AppSpec, String> {
    config.app_spec(name, Some(sidecar), &Manifest::default()).map_err(|error| error.to_string())
}

#[test]
fn a_tenant_has_its_places_and_what_lies_below_them() {
    let config = load(TENANTS).expect("it is right");
    for (app, route, expected) in [
        ("acme/shop", "/acme/x", true),
        ("acme/shop", "acme.example/", true),
        ("acme/shop", "a.acme.example/shop/cart", true),
        ("acme/shop", "a.acme.example/", false),
        ("acme/shop", "/", false),
        ("acme/shop", "/bee", false),
        ("acme/shop", "/shop", false),
        ("acme/shop", "other.example/", false),
        // The inner of two places is given.
        ("acme/shop", "/acme/bee/x", false),
        ("acme/shop", "www.acme.example/shop", false),
        ("hive/shop", "/acme/bee/x", true),
        ("hive/shop", "www.acme.example/shop", true),
        ("hive/shop", "/acme/other", false),
        // Of these the operator says nothing: they have their folder's name.
        ("cat/shop", "/cat/x", true),
        ("cat/shop", "/", false),
        ("cat/shop", "/catalogue", false),
        ("cat/shop", "cat.example/", false),
        ("cat/shop", "*.example/", false),
        ("cat/shop", "/acme", false),
        // The operator's own may have whatever was not given.
        ("shop", "/", true),
        ("shop", "/cat/x", true),
        ("shop", "other.example/", true),
        ("shop", "/acme", false),
        ("shop", "/acme/bee", false),
        ("shop", "acme.example/x", false),
    ] {
        let found = ask(&config, app, &format!("routes = [\"{route}\"]"));
        assert_eq!(found.is_ok(), expected, "{app} {route}: {found:?}");
        if let Err(reason) = found {
            assert!(reason.starts_with("line 1: route \""), "{reason}");
            // Nothing says whose it is.
            assert!(!reason.contains("hive") || app.starts_with("hive"), "{app} {route}: {reason}");
            assert!(!reason.contains("to acme") || app.starts_with("acme"), "{app} {route}: {reason}");
        }
    }
}

#[test]
fn without_routes_an_app_is_at_its_tenants_first_place() {
    let config = load("[tenant.a]\nroutes = [\"a.example/x\", \"/a\"]\n[tenant.b]\n[tenant.c]\nroutes = [\"/\"]")
        .expect("it is right");
    let route = |name| config.app_spec(name, None, &Manifest::default()).map(|spec| spec.routes[0].to_string());
    for (name, expected) in [
        ("a/index", "a.example/x"),
        ("a/shop", "a.example/x/shop"),
        ("b/shop", "/b/shop"),
        ("c/shop", "/shop"),
        ("d/shop", "/d/shop"),
        ("d/index", "/d"),
    ] {
        assert_eq!(route(name).as_deref(), Ok(expected), "{name}");
    }
    // All of the root was given away.
    let refused = route("shop").expect_err("it may not").to_string();
    assert_eq!(refused, "app \"shop\": its place is /shop, and it was given to a tenant");
}

#[test]
fn a_tenants_limits_are_the_ceiling_of_its_apps() {
    let config = load(TENANTS).expect("it is right");
    let spec = ask(&config, "acme/shop", "").expect("it may");
    assert_eq!((spec.limits.memory_bytes, spec.limits.queue_time), (16 << 20, Duration::from_secs(9)));
    assert_eq!(ask(&config, "hive/shop", "").expect("it may").limits, Limits::default());
    assert_eq!(
        ask(&config, "acme/shop", "[limits]\nmemory = \"32MiB\"").expect_err("it is more"),
        "line 2: limits.memory = \"32MiB\": more than the operator's 16MiB; an app may only lower its limits"
    );
    check_refused(
        "[tenant.a.limits]\nmemory = \"1GiB\"",
        "wasgi.toml line 2: tenant.a.limits.memory = \"1GiB\": more than the 128MiB of [limits], for which the host is laid out",
    );
}

#[test]
fn what_is_granted_is_asked_for_and_what_is_not_is_refused_with_its_line() {
    let config = load(TENANTS).expect("it is right");
    let all = "data = true\nsecrets = [\"TOKEN\"]\ndirectories = [\"/media\"]\n[env]\nMODE = \"test\"";
    let spec = ask(&config, "acme/shop", all).expect("it may");
    assert_eq!(spec.data, Some("data/acme+shop".into()));
    assert_eq!(spec.secrets, [("TOKEN".to_owned(), SecretSource::Environment("HUSH".to_owned()))]);
    assert_eq!(spec.directories[0].path, std::path::PathBuf::from("/srv/media"));
    let variable = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    assert_eq!(spec.env, [variable("MODE", "test"), variable("REGION", "eu")]);
    // Who does not ask has its tenant's variables, and nothing else.
    let quiet = ask(&config, "acme/shop", "").expect("it may");
    assert_eq!((quiet.data, quiet.secrets.len(), quiet.directories.len(), quiet.env.len()), (None, 0, 0, 2));
    for (app, sidecar, expected) in [
        (
            "acme/blog",
            "\ndata = true",
            "line 2: data = true: the operator has not granted it: put \"blog\" into `data` of [tenant.acme.grant]",
        ),
        (
            "acme/blog",
            "secrets = [\"TOKEN\"]",
            "line 1: secrets = [\"TOKEN\"]: the operator has not granted \"TOKEN\": it is to stand in [tenant.acme.grant.secrets]",
        ),
        (
            "hive/shop",
            "\ndirectories = \"/media\"",
            "line 2: directories = \"/media\": the operator has not granted \"/media\": it is to stand in [tenant.hive.grant.directories]",
        ),
        (
            "cat/shop",
            "data = true",
            "line 1: data = true: the operator has not granted it: put \"shop\" into `data` of [tenant.cat.grant]",
        ),
        (
            "acme/shop",
            "secrets = [\"TOKEN\"]\n[env]\nTOKEN = \"own\"",
            "line 3: env.TOKEN: it is asked for as a secret as well: remove one of them",
        ),
    ] {
        assert_eq!(ask(&config, app, sidecar).expect_err(sidecar), expected);
    }
    assert_eq!(ask(&config, "shop", "").expect("it may").env, [variable("REGION", "here")]);
    assert!(ask(&config, "cat/shop", "").expect("it may").env.is_empty());
}

#[test]
fn what_was_taken_away_is_not_allowed_any_more() {
    let config = load(TENANTS).expect("it is right");
    let all = "data = true\nsecrets = [\"TOKEN\"]\ndirectories = [\"/media\"]\nroutes = [\"acme.example\"]";
    let spec = ask(&config, "acme/shop", all).expect("it may");
    assert_eq!(config.fitted(&spec).as_ref(), Some(&spec));
    for (old, new) in [
        ("data = [\"shop\"]", "data = []"),
        ("TOKEN = ", "OTHER = "),
        ("env = \"HUSH\"", "env = \"OTHER\""),
        ("\"/media\" = ", "\"/other\" = "),
        ("path = \"/srv/media\"", "path = \"/srv/other\""),
        ("\"acme.example\", ", ""),
        ("[tenant.hive]\n    routes = [", "[tenant.hive]\n    routes = [\"acme.example/\", "),
    ] {
        let text = match old.contains("hive") {
            true => TENANTS.replace("\"acme.example\", ", "").replace(old, new),
            false => TENANTS.replace(old, new),
        };
        assert_ne!(text, TENANTS);
        let changed = load(&text).expect("it is right");
        assert_eq!(changed.fitted(&spec), None, "{new}");
    }
    // What others have is no matter of it.
    assert_eq!(load(&(TENANTS.to_owned() + "[tenant.new]")).expect("it is right").fitted(&spec), Some(spec));
}

#[test]
fn what_is_live_goes_on_with_ceilings_quotas_and_variables_of_now() {
    let settings = "reuse_requests = 100\n[tenant.acme.limits]\ncpu_time = \"10s\"\nclock_resolution = \"1ms\"\nhandles = 100\n\
        [tenant.acme.grant.env]\nREGION = \"here\"\nMODE = \"a\"\nOWN = \"theirs\"\n\
        [tenant.acme.grant.directories]\n\"/m\" = { path = \"/srv/m\", write = true, size = \"1GiB\" }\n";
    let sidecar = "instances = \"reuse\"\ndirectories = \"/m\"\n[limits]\nhandles = 50\n[env]\nOWN = \"mine\"";
    let spec = ask(&load(settings).expect("it is right"), "acme/shop", sidecar).expect("it may");
    let changed = settings
        .replace("reuse_requests = 100", "reuse_requests = 10")
        .replace("10s", "1s")
        .replace("1ms", "5ms")
        .replace("handles = 100", "handles = 70")
        .replace("REGION = \"here\"\n", "")
        .replace("MODE = \"a\"", "MODE = \"b\"")
        .replace("OWN = \"theirs\"\n", "NEW = \"x\"\n")
        .replace("1GiB", "1MiB");
    let config = load(&changed).expect("it is right");
    let fitted = config.fitted(&spec).expect("it may go on");
    let variable = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let limits = &fitted.limits;
    assert_eq!((limits.cpu_time.as_secs(), limits.clock_resolution.as_millis(), limits.handles), (1, 5, 50));
    assert_eq!(fitted.env, [variable("MODE", "b"), variable("OWN", "mine")]);
    assert_eq!((fitted.directories[0].bytes_max, fitted.env_granted.as_slice()), (1 << 20, &["MODE".to_owned()][..]));
    assert!(matches!(fitted.instances, Instances::Reuse(Kept { requests_max: 10, .. })), "{:?}", fitted.instances);
    // It fits from then on, and more is nothing that it gets without asking again.
    assert_eq!(config.fitted(&fitted), Some(fitted.clone()));
    let before = load(settings).expect("it is right").fitted(&fitted).expect("it may go on");
    assert_eq!((&before.limits, before.directories), (&fitted.limits, fitted.directories));
}

#[test]
fn tenants_are_named_once_and_their_places_are_their_own() {
    check_refused(
        "[tenant.a]\nroutes = [\"/x\"]\n[tenant.b]\nroutes = [\"/x/\"]",
        "tenant \"b\": routes: /x is a's: give one of them another place",
    );
    check_refused(
        "[tenant.\"a/b\"]",
        "wasgi.toml line 1: tenant \"a/b\": the name of a folder of the apps directory is wanted",
    );
    check_refused(
        "[tenant.a]\nroutes = []",
        "wasgi.toml line 2: tenant.a.routes = []: at least one route is wanted; without the key a tenant has the places below its name",
    );
    check_refused(
        "[grant]\ndata = [\"blog/one\"]",
        "wasgi.toml line 2: grant.data = [\"blog/one\"]: apps in the folder blog belong to the tenant blog: write [tenant.blog.grant]",
    );
    check_refused(
        "[grant.outbound]\n\"blog/*\" = [\"https://example.com\"]",
        "wasgi.toml line 2: grant.outbound.\"blog/*\" = [\"https://example.com\"]: apps in the folder blog belong to the tenant \
         blog: write [tenant.blog.grant]",
    );
    check_refused(
        "[grant.secrets]\nKEY = { env = \"HUSH\", apps = [\"shop\", \"blog/one\"] }",
        "wasgi.toml line 2: grant.secrets.\"KEY\".apps = [\"shop\", \"blog/one\"]: apps in the folder blog belong to the tenant \
         blog: write [tenant.blog.grant]",
    );
    check_refused(
        "[grant.directories]\n\"/media\" = { path = \"/srv\", apps = [\"blog/*\"] }",
        "wasgi.toml line 2: grant.directories.\"/media\".apps = [\"blog/*\"]: apps in the folder blog belong to the tenant \
         blog: write [tenant.blog.grant]",
    );
    let found = load("[tenant.a]\nroute = [\"/x\"]").expect_err("it is refused");
    assert!(found.starts_with("wasgi.toml line 2: unknown field `route`"), "{found}");
}

#[test]
fn a_secret_that_is_written_where_its_place_belongs_is_in_no_message() {
    for value in
        ["\"hush\"", "{ text = \"hush\" }", "{ file = 1, env = \"hush\" }", "{ file = \"hush\", env = \"hush\" }"]
    {
        let refused = load(&format!("[tenant.a.grant.secrets]\nKEY = {value}")).expect_err(value);
        assert!(
            refused.starts_with("wasgi.toml line 2: tenant.a.grant.secrets.\"KEY\": a place is wanted"),
            "{refused}"
        );
        assert!(!refused.contains("hush"), "{refused}");
    }
    let refused = load("[tenant.a.grant.secrets]\nPATH_INFO = { env = \"A\" }").expect_err("it is the server's");
    assert!(refused.ends_with("the server sets this variable"), "{refused}");
}

#[test]
fn directories_that_guests_see_lie_apart_from_the_hosts() {
    for (entry, words) in [
        ("\"media\" = { path = \"/m\" }", "an absolute path is wanted"),
        ("\"/\" = { path = \"/m\" }", "at a path of its own"),
        ("\"/media/\" = { path = \"/m\" }", "at a path of its own"),
        ("\"/data/x\" = { path = \"/m\" }", "at a path of its own"),
        ("\"/m/../x\" = { path = \"/m\" }", "an absolute path is wanted"),
        ("\"/m\" = \"/m\"", "a place is wanted"),
        ("\"/m\" = { write = true }", "a place is wanted"),
        ("\"/m\" = { path = \"/m\", write = \"yes\" }", "a place is wanted"),
        ("\"/m\" = { path = \"apps/x\" }", "it and the apps directory"),
        ("\"/m\" = { path = \"state\" }", "it and the state directory"),
        ("\"/m\" = { path = \".\" }", "it and the apps directory"),
        ("\"/m\" = { path = \"data/x\" }", "it and the data directory"),
    ] {
        let dirs = "apps_dir = \"apps\"\nstate_dir = \"state\"\ndata_dir = \"data\"\n";
        let refused = load(&format!("{dirs}[tenant.a.grant.directories]\n{entry}")).expect_err(entry);
        assert!(refused.contains(words), "{entry}: {refused}");
    }
}

#[test]
fn a_tenant_may_have_a_file_of_its_own() {
    let folder = tempfile::tempdir().expect("a folder");
    let write = |name: &str, text: &str| {
        std::fs::create_dir_all(folder.path().join("tenants.d")).expect("folders can be made");
        std::fs::write(folder.path().join(name), text).expect("the file is written");
    };
    let load = |change: &dyn Fn(&mut Settings)| {
        let mut settings = Settings { file: Some(folder.path().join("wasgi.toml")), ..Settings::default() };
        change(&mut settings);
        let strip = format!("{}/", folder.path().display());
        Config::load(&settings).map_err(|error| error.to_string().replace(&strip, ""))
    };
    write("wasgi.toml", "[limits]\ncpu_time = \"2s\"\n[tenant.a]");
    write("tenants.d/b.toml", "routes = [\"b.example\"]\n[limits]\nhandles = 9\n[grant.secrets]\nK = { file = \"k\" }");
    write("tenants.d/notes.txt", "nothing");
    let config = load(&|_| {}).expect("it is right");
    assert_eq!(config.tenants.keys().collect::<Vec<_>>(), ["a", "b"]);
    let tenant = &config.tenants["b"];
    assert_eq!((tenant.limits.handles, tenant.limits.cpu_time), (9, Duration::from_secs(2)));
    let place = SecretSource::File(folder.path().join("tenants.d/k"));
    assert_eq!(tenant.grants.secrets["K"].source, place);
    // The limits of all layers are the default of tenants, too.
    let flagged = load(&|settings| settings.limits = vec!["cpu_time=1s".to_owned()]).expect("it is right");
    assert_eq!(flagged.tenants["b"].limits.cpu_time, Duration::from_secs(1));
    std::fs::create_dir(folder.path().join("empty")).expect("folders can be made");
    let named = |name: &str| load(&|settings| settings.tenants_dir = Some(folder.path().join(name)));
    assert_eq!(named("empty").expect("it is right").tenants.len(), 1);
    // Without the files there would be no tenant, no limit of theirs, and nobody's places.
    let missing = "none: the tenants' files cannot be read: No such file or directory (os error 2)";
    assert_eq!(named("none").expect_err("it was named"), missing);
    write("wasgi.toml", "tenants_dir = \"none\"");
    assert_eq!(load(&|_| {}).expect_err("it was named"), missing);
    write("wasgi.toml", "[limits]\ncpu_time = \"2s\"\n[tenant.a]");

    write("tenants.d/a.toml", "");
    let twice = "tenants.d/a.toml: there is a [tenant.a] in the settings file as well: remove one of them";
    assert_eq!(load(&|_| {}).expect_err("it is there twice"), twice);
    std::fs::remove_file(folder.path().join("tenants.d/a.toml")).expect("it is there");
    write("tenants.d/b.toml", "\nlimits.handles = 1");
    let low = "tenants.d/b.toml line 2: limits.handles = 1: 8 to 1000000 is allowed";
    assert_eq!(load(&|_| {}).expect_err("it is too low"), low);
    write("tenants.d/b.toml", "");
    write("wasgi.toml", "apps_dir = \"tenants.d\"");
    assert!(load(&|_| {}).is_err_and(|reason| reason.starts_with("tenants_dir ")));
}

#[test]
fn time_and_randomness_are_had_unless_the_operator_says_otherwise() {
    // What the operator says; which app; whether it has them.
    for (config, app, expected) in [
        ("", "shop", (true, true)),
        ("", "acme/shop", (true, true)),
        ("[grant]\nrandomness = false", "shop", (true, false)),
        ("[grant]\nrandomness = false", "acme/shop", (true, false)),
        ("[grant]\nwall_clock = []\n[tenant.acme.grant]\nwall_clock = true", "acme/shop", (true, true)),
        ("[grant]\nwall_clock = 'shop'", "shop", (true, true)),
        ("[grant]\nwall_clock = 'shop'", "other", (false, true)),
        // A list is of those that lie in no folder, and of nobody else.
        ("[grant]\nwall_clock = 'shop'", "acme/shop", (false, true)),
        ("[tenant.acme.grant]\nwall_clock = ['blog/*']\nrandomness = 'shop'", "acme/blog/a", (true, false)),
        ("[tenant.acme.grant]\nwall_clock = ['blog/*']\nrandomness = 'shop'", "acme/shop", (false, true)),
        ("[tenant.acme.grant]\nwall_clock = ['blog/*']\nrandomness = 'shop'", "hive/a", (true, true)),
    ] {
        let config = load(config).expect(config);
        let held =
            |sidecar| config.held_by(&config.app_spec(app, Some(sidecar), &Manifest::default()).expect("it may"));
        assert_eq!((held("").wall_clock, held("").randomness), expected, "{app}: {}", config.to_toml());
        let modest = held("wall_clock = false\nrandomness = false");
        assert!(!modest.wall_clock && !modest.randomness);
    }
    check_refused(
        "[grant]\nwall_clock = 1",
        "wasgi.toml line 2: grant.wall_clock = 1: true, false or names of the tenant's apps are wanted: [\"shop\", \"blog/*\"]",
    );
    let asks = |config: &str| {
        let spec = load(config).expect(config).app_spec("acme/a", Some("randomness = true"), &Manifest::default());
        spec.map_err(|error| error.to_string())
    };
    let spec = asks("").expect("it may");
    let refused = asks("[tenant.acme.grant]\nrandomness = 'b'").expect_err("it may not");
    assert_eq!(
        refused,
        "line 1: randomness = true: the operator has not granted it: put \"a\" into `randomness` of [tenant.acme.grant], or leave this out"
    );
    assert!(load("").expect("it is right").fitted(&spec).is_some());
    assert!(load("[grant]\nrandomness = false").expect("it is right").fitted(&spec).is_none());
}

#[test]
fn directories_to_write_to_have_a_size() {
    let config = |entry: &str| {
        load(&format!("[limits]\ndata_files = 50\n[grant.directories]\n'/out' = {{ path = '/o', {entry} }}"))
    };
    let spec = |entry| {
        let spec =
            config(entry).expect("it is right").app_spec("a", Some("directories = '/out'"), &Manifest::default());
        spec.expect("it may").directories.remove(0)
    };
    let sizes = |spec: DirectorySpec| (spec.bytes_max, spec.names_max);
    assert_eq!(sizes(spec("write = true")), (1 << 30, 50));
    assert_eq!(sizes(spec("write = true, size = '2MiB', files = 60")), (2 << 20, 60));
    for (entry, words) in [
        ("size = '1MiB'", "size bounds what guests write: it says nothing without write = true"),
        ("write = true, size = 'much'", ".size = \"much\": a size is wanted, such as"),
        ("write = true, files = 0", ".files = 0: 1 to 1000000000 is allowed"),
    ] {
        let refused = config(entry).expect_err("it is wrong");
        assert!(refused.contains(words), "{refused}");
    }
}
