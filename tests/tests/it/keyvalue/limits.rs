//! How much goes into a store, and through a call.

use super::{ASK, serving, tries};
use tests::{Host, guest};

fn refused(limit: &str) -> String {
    format!("error Error::Other(\"{limit}\")")
}

#[test]
fn a_store_holds_so_many_keys_and_bytes_and_what_is_in_it_stays() {
    let host = serving("[limits]\nkeyvalue_keys = 10\nkeyvalue_size = '20KiB'\n");
    let keys = refused("the store has no room: limits.keyvalue_keys = 10");
    assert_eq!(tries(&host, "site", "fill,default,20,10"), format!("10: {keys}"));
    assert_eq!(tries(&host, "site", "increment,default,new,1"), keys);
    assert_eq!(tries(&host, "site", "swap,default,new,1"), keys);
    let bytes = refused("the store has no room: limits.keyvalue_size = 20480 bytes");
    assert_eq!(tries(&host, "site", "fill,default,10,2000"), format!("9: {bytes}"));
    // All or none of them, and where one becomes shorter there is room for another.
    assert_eq!(tries(&host, "site", "set-many,default,key-000000,x,new,x"), keys);
    assert_eq!(tries(&host, "site", "get,default,new"), "none");
    assert_eq!(tries(&host, "site", "count,default"), "10 keys, 10 at first, sorted true");
    assert_eq!(tries(&host, "site", "set,default,key-000000,x"), "done");
    assert_eq!(tries(&host, "site", "fill,default,10,1900"), "10 keys");
    assert_eq!(tries(&host, "site", "delete,default,key-000000"), "done");
    assert_eq!(tries(&host, "site", "increment,default,new,1"), "1");
    host.log_contains("refused an operation on a key-value store: the store has no room: limits.keyvalue_keys");
    // It is counted on after the host was killed.
    let host = host.restart();
    assert_eq!(tries(&host, "site", "set,default,another,x"), keys);
}

#[test]
fn keys_values_answers_and_handles_have_limits() {
    let host = serving(
        "[limits]\nkeyvalue_key_size = 8\nkeyvalue_value_size = '2KiB'\nhost_call_size = '8KiB'\nhandles = 16\n",
    );
    let key = refused("a key has 1 to limits.keyvalue_key_size = 8 bytes");
    for words in ["set,default,,x", "set,default,123456789,x", "get,default,123456789", "delete,default,123456789"] {
        assert_eq!(tries(&host, "site", words), key, "{words}");
    }
    for words in ["exists,default,123456789", "increment,default,123456789,1", "swap,default,123456789,x"] {
        assert_eq!(tries(&host, "site", words), key, "{words}");
    }
    let value = refused("a value has at most limits.keyvalue_value_size = 2048 bytes");
    assert_eq!(tries(&host, "site", "large,default,8,2048"), "done");
    assert_eq!(tries(&host, "site", "large,default,8,2049"), value);
    assert_eq!(tries(&host, "site", "fill,default,1,2048"), refused_fill());
    for name in ["a", "b", "c", "d", "e"] {
        assert_eq!(tries(&host, "site", &format!("set,default,{name},{}", "x".repeat(2000))), "done");
    }
    assert!(tries(&host, "site", "get-many,default,a,b,c").starts_with("a=xxx"));
    let answer =
        refused("the values together have more than limits.host_call_size = 8192 bytes: ask for fewer at once");
    assert_eq!(tries(&host, "site", "get-many,default,a,b,c,d,e"), answer);
    let handles = tries(&host, "site", "handles,default,100");
    assert!(handles.starts_with("error Error::Other(\"the sandbox has limits.handles = 16 already"), "{handles}");
}

/// The key of `fill` has ten bytes.
fn refused_fill() -> String {
    format!("0: {}", refused("a key has 1 to limits.keyvalue_key_size = 8 bytes"))
}

#[test]
fn one_that_writes_all_the_time_keeps_no_other_tenant_waiting() {
    let config = "[tenant.a.grant.keyvalue]\ndefault = {}\n[tenant.b.grant.keyvalue]\ndefault = {}\n";
    let host = Host::start(|host| {
        let host = host.config(config).workers(1);
        ["a/site", "b/site"].into_iter().fold(host, |host, app| host.app(app, guest("site")).sidecar(app, ASK))
    });
    std::thread::scope(|scope| {
        let busy: Vec<_> = (0..16).map(|_| scope.spawn(|| tries(&host, "a/site", "times,default,n,100"))).collect();
        // While the others are at it.
        assert_eq!(tries(&host, "b/site", "times,default,n,20"), "20");
        assert!(busy.iter().any(|call| !call.is_finished()), "the neighbour waits for none of them");
    });
    assert_eq!(tries(&host, "a/site", "get,default,n"), "[1600]");
}
