//! What Python programs keep: in key-value stores, by `wasgi.keyvalue`, and in data with a quota.

use tests::{Host, guest};

#[test]
fn what_a_python_program_keeps_is_there_for_later_calls_and_errors_are_exceptions() {
    let host = Host::start(|host| {
        let host = host.config("[grant.keyvalue]\ndefault = {}\nsmall = {}\n").limit("cpu_time=60s");
        let ask = "keyvalue = ['default', 'small']\n[limits]\nkeyvalue_key_size = 10\n";
        host.app("app", guest("outbound-python")).sidecar("app", ask)
    });
    let say = |words: &str| host.get(&format!("/app?{words}")).text();
    let kept = "[('key', b'text!'), ('last', b'\\x00\\xff')] (42, 40) [key,last,number] False none";
    assert_eq!(say("kept,default,key"), kept);
    assert_eq!((say("visit,small"), say("visit,small"), say("visit,default")), ("1".into(), "2".into(), "1".into()));
    assert_eq!(say("raced,small,key,mine"), "[None, b'faster'] b'mine'");
    assert_eq!(say("visit,other"), "error NoSuchStore: the app has not asked for this key-value store");
    let limit = "error Error: a key has 1 to limits.keyvalue_key_size = 10 bytes";
    assert_eq!(say("kept,default,a-long-key-of-a-program"), limit);
    host.write_config("[grant.keyvalue]\nsmall = {}\n");
    host.signal(rustix::process::Signal::HUP);
    let denied = "error Denied: the host denies the key-value store";
    tests::eventually("it is taken away", || (say("visit,default") == denied).then_some(()));
    assert_eq!(say("visit,small"), "3");
}

#[test]
fn sqlite_is_told_that_the_disk_is_full_and_what_is_there_stays() {
    let host = Host::start(|host| {
        let sidecar = "data = true\n[limits]\ndata_size = '128KiB'\n";
        let host = host.config("[grant]\ndata = ['*']\n").limit("cpu_time=60s");
        host.app("app", guest("outbound-python")).sidecar("app", sidecar)
    });
    let say = |words: &str| host.get(&format!("/app?{words}")).text();
    let full = say("rows,500");
    assert!(full.starts_with("error OperationalError: database or disk is full"), "{full}");
    let rows: u32 = say("rows,0").parse().expect("it can be read");
    assert!(rows > 20, "{rows}");
    host.log_contains("its data has no room for more: limits.data_size");
}
