//! What stores do, in both versions of the interface, and what is left after the host was killed.

use super::{ASK, GRANT, kinds, serving, tries};
use tests::Host;

/// What is said to a store, one after the other, and what it answers.
pub(super) const CONVERSATION: &[(&str, &str)] = &[
    ("get,default,a", "none"),
    ("set,default,a,one", "done"),
    ("get,,a", "[one]"),
    ("exists,default,a", "true"),
    ("set-many,default,b,2,c,3,b,4", "done"),
    ("get-many,default,b,d,c", "b=4 - c=3"),
    ("keys,default", "a b c"),
    ("increment,default,b,-6", "-2"),
    ("increment,default,new,7", "7"),
    ("increment,default,a,1", "error Error::Other(\"the value is not a number\")"),
    ("increment,default,new,9223372036854775807", "error Error::Other(\"the number would be too large\")"),
    ("swap,default,c,x", "[3] swapped"),
    ("swap,default,c,y,z", "[x] is [y] by now, swapped then: true"),
    // As it was, and yet another.
    ("swap,default,c,z,w", "[z] is [z] by now, swapped then: true"),
    ("swap,default,none,x", "none swapped"),
    ("delete-many,default,a,none,a,c", "done"),
    ("delete,default,b", "done"),
    ("keys,default", "new"),
    ("exists,default,a", "false"),
    ("draft,increment,default,new,3", "10"),
    ("draft,set,default,old,1", "done"),
    ("draft,get,default,old", "[1]"),
    ("draft,delete,default,old", "done"),
    ("draft,exists,default,old", "false"),
    ("draft,batch,default", "1 of them, a is there: false"),
    ("open,other", "error Error::NoSuchStore"),
];

#[test]
fn guests_of_every_kind_have_it() {
    let host = Host::start(|host| {
        let host = host.config(GRANT);
        kinds().into_iter().fold(host, |host, (name, wasm)| {
            // Also where instances serve several calls, at once too.
            let reuse = if name == "cgi" { "" } else { "instances = 'reuse'" };
            host.app(name, wasm).sidecar(name, &format!("{ASK}{reuse}"))
        })
    });
    for (app, _) in kinds() {
        for (words, expected) in CONVERSATION {
            assert_eq!(tries(&host, app, words), *expected, "{app} {words}");
        }
        assert_eq!(tries(&host, app, "get,default,new"), "[10]", "{app} has its own");
    }
    let kept = host.get("/wsgi?kept=default,key,text").text();
    assert_eq!(kept, "text! 42 [b key new number] 1 false", "the SDK's way");
}

#[test]
fn what_was_acknowledged_is_there_after_the_host_was_killed() {
    let host = serving("");
    assert_eq!(tries(&host, "site", "set,default,a,kept"), "done");
    // Killed while it writes: what was said to be done counts, whatever the moment.
    let client = std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let mut said = 0;
            loop {
                let answer = std::panic::catch_unwind(|| tries(&host, "site", "times,default,n,1"));
                match answer.ok().and_then(|text| text.parse::<u64>().ok()) {
                    Some(number) => said = number,
                    None => return said,
                }
            }
        });
        tests::eventually("some were written", || {
            let number = tries(&host, "site", "get,default,n");
            number.trim_matches(['[', ']']).parse::<u64>().is_ok_and(|number| number > 20).then_some(())
        });
        host.signal(rustix::process::Signal::KILL);
        writer.join().expect("it ends when the host does")
    });
    let host = host.restart();
    let number = tries(&host, "site", "increment,default,n,0").parse::<u64>().expect("it is a number");
    assert!(number == client || number == client + 1, "{number} is there, and {client} was acknowledged");
    assert_eq!(tries(&host, "site", "get,default,a"), "[kept]");
}

#[test]
fn increments_and_swaps_of_calls_at_once_lose_nothing() {
    let host = serving("");
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| assert!(tries(&host, "site", "times,default,n,50").parse::<u64>().is_ok()));
        }
    });
    assert_eq!(tries(&host, "site", "get,default,n"), "[400]");
}

#[test]
fn keys_come_in_pages_and_in_order() {
    let host = serving("");
    assert_eq!(tries(&host, "site", "fill,default,1200,1"), "1200 keys");
    assert_eq!(tries(&host, "site", "count,default"), "1200 keys, 1000 at first, sorted true");
    assert_eq!(tries(&host, "site", "draft,count,default"), "1200 keys");
    // One that no list has given.
    let lost = "error Error::Other(\"no list of this bucket's ended at that cursor\")";
    assert_eq!(tries(&host, "site", "draft,cursor,default,7"), lost);
}
