//! What guests notice of time and chance: as coarse as the operator says, or nothing.

use super::reload;
use crate::files::kinds;
use tests::{Host, eventually, guest, wasgi};

/// 2000-01-01T00:00:00Z, in nanoseconds.
const WITHHELD: &str = "946684800000000000";
const MS: u64 = 1_000_000;
const STEP: u64 = 50 * MS;

#[track_caller]
fn sense(host: &Host, app: &str, words: &str) -> String {
    let response = match app.rsplit('/').next() {
        Some("cgi" | "p2" | "p3" | "program") => host.get(&format!("/{app}/senses?{words}")),
        _ => host.get(&format!("/{app}?senses={words}")),
    };
    assert_eq!(response.status(), 200, "{app} {words}: {}", response.text());
    response.text().trim_end().to_owned()
}

fn number(text: &str) -> u64 {
    text.parse().expect("it is a number")
}

#[test]
fn clocks_timers_and_times_of_files_are_as_coarse_as_was_said() {
    let host = Host::start(|host| {
        let host = host.config("[grant]\ndata = '*'\n[limits]\nclock_resolution = '50ms'\n");
        let host =
            kinds().into_iter().fold(host, |host, (name, wasm)| host.app(name, wasm).sidecar(name, "data = true"));
        host.app("program", tests::core_module("cgi-probe")).sidecar("program", "data = true")
    });
    let apps = kinds().map(|(name, _)| name).into_iter().chain(["program"]);
    let by_standard = |app: &'static str, words: &'static str| (app, sense(&host, app, words), words);
    let answers =
        apps.flat_map(|app| ["time", "step", "timers:3", "file:/data/a"].map(|words| by_standard(app, words)));
    let newer =
        ["time", "step", "timers:3"].map(|words| ("p3 itself", host.get(&format!("/p3/newer?{words}")).text(), words));
    for (app, answer, words) in answers.chain(newer) {
        let found = number(&answer);
        assert_eq!(found % STEP, 0, "{app} {words}");
        let least = match words {
            "step" => STEP,
            // Each but the first begins where the clock moved on, and ends where it does so again.
            "timers:3" => 2 * STEP,
            _ => WITHHELD.parse().expect("it is a number"),
        };
        assert!(found >= least, "{app} {words}: {found}");
    }
}

#[test]
fn an_app_has_coarser_clocks_if_it_likes_and_never_finer_ones() {
    let host = Host::start(|host| {
        let host = host.config("[tenant.acme.limits]\nclock_resolution = '10ms'\n");
        let apps = [("site", ""), ("acme/same", ""), ("acme/coarse", "50ms"), ("acme/fine", "1ms")];
        apps.into_iter().fold(host, |host, (name, resolution)| {
            let said = if resolution.is_empty() {
                String::new()
            } else {
                format!("[limits]\nclock_resolution = '{resolution}'")
            };
            host.app(name, guest("site")).sidecar(name, &said)
        })
    });
    assert!(number(&sense(&host, "site", "step")) < MS);
    assert_eq!(number(&sense(&host, "acme/same", "step")) % (10 * MS), 0);
    assert_eq!(number(&sense(&host, "acme/coarse", "step")) % STEP, 0);
    host.listed_problem("acme/fine", "less than the operator's 10ms; an app may only raise it");
}

#[test]
fn who_may_not_know_the_time_is_told_the_same_for_ever() {
    let config = "[grant]\ndata = '*'\nwall_clock = false\n[tenant.acme.grant]\nwall_clock = ['shop']\n";
    let host = Host::start(|host| {
        let host = host.config(config);
        let host =
            kinds().into_iter().fold(host, |host, (name, wasm)| host.app(name, wasm).sidecar(name, "data = true"));
        let host =
            ["acme/shop", "acme/other", "hive/a"].into_iter().fold(host, |host, name| host.app(name, guest("site")));
        host.app("asks", guest("site")).sidecar("asks", "wall_clock = true")
    });
    for (app, _) in kinds() {
        for words in ["time", "file:/data/a"] {
            assert_eq!(sense(&host, app, words), WITHHELD, "{app} {words}");
        }
        // Time goes on all the same.
        assert!(number(&sense(&host, app, "step")) > 0, "{app}");
    }
    assert_eq!(host.get("/p3/newer?time").text(), WITHHELD);
    for (app, knows) in [("acme/shop", true), ("acme/other", false), ("hive/a", false)] {
        assert_eq!(sense(&host, app, "time") != WITHHELD, knows, "{app}");
    }
    host.listed_problem(
        "asks",
        "the operator has not granted it: put \"asks\" into `wall_clock` of [grant], or leave this out",
    );
    let note = "it asks what time it is, and is told 2000-01-01T00:00:00Z for ever";
    host.log_contains(note);
    let check = wasgi().current_dir(host.folder()).args(["check", "-c", "wasgi.toml", "apps/wsgi.wasm"]).output();
    let said = String::from_utf8(check.expect("the binary can be run").stdout).expect("it prints text");
    assert!(said.contains("needs wall_clock (not granted), randomness (granted) of [grant]"), "{said}");
    assert!(said.contains(&format!("note: {note}")), "{said}");
}

