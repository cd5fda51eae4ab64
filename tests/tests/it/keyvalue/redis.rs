//! Stores in a Redis, the real one, that several hosts share.

use tests::{Host, Redis, eventually, guest};

use super::{kinds, tries};

fn config(redis: &Redis) -> String {
    format!(
        "keyvalue_redis = '{}'\n[grant.keyvalue]\ndefault = {{ backend = 'redis' }}\n\
         sessions = {{ backend = 'redis', shared = true }}\n\
         [tenant.acme.grant.keyvalue]\ndefault = {{ backend = 'redis' }}\nsessions = {{ backend = 'redis', shared = true }}\n",
        redis.url()
    )
}

const ASK: &str = "keyvalue = ['default', 'sessions']\n";

fn serving(redis: &Redis, sidecar: &str) -> Host {
    Host::start(|host| {
        host.config(&config(redis)).app("site", guest("site")).sidecar("site", &format!("{ASK}{sidecar}"))
    })
}

#[test]
fn stores_in_redis_do_what_those_in_files_do() {
    let redis = Redis::start();
    let host = Host::start(|host| {
        let host = host.config(&config(&redis));
        kinds().into_iter().fold(host, |host, (name, wasm)| host.app(name, wasm).sidecar(name, ASK))
    });
    for (app, _) in kinds() {
        for (words, expected) in super::embedded::CONVERSATION {
            assert_eq!(tries(&host, app, words), *expected, "{app} {words}");
        }
    }
    assert_eq!(tries(&host, "wsgi", "fill,default,1200,1"), "1200 keys");
    assert_eq!(tries(&host, "wsgi", "count,default"), "1202 keys, 1000 at first, sorted true");
    let kept = host.get("/wsgi?kept=default,key,text").text();
    assert!(kept.starts_with("text! 42 ["), "{kept}");
}

#[test]
fn two_hosts_share_what_is_there_and_lose_nothing() {
    let redis = Redis::start();
    let hosts = [serving(&redis, ""), serving(&redis, "")];
    std::thread::scope(|scope| {
        for host in hosts.iter().chain(&hosts) {
            scope.spawn(|| assert!(tries(host, "site", "times,default,n,50").parse::<u64>().is_ok()));
        }
    });
    for host in &hosts {
        assert_eq!(tries(host, "site", "get,default,n"), "[200]");
    }
    assert_eq!(tries(&hosts[0], "site", "swap,default,a,x"), "none swapped");
    assert_eq!(tries(&hosts[1], "site", "get,default,a"), "[x]");
}

#[test]
fn limits_hold_there_too() {
    let redis = Redis::start();
    let host = serving(&redis, "[limits]\nkeyvalue_keys = 10\nkeyvalue_size = '20KiB'\nhost_call_size = '8KiB'\n");
    let refused = |limit: &str| format!("error Error::Other(\"{limit}\")");
    let keys = refused("the store has no room: limits.keyvalue_keys = 10");
    assert_eq!(tries(&host, "site", "fill,default,20,10"), format!("10: {keys}"));
    for words in ["increment,default,new,1", "swap,default,new,1", "set-many,default,key-000000,x,new,x"] {
        assert_eq!(tries(&host, "site", words), keys, "{words}");
    }
    assert_eq!(tries(&host, "site", "keys,default").split(' ').count(), 10);
    assert_eq!(tries(&host, "site", "get,default,key-000000"), "[vvvvvvvvvv]");
    let bytes = refused("the store has no room: limits.keyvalue_size = 20480 bytes");
    assert_eq!(tries(&host, "site", "fill,default,10,2000"), format!("9: {bytes}"));
    let all: String = (0..9).map(|number| format!(",key-{number:06}")).collect();
    let answer =
        refused("the values together have more than limits.host_call_size = 8192 bytes: ask for fewer at once");
    assert_eq!(tries(&host, "site", &format!("get-many,default{all}")), answer);
    assert_eq!(tries(&host, "site", "delete-many,default,key-000000,key-000001"), "done");
    assert_eq!(tries(&host, "site", "increment,default,new,9007199254740993"), "9007199254740993");
}

#[test]
fn every_key_there_begins_with_the_tenants_name_and_nobody_reaches_anothers() {
    let redis = Redis::start();
    redis.say(&["SET", "secret", "of somebody else"]).expect("it answers");
    let host = Host::start(|host| {
        let host = host.config(&config(&redis));
        let apps = ["site", "acme/one", "acme/two"];
        apps.into_iter().fold(host, |host, app| host.app(app, guest("site")).sidecar(app, ASK))
    });
    for app in ["site", "acme/one", "acme/two"] {
        assert_eq!(tries(&host, app, "get,default,secret"), "none");
        assert_eq!(tries(&host, app, &format!("set,default,who,{}", app.replace('/', "-"))), "done");
        assert_eq!(tries(&host, app, "set,sessions,last,x"), "done");
    }
    assert_eq!(tries(&host, "acme/one", "get,default,who"), "[acme-one]");
    assert_eq!(tries(&host, "acme/two", "keys,sessions"), "last");
    for key in
        ["{:site/default}", "{:/sessions}", "{acme:acme/one/default}", "{acme:acme/two/default}", "{acme:/sessions}"]
    {
        let values = format!("wasgi:keyvalue:{key}:values");
        assert_eq!(redis.say(&["EXISTS", &values]).as_deref(), Some(":1"), "{values}");
    }
    // Four for each of five stores, and the one of somebody else.
    assert_eq!(redis.say(&["DBSIZE"]).as_deref(), Some(":21"));
}

#[test]
fn a_redis_that_is_gone_is_an_error_for_the_guest_and_comes_back() {
    let mut redis = Redis::start();
    let host = serving(&redis, "");
    assert_eq!(tries(&host, "site", "set,default,a,kept"), "done");
    redis.kill();
    let out_of_order = "error Error::Other(\"the store cannot be used at the moment\")";
    assert_eq!(tries(&host, "site", "get,default,a"), out_of_order);
    assert_eq!(tries(&host, "site", "set,default,b,x"), out_of_order);
    host.log_contains("the key-value stores in Redis cannot be used");
    redis.start_again();
    eventually("it is used again", || (tries(&host, "site", "get,default,a") == "[kept]").then_some(()));
}
