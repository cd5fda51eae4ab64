//! Whose keys are whose, and grants that come and go.

use rustix::process::Signal;
use tests::{Host, Request, eventually, guest, wasgi};

use super::{ASK, GRANT, kinds, target, tries};

#[test]
fn a_store_is_its_apps_own_or_its_tenants_and_nobody_elses() {
    let config = "[grant.keyvalue]\ndefault = {}\nsessions = { shared = true }\n\
                  [tenant.acme.grant.keyvalue]\ndefault = {}\nsessions = { shared = true, apps = ['one', 'two'] }\n\
                  [tenant.other.grant.keyvalue]\ndefault = {}\nsessions = { shared = true }\n";
    let both = "keyvalue = ['default', 'sessions']";
    let apps = ["one", "two", "acme/one", "acme/two", "acme/one/default", "other/one"];
    let host = Host::start(|host| {
        let host = apps.into_iter().fold(host.config(config), |host, app| {
            let sidecar = if app == "acme/one/default" { "keyvalue = 'default'" } else { both };
            host.app(app, guest("site")).sidecar(app, sidecar)
        });
        host.app("acme/three", guest("site")).sidecar("acme/three", both)
    });
    for app in apps {
        assert_eq!(tries(&host, app, &format!("set,default,who,{}", app.replace('/', "-"))), "done");
    }
    for app in apps {
        assert_eq!(tries(&host, app, "get,default,who"), format!("[{}]", app.replace('/', "-")));
        assert_eq!(tries(&host, app, "keys,default"), "who");
    }
    for (app, expected) in [("one", "none"), ("two", "[one]"), ("acme/one", "none"), ("acme/two", "[acme-one]")] {
        assert_eq!(tries(&host, app, "get,sessions,who"), expected, "{app}");
        assert_eq!(tries(&host, app, &format!("set,sessions,who,{}", app.replace('/', "-"))), "done");
    }
    assert_eq!(tries(&host, "other/one", "get,sessions,who"), "none");
    // Names that try to be another's.
    for name in
        ["acme/one/default", "/sessions", "../acme", "one/default", "+usage", "default%00", "DEFAULT", "sessions/"]
    {
        let answer = tries(&host, "other/one", &format!("get,{name},who"));
        assert_eq!(answer, "error Error::NoSuchStore", "{name}");
    }
    assert_eq!(tries(&host, "acme/one/default", "get,sessions,who"), "error Error::NoSuchStore");
    let words = "line 1: keyvalue = [\"default\",\"sessions\"]: the operator has not granted \"sessions\"";
    host.listed_problem("acme/three", &words.replace("\",\"", "\", \""));
    host.log_contains("refused the key-value store \"../acme\": the app has not asked for a store of this name");
}

#[test]
fn without_a_grant_the_app_is_refused_and_without_asking_it_has_none() {
    let host = Host::start(|host| {
        let host = host.config("[tenant.acme.grant.keyvalue]\ndefault = { apps = ['*'] }\n");
        host.app("asks", guest("site")).sidecar("asks", ASK).app("acme/quiet", guest("site"))
    });
    let words = "the operator has not granted \"default\": it is to stand in [grant.keyvalue]";
    assert!(host.listed_problem("asks", words).text("problem").contains("line 1"));
    assert_eq!(tries(&host, "acme/quiet", "get,default,a"), "error Error::NoSuchStore");
    // What an app would need is said before it is served.
    let checked = wasgi().args(["check", "apps/acme/quiet.wasm"]).current_dir(host.folder()).output();
    let checked = String::from_utf8(checked.expect("the binary can be run").stdout).expect("it prints text");
    let line = "imports wasi:keyvalue@0.2.0-draft2: store, atomics, batch  \
                (of use only with key-value stores: [grant.keyvalue], and keyvalue in the sidecar)";
    assert!(checked.contains(line), "{checked}");
}

#[test]
fn a_store_that_is_taken_away_is_gone_for_calls_that_run_and_comes_back_with_its_keys() {
    let host = Host::start(|host| {
        let host = host.config(GRANT);
        kinds().into_iter().fold(host, |host, (name, wasm)| host.app(name, wasm).sidecar(name, ASK))
    });
    for (app, _) in kinds() {
        assert_eq!(tries(&host, app, "set,default,a,kept"), "done");
        let begun = || host.log().all(|event| event.message().contains("the store is open")).len();
        let before = begun();
        let mut holds = host.connect();
        holds.send(&Request::get(&target(app, "hold,default")).to_bytes());
        eventually("it has begun", || (begun() > before).then_some(()));
        host.write_config("");
        host.signal(Signal::HUP);
        let said = holds.response("GET").text();
        assert!(said.contains(", then Error::AccessDenied"), "{app}: {said}");
        assert_eq!(tries(&host, app, "get,default,a"), "error Error::AccessDenied", "{app}");
        host.listed_problem(app, "the operator has not granted \"default\"");
        host.write_config(GRANT);
        host.signal(Signal::HUP);
        eventually("it is granted again", || (tries(&host, app, "get,default,a") == "[kept]").then_some(()));
    }
}