/// Which sandbox serves changes nothing, nor does it when the grant comes and goes while one is kept.
#[test]
fn what_is_granted_of_time_and_chance_counts_at_once_whatever_becomes_of_instances() {
    let all = "[grant]\nwall_clock = true\nrandomness = true\n";
    let none = "[grant]\nwall_clock = false\nrandomness = false\n";
    let policies = ["fresh", "rewind", "reuse"];
    let host = Host::start(|host| {
        policies.into_iter().fold(host.config(all), |host, policy| {
            host.app(policy, guest("site")).sidecar(policy, &format!("instances = '{policy}'"))
        })
    });
    let seeds = |policy| [(); 2].map(|()| sense(&host, policy, "seed"));
    for policy in policies {
        assert_ne!(sense(&host, policy, "random"), sense(&host, policy, "random"), "{policy}");
        assert_ne!(sense(&host, policy, "time"), WITHHELD, "{policy}");
    }
    assert_ne!(seeds("fresh")[0], seeds("fresh")[1]);
    reload(&host, none);
    eventually("the time is taken away", || (sense(&host, "reuse", "time") == WITHHELD).then_some(()));
    for policy in policies {
        assert_eq!(sense(&host, policy, "time"), WITHHELD, "{policy}");
        let stopped = host.get(&format!("/{policy}?senses=random"));
        assert_eq!(stopped.status(), 500, "{policy}");
        let failure = host.failure(&stopped);
        assert_eq!(failure.text("cause"), "grant", "{policy}");
        assert!(failure.message().contains("asked for randomness, which it was not granted"), "{}", failure.message());
    }
    // What need not be random is the same for every call of an app, and for no other app.
    for policy in ["fresh", "rewind"] {
        let [one, other] = seeds(policy);
        assert_eq!(one, other, "{policy}");
    }
    assert_ne!(seeds("fresh")[0], seeds("rewind")[0]);
    reload(&host, all);
    eventually("it is back", || (sense(&host, "reuse", "time") != WITHHELD).then_some(()));
    assert_ne!(sense(&host, "rewind", "random"), sense(&host, "rewind", "random"));
}

#[test]
fn guests_of_every_kind_are_stopped_where_they_ask_for_randomness_that_they_may_not_have() {
    let host = Host::start(|host| {
        let host = host.config("[grant]\nrandomness = ['free']\n").app("free", guest("site"));
        let host = host.app("asks", guest("site")).sidecar("asks", "randomness = true");
        let host = kinds().into_iter().fold(host, |host, (name, wasm)| host.app(name, wasm));
        host.app("program", tests::core_module("cgi-probe"))
    });
    let stopped = |target: &str| {
        let response = host.get(target);
        let failure = host.failure(&response);
        assert_eq!((response.status(), failure.text("cause").as_str()), (500, "grant"), "{target}");
    };
    for target in [
        "/wsgi?senses=random",
        "/cgi/senses?random",
        "/p2/senses?random",
        "/p3/senses?random",
        "/p3/newer?random",
        "/program/senses?random",
    ] {
        stopped(target);
    }
    for app in ["wsgi", "cgi", "p2", "p3"] {
        assert_eq!(sense(&host, app, "seed"), sense(&host, app, "seed"), "{app}");
    }
    assert_eq!(host.get("/p3/newer?seed").text(), host.get("/p3/newer?seed").text());
    assert_ne!(sense(&host, "free", "random"), sense(&host, "free", "random"));
    host.listed_problem("asks", "put \"asks\" into `randomness` of [grant], or leave this out");
}
