//! The claims of `bind` and what goes with it: places, systemd's sockets, certificates.

use super::*;

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
