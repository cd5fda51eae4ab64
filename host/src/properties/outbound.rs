//! Destinations: whatever an app asks for, it reaches nothing that the operator has not granted, and nothing special that is not
//! named.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use proptest::prelude::*;

use super::text_like;
use crate::config::{Destination, Destinations, Protocol};
use crate::outbound::address::special;
use crate::outbound::policy::{Host, Rights, Target};

const PIECES: &[&str] = &[
    "https", "http", "tcp", "://", ":", "/", ".", "*", "example", "com", "127", "10", "0", "8", "[", "]", "::1",
    "ffff", "80", "443", "@", "0x7f",
];

fn protocol() -> impl Strategy<Value = Protocol> {
    prop::sample::select(vec![Protocol::Http, Protocol::Https, Protocol::Tcp])
}

fn name() -> impl Strategy<Value = String> {
    let label = prop::sample::select(vec!["a", "b", "example", "com"]);
    prop::collection::vec(label, 1..4).prop_map(|labels| labels.join("."))
}

/// Addresses close to each other, so that lists and targets meet; and any.
fn v4() -> impl Strategy<Value = Ipv4Addr> {
    let start = prop::sample::select(vec![[10, 0], [127, 0], [169, 254], [192, 168], [8, 8], [100, 64]]);
    prop_oneof![
        4 => (start, 0_u8..3, 0_u8..3).prop_map(|([a, b], c, d)| Ipv4Addr::new(a, b, c, d)),
        1 => any::<[u8; 4]>().prop_map(Ipv4Addr::from),
    ]
}

/// All the ways in which an IPv6 address can mean an IPv4 one.
fn forms(address: Ipv4Addr) -> [Ipv6Addr; 5] {
    let [a, b, c, d] = address.octets();
    let (high, low) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
    [
        address.to_ipv6_mapped(),
        Ipv6Addr::new(0, 0, 0, 0, 0, 0, high, low),
        Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, high, low),
        Ipv6Addr::new(0x2002, high, low, 0, 0, 0, 0, 1),
        Ipv6Addr::new(0x64, 0xff9b, 1, 0, 0, 0, high, low),
    ]
}

fn address() -> impl Strategy<Value = IpAddr> {
    let six = any::<[u8; 16]>().prop_map(|bytes| IpAddr::from(Ipv6Addr::from(bytes)));
    let form = (v4(), 0_usize..5).prop_map(|(address, form)| IpAddr::from(forms(address)[form]));
    prop_oneof![4 => v4().prop_map(IpAddr::from), 2 => form, 1 => six]
}

fn destination() -> impl Strategy<Value = Destination> {
    let net = (address(), 0_u8..=32).prop_map(|(address, less)| {
        let address = address.to_canonical();
        let prefix = if address.is_ipv4() { 32 - less.min(32) } else { 128 - less };
        let net = ipnet::IpNet::new(address, prefix).expect("the prefix fits").trunc();
        if net.addr().is_ipv4() { net.to_string() } else { format!("[{net}]") }
    });
    let host = prop_oneof![
        1 => Just("*".to_owned()),
        1 => name(),
        1 => name().prop_map(|name| format!("*.{name}")),
        2 => net,
    ];
    let port = prop::sample::select(vec![":80", ":443", ":*"]);
    (protocol(), host, port).prop_filter_map("it is a destination", |(protocol, host, port)| {
        format!("{protocol}://{host}{port}").parse().ok()
    })
}

fn destinations() -> impl Strategy<Value = Destinations> {
    prop::collection::vec(destination(), 0..6).prop_map(|list| list.into_iter().collect())
}

fn target() -> impl Strategy<Value = Target> {
    let host =
        prop_oneof![name().prop_map(Host::Name), address().prop_map(|address| Host::Address(address.to_canonical()))];
    (protocol(), host, prop::sample::select(vec![80, 443])).prop_map(|(protocol, host, port)| Target {
        protocol,
        host,
        port,
    })
}

/// Whether one list alone allows it.
fn allows(list: &Destinations, target: &Target, address: IpAddr) -> bool {
    let rights = Rights { asked: list, granted: list.clone() };
    rights.may_ask(target).is_ok() && rights.may_reach(target, address, false).is_ok()
}

proptest! {
    #[test]
    fn every_form_of_a_special_address_is_special(address in v4()) {
        if special(IpAddr::from(address)).is_some() {
            for form in forms(address) {
                prop_assert!(special(IpAddr::from(form)).is_some(), "{form}");
            }
        }
    }

    #[test]
    fn nothing_is_reached_that_is_not_both_asked_for_and_granted(
        asked in destinations(), granted in destinations(), target in target(), address in address(),
    ) {
        let address = match &target.host { Host::Address(address) => *address, Host::Name(_) => address };
        let rights = Rights { asked: &asked, granted: granted.clone() };
        if rights.may_ask(&target).is_ok() && rights.may_reach(&target, address, false).is_ok() {
            prop_assert!(allows(&asked, &target, address) && allows(&granted, &target, address));
        }
    }

    #[test]
    fn names_alone_lead_to_no_special_address(list in destinations(), target in target(), address in address()) {
        let names: Destinations = list.iter().filter(|own| !own.is_address()).cloned().collect();
        if special(address).is_some() {
            prop_assert!(!allows(&names, &target, address));
        }
    }

    #[test]
    fn what_covers_a_destination_allows_all_that_it_allows(
        granted in destinations(), asked in destination(), target in target(), address in address(),
    ) {
        let address = match &target.host { Host::Address(address) => *address, Host::Name(_) => address };
        let alone: Destinations = [asked.clone()].into_iter().collect();
        if granted.cover(&asked) && allows(&alone, &target, address) {
            prop_assert!(allows(&granted, &target, address), "{asked} of {granted:?}");
        }
    }

    #[test]
    fn a_destination_is_printed_as_it_is_read(text in text_like(PIECES, 10)) {
        if let Ok(destination) = text.parse::<Destination>() {
            prop_assert_eq!(destination.to_string().parse(), Ok(destination));
        }
    }

    #[test]
    fn a_host_is_a_name_or_an_address_and_never_both(text in text_like(PIECES, 8)) {
        if let Some(target) = Target::new(Protocol::Http, &text, 80) {
            match &target.host {
                Host::Name(name) => prop_assert!(name.parse::<IpAddr>().is_err() && !name.contains(['@', '/', ':', '[', '%'])),
                Host::Address(address) => prop_assert_eq!(*address, address.to_canonical()),
            }
            prop_assert_eq!(Target::new(Protocol::Http, target.authority().trim_end_matches(":80"), 80), Some(target.clone()));
        }
    }
}
