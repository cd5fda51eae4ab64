//! The claims of what may lie in which directory.

use std::os::unix::fs::symlink;

use super::*;

/// Loads a configuration of directories that lie in a folder, after `prepare`.
fn load_in(prepare: impl FnOnce(&Path), text: &str) -> Result<Config, String> {
    let folder = tempfile::tempdir().expect("a folder");
    let place = folder.path().canonicalize().expect("it is there");
    for name in ["apps/acme", "state", "data/shop", "out/inner", "kept"] {
        std::fs::create_dir_all(place.join(name)).expect("folders can be made");
    }
    prepare(&place);
    let file = place.join("wasgi.toml");
    let dirs = "apps_dir = \"apps\"\nstate_dir = \"state\"\ndata_dir = \"data\"\n";
    std::fs::write(&file, format!("{dirs}{text}")).expect("the file is written");
    let settings = Settings { file: Some(file), ..Settings::default() };
    let strip = format!("{}/", place.display());
    Config::load(&settings).map_err(|error| error.to_string().replace(&strip, ""))
}

const GRANTS: &str = "[grant]\ndata = \"*\"\n[tenant.a.grant.directories]\n'/out' = { path = 'out', write = true }\n\
                      '/in' = { path = 'out/inner' }\n";

#[test]
fn what_the_host_believes_lies_where_nobody_else_writes() {
    let link = |from: &'static str, to: &'static str| move |place: &Path| symlink(to, place.join(from)).expect("links");
    let none = |_: &Path| {};
    type Prepare = Box<dyn FnOnce(&Path)>;
    let cases: Vec<(Prepare, &str, &str)> = vec![
        (Box::new(none), "keyvalue_redis = { file = 'out/x' }", "keyvalue_redis out/x"),
        (Box::new(none), "outbound_cafile = 'out/inner/x'", "outbound_cafile out/inner/x"),
        (Box::new(none), "certfile = 'data/shop/x'", "certfile data/shop/x"),
        (Box::new(none), "certfile = 'kept/x'\nkeyfile = 'apps/acme/x'", "keyfile apps/acme/x"),
        (Box::new(none), "bind = 'unix:out/x'", "bind out/x"),
        (Box::new(none), "confine_paths = 'out/x'", "confine_paths out/x"),
        (Box::new(none), "tenants_dir = 'out/inner'", "tenants_dir out/inner"),
        (Box::new(none), "access_log.file = 'out/x'", "access_log.file out/x"),
        // By a link of the operator's, and by one that a guest has made since.
        (Box::new(link("kept/x", "../out/x")), "outbound_cafile = 'kept/x'", "outbound_cafile kept/x"),
        (Box::new(link("out/x", "../kept/y")), "outbound_cafile = 'out/x'", "outbound_cafile out/x"),
        (
            Box::new(move |place| {
                link("kept/x", "../out/x")(place);
                link("out/x", "../kept")(place);
            }),
            "outbound_cafile = 'kept/x/y'",
            "outbound_cafile kept/x/y",
        ),
    ];
    for (prepare, line, what) in cases {
        let refused = load_in(prepare, &format!("{line}\n{GRANTS}")).expect_err(line);
        let begin = format!("{what}: the way to it leads into ");
        assert!(refused.starts_with(&begin) && refused.ends_with("keep it elsewhere"), "{line}: {refused}");
    }
    let secret = "[tenant.b.grant.secrets]\nK = { file = 'out/x' }";
    let refused = load_in(none, &format!("{GRANTS}{secret}")).expect_err("guests write there");
    assert!(refused.starts_with("tenant.b.grant.secrets.K out/x: the way to it leads into out, "), "{refused}");
    // Links of the operator's are links as ever; and in a folder is not beside it.
    for line in ["outbound_cafile = 'kept/x'", "outbound_cafile = 'out/../kept/y'", "confine_paths = ['out', '.']"] {
        let loaded = load_in(link("kept/x", "y"), &format!("{line}\n{GRANTS}{}", secret.replace("out/x", "outer")));
        assert!(loaded.is_ok(), "{line}: {loaded:?}");
    }
}

#[test]
fn what_guests_have_made_of_a_directory_says_nothing_about_the_configuration() {
    for target in ["../state", "../apps", "../data", "../..", "inner", "/"] {
        let planted = |place: &Path| {
            std::fs::remove_dir(place.join("out/inner")).expect("it is there");
            symlink(target, place.join("out/inner")).expect("links can be made");
        };
        let loaded = load_in(planted, GRANTS);
        assert!(loaded.is_ok(), "{target}: {loaded:?}");
    }
}
