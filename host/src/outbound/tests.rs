//! What leads where: names through a resolver that the tests feed, addresses that are judged before anything connects.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use super::resolve::{Looking, Resolve};
use super::*;
use crate::config::{OutboundGrants, Protocol};

/// Each look-up of a name has the next of its answers; the last one stays.
#[derive(Default)]
struct Book {
    names: HashMap<&'static str, Vec<Vec<IpAddr>>>,
    asked: AtomicUsize,
}

impl Resolve for Book {
    fn resolve(&self, name: String, _: Arc<Slot>) -> Looking {
        let turn = self.asked.fetch_add(1, Ordering::Relaxed);
        let answers = self.names.get(name.as_str());
        let found = answers.and_then(|answers| answers.get(turn).or(answers.last())).cloned();
        Box::pin(async move { found.ok_or_else(|| io::Error::other("no such name")) })
    }
}

fn book(names: &[(&'static str, &[&str])]) -> Arc<Book> {
    let addresses = |answer: &&str| answer.split(' ').map(|text| text.parse().expect("an address")).collect();
    let names = names.iter().map(|(name, answers)| (*name, answers.iter().map(addresses).collect()));
    Arc::new(Book { names: names.collect(), asked: AtomicUsize::new(0) })
}

fn destinations(texts: &[&str]) -> Destinations {
    texts.iter().map(|text| text.parse().expect("a destination")).collect()
}

fn plan(granted: &[&str]) -> Plan {
    let mut config = Config::default();
    config.grants.outbound = OutboundGrants::to_all(destinations(granted));
    Plan { granted: Arc::new(config), tls: None }
}

struct Way {
    network: Arc<Network>,
    outbound: Arc<Outbound>,
}

fn way(granted: &[&str], asked: &[&str], book: &Arc<Book>, change: impl FnOnce(&mut Limits)) -> Way {
    let network = Network::with(plan(granted), Arc::clone(book) as Arc<dyn Resolve>);
    let mut limits = Limits { outbound_connect_time: Duration::from_secs(2), ..Limits::default() };
    change(&mut limits);
    let outbound = Outbound::new(&network, "shop", &destinations(asked), &limits, &Account::of_nobody());
    Way { network, outbound }
}

pub(super) fn with_limits(change: impl FnOnce(&mut Limits)) -> Arc<Outbound> {
    way(&[], &[], &book(&[]), change).outbound
}

impl Way {
    async fn connect(&self, host: &str, port: u16) -> Result<Connection, Failure> {
        let target = Target::new(Protocol::Http, host, port).expect("it names a place");
        self.outbound.connect(target, None).await
    }
}

fn listener() -> (TcpListener, u16) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("there are ports");
    let port = listener.local_addr().expect("it listens").port();
    (listener, port)
}

fn is_prohibited(outcome: &Result<Connection, Failure>) -> bool {
    matches!(outcome, Err(Failure::Denied(Denied::Prohibited(..))))
}

#[tokio::test]
async fn a_name_that_leads_to_a_special_address_is_refused_and_nobody_is_connected_to() {
    let (listener, port) = listener();
    listener.set_nonblocking(true).expect("it can");
    let book = book(&[
        ("loopback.example", &["127.0.0.1"]),
        ("mapped.example", &["::ffff:127.0.0.1"]),
        ("six.example", &["::1"]),
        ("metadata.example", &["169.254.169.254"]),
        ("unspecified.example", &["0.0.0.0"]),
        ("both.example", &["127.0.0.1 ::1"]),
    ]);
    let all = ["http://*:*", "http://0.0.0.0/0:*", "http://[::/0]:*"];
    let way = way(&all, &all, &book, |_| {});
    for name in book.names.keys() {
        let outcome = way.connect(name, port).await;
        assert!(is_prohibited(&outcome), "{name}: {:?}", outcome.err());
    }
    for literal in ["127.0.0.1", "[::1]", "[::ffff:127.0.0.1]", "0.0.0.0", "[::]"] {
        let outcome = way.connect(literal, port).await;
        assert!(is_prohibited(&outcome), "{literal}: {:?}", outcome.err());
    }
    assert_eq!(listener.accept().expect_err("nobody has come").kind(), io::ErrorKind::WouldBlock);
}

#[tokio::test]
async fn a_special_address_is_reached_where_operator_and_app_name_it() {
    let (_listener, port) = listener();
    let book = book(&[("db.example", &["127.0.0.1"])]);
    let both = ["http://db.example:*", "http://127.0.0.1:*"];
    let name = &both[..1];
    for (granted, asked, expected) in
        [(&both[..], &both[..], true), (&both[..], name, false), (name, &both[..], false), (name, name, false)]
    {
        let outcome = way(granted, asked, &book, |_| {}).connect("db.example", port).await;
        assert_eq!(outcome.is_ok(), expected, "{granted:?} {asked:?}: {:?}", outcome.err());
    }
}

#[tokio::test]
async fn what_is_not_on_both_lists_is_not_even_looked_up() {
    let book = book(&[("a.example", &["127.0.0.1"])]);
    for (granted, asked) in [
        (&["http://b.example"][..], &["http://a.example"][..]),
        (&["http://a.example"], &["http://b.example"]),
        (&[], &["http://a.example"]),
        (&["http://a.example:8080"], &["http://a.example:8080"]),
        (&["https://a.example:80"], &["https://a.example:80"]),
    ] {
        let outcome = way(granted, asked, &book, |_| {}).connect("a.example", 80).await;
        let denied = matches!(&outcome, Err(Failure::Denied(Denied::NotAsked(_) | Denied::NotGranted(_))));
        assert!(denied, "{granted:?} {asked:?}: {:?}", outcome.err());
    }
    assert_eq!(book.asked.load(Ordering::Relaxed), 0, "a look-up can carry secrets out");
}

#[tokio::test]
async fn the_address_that_was_judged_is_the_one_that_is_connected_to() {
    let (_listener, port) = listener();
    // An address for the judge, another one for whoever asks again.
    let book = book(&[("rebinding.example", &["127.0.0.1", "169.254.169.254"])]);
    let lists = ["http://rebinding.example:*", "http://127.0.0.0/8:*"];
    let way = way(&lists, &lists, &book, |_| {});
    let connection = way.connect("rebinding.example", port).await.expect("it is listed");
    assert_eq!(connection.stream.peer_addr().expect("it is connected").ip(), IpAddr::from([127, 0, 0, 1]));
    assert_eq!(book.asked.load(Ordering::Relaxed), 1, "one look-up");
    assert!(is_prohibited(&way.connect("rebinding.example", port).await));
}

#[tokio::test]
async fn an_address_of_this_machine_is_special_whatever_it_looks_like() {
    assert!(is_own(IpAddr::from([127, 0, 0, 1])));
    assert!(!is_own("192.0.2.1".parse().expect("an address")));
    // Who is refused an answer does not know: Errno is none, too, where somebody between has made the error.
    for errno in [Errno::PERM, Errno::ACCESS, Errno::MFILE, Errno::NOMEM, Errno::NOSYS, Errno::INVAL] {
        assert!(is_owned(&Err(errno.into())), "{errno}");
    }
    assert!(is_owned(&Err(io::Error::other("no number"))));
    for errno in [Errno::ADDRNOTAVAIL, Errno::AFNOSUPPORT] {
        assert!(!is_owned(&Err(errno.into())), "{errno}");
    }
    let way = way(&["http://*"], &["http://*"], &book(&[]), |_| {});
    let target = Target::new(Protocol::Http, "example.com", 80).expect("a target");
    let address = IpAddr::from([8, 8, 8, 8]);
    assert!(way.outbound.rights().may_reach(&target, address, false).is_ok());
    assert!(way.outbound.rights().may_reach(&target, address, true).is_err());
}

#[tokio::test]
async fn connections_at_a_time_are_bounded_and_given_back() {
    let (_listener, port) = listener();
    let lists = ["http://127.0.0.1:*"];
    let way = way(&lists, &lists, &book(&[]), |limits| limits.outbound_connections = 2);
    let first = way.connect("127.0.0.1", port).await.expect("the first");
    let _second = way.connect("127.0.0.1", port).await.expect("the second");
    assert!(matches!(way.connect("127.0.0.1", port).await, Err(Failure::Busy(2))));
    drop(first);
    assert!(way.connect("127.0.0.1", port).await.is_ok());
}

#[tokio::test]
async fn connections_that_are_open_count_for_releases_with_another_limit() {
    let (_listener, port) = listener();
    let lists = ["http://127.0.0.1:*"];
    let way = way(&lists, &lists, &book(&[]), |limits| limits.outbound_connections = 3);
    let (first, _second) = (way.connect("127.0.0.1", port).await, way.connect("127.0.0.1", port).await);
    let of = |connections_max| {
        let limits = Limits { outbound_connections: connections_max, ..Limits::default() };
        let outbound = Outbound::new(&way.network, "shop", &destinations(&lists), &limits, &way.outbound.account);
        Way { network: Arc::clone(&way.network), outbound }
    };
    assert!(matches!(of(2).connect("127.0.0.1", port).await, Err(Failure::Busy(2))));
    drop(first);
    let third = of(2).connect("127.0.0.1", port).await;
    assert!(third.is_ok() && matches!(of(1).connect("127.0.0.1", port).await, Err(Failure::Busy(1))));
    // Also for one that comes when all releases before are gone, but not their connections.
    let Way { network, outbound } = way;
    let account = Arc::clone(&outbound.account);
    drop(outbound);
    let limits = Limits { outbound_connections: 2, ..Limits::default() };
    let outbound = Outbound::new(&network, "shop", &destinations(&lists), &limits, &account);
    assert!(matches!(Way { network, outbound }.connect("127.0.0.1", port).await, Err(Failure::Busy(2))));
}

#[tokio::test]
async fn a_grant_that_is_taken_away_ends_what_is_under_way_and_only_that() {
    let (_listener, port) = listener();
    let lists = ["http://127.0.0.1:*", "http://127.0.0.2:*"];
    let way = way(&lists, &lists, &book(&[]), |_| {});
    let Connection { lease, stream: _stream } = way.connect("127.0.0.1", port).await.expect("it is granted");
    let mut ended = std::pin::pin!(lease.bounds.ended());
    way.network.change(plan(&lists[..1]));
    let waits = tokio::time::timeout(Duration::from_millis(50), &mut ended).await;
    assert!(waits.is_err(), "its own grant is still there");
    way.network.change(plan(&lists[1..]));
    assert_eq!(ended.await, Ended::Revoked);
    assert!(way.connect("127.0.0.1", port).await.is_err());
}

#[tokio::test]
async fn a_connection_has_its_time() {
    let (_listener, port) = listener();
    let lists = ["http://127.0.0.1:*"];
    let way = way(&lists, &lists, &book(&[]), |limits| limits.outbound_time = Duration::from_millis(20));
    let Connection { lease, stream: _stream } = way.connect("127.0.0.1", port).await.expect("it is granted");
    assert_eq!(lease.bounds.ended().await, Ended::Time(Duration::from_millis(20)));
}
