//! Pure: which addresses are not simply a place on the internet. What is special is reached only where an operator lists it by
//! its address, whatever name leads there.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

const fn v4(a: u8, b: u8, c: u8, d: u8, prefix: u8) -> Ipv4Net {
    Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), prefix)
}

const fn v6(a: u16, b: u16, c: u16, prefix: u8) -> Ipv6Net {
    Ipv6Net::new_assert(Ipv6Addr::new(a, b, c, 0, 0, 0, 0, 0), prefix)
}

/// IANA's registry of special-purpose addresses, and multicast.
static SPECIAL_V4: [(Ipv4Net, &str); 16] = [
    (v4(0, 0, 0, 0, 8), "this machine (unspecified)"),
    (v4(10, 0, 0, 0, 8), "a private network"),
    (v4(100, 64, 0, 0, 10), "a provider's shared network"),
    (v4(127, 0, 0, 0, 8), "this machine (loopback)"),
    (v4(169, 254, 0, 0, 16), "link-local, where clouds keep their metadata"),
    (v4(172, 16, 0, 0, 12), "a private network"),
    (v4(192, 0, 0, 0, 24), "reserved for protocols"),
    (v4(192, 0, 2, 0, 24), "documentation"),
    (v4(192, 88, 99, 0, 24), "a 6to4 relay"),
    (v4(192, 168, 0, 0, 16), "a private network"),
    (v4(198, 18, 0, 0, 15), "benchmarking"),
    (v4(198, 51, 100, 0, 24), "documentation"),
    (v4(203, 0, 113, 0, 24), "documentation"),
    (v4(224, 0, 0, 0, 4), "multicast"),
    (v4(240, 0, 0, 0, 4), "reserved"),
    (v4(168, 63, 129, 16, 32), "a cloud's own services"),
];

/// Within [`GLOBAL_V6`].
static SPECIAL_V6: [(Ipv6Net, &str); 4] = [
    (v6(0x2001, 0, 0, 23), "reserved for protocols (Teredo, ORCHID)"),
    (v6(0x2001, 0xdb8, 0, 32), "documentation"),
    (v6(0x2620, 0x4f, 0x8000, 48), "reserved for protocols"),
    (v6(0x3fff, 0, 0, 20), "documentation"),
];

/// All that is given out for the internet. Beyond it lie loopback, link-local, unique local and multicast addresses, and forms of
/// IPv4 addresses that nobody uses any more.
const GLOBAL_V6: Ipv6Net = v6(0x2000, 0, 0, 3);
/// IPv6 addresses that a translator makes IPv4 of (RFC 6052): they stand for those.
const NAT64: Ipv6Net = v6(0x64, 0xff9b, 0, 96);
/// The same by tunnels (RFC 3056).
const SIX_TO_FOUR: Ipv6Net = v6(0x2002, 0, 0, 16);

/// What an address is, where it is not simply a place on the internet.
pub fn special(address: IpAddr) -> Option<&'static str> {
    match address.to_canonical() {
        IpAddr::V4(address) => special_v4(address),
        IpAddr::V6(address) => special_v6(address),
    }
}

fn special_v4(address: Ipv4Addr) -> Option<&'static str> {
    SPECIAL_V4.iter().find(|(net, _)| net.contains(&address)).map(|(_, what)| *what)
}

fn special_v6(address: Ipv6Addr) -> Option<&'static str> {
    if let Some(inner) = inner_v4(address) {
        return special_v4(inner);
    }
    if let Some((_, what)) = SPECIAL_V6.iter().find(|(net, _)| net.contains(&address)) {
        return Some(what);
    }
    match address {
        _ if GLOBAL_V6.contains(&address) => None,
        Ipv6Addr::LOCALHOST => Some("this machine (loopback)"),
        Ipv6Addr::UNSPECIFIED => Some("this machine (unspecified)"),
        _ if address.is_unique_local() => Some("a private network, where clouds keep their metadata"),
        _ if address.is_unicast_link_local() => Some("link-local"),
        _ if address.is_multicast() => Some("multicast"),
        _ => Some("reserved"),
    }
}

/// The IPv4 address that translators and tunnels make of it.
fn inner_v4(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let [.., a, b, c, d] = address.octets();
    if NAT64.contains(&address) {
        return Some(Ipv4Addr::new(a, b, c, d));
    }
    let [_, _, a, b, c, d, ..] = address.octets();
    SIX_TO_FOUR.contains(&address).then_some(Ipv4Addr::new(a, b, c, d))
}

/// Whether every address of a network is special: who lists it has thought of that. Who lists all addresses there are has not.
pub fn is_special_net(net: &IpNet) -> bool {
    match net {
        IpNet::V4(net) => is_special_v4_net(net),
        IpNet::V6(net) => {
            for (outer, bits) in [(NAT64, 96), (SIX_TO_FOUR, 16)] {
                if outer.contains(net) {
                    let Some(inner) = inner_v4(net.addr()) else { return false };
                    let prefix = net.prefix_len().saturating_sub(bits).min(32);
                    return Ipv4Net::new(inner, prefix).is_ok_and(|inner| is_special_v4_net(&inner.trunc()));
                }
            }
            let overlaps = |other: &Ipv6Net| net.contains(other) || other.contains(net);
            SPECIAL_V6.iter().any(|(outer, _)| outer.contains(net)) || !(overlaps(&GLOBAL_V6) || overlaps(&NAT64))
        }
    }
}

fn is_special_v4_net(net: &Ipv4Net) -> bool {
    SPECIAL_V4.iter().any(|(outer, _)| outer.contains(net))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_simply_on_the_internet_is_known_in_every_form() {
        for address in [
            "0.0.0.0",
            "0.1.2.3",
            "10.0.0.1",
            "100.64.0.1",
            "127.0.0.1",
            "127.255.255.254",
            "168.63.129.16",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.8",
            "192.168.1.1",
            "198.18.0.1",
            "224.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::127.0.0.1",
            "::8.8.8.8",
            "::ffff:127.0.0.1",
            "::ffff:169.254.169.254",
            "::ffff:0:127.0.0.1",
            "64:ff9b::10.0.0.1",
            "64:ff9b:1::8.8.8.8",
            "2002:7f00:1::",
            "2002:a9fe:a9fe::1",
            "2001::1",
            "2001:db8::1",
            "fc00::1",
            "fd00:ec2::254",
            "fe80::1",
            "fec0::1",
            "ff02::1",
            "4000::1",
        ] {
            assert!(special(address.parse().expect("an address")).is_some(), "{address}");
        }
        for address in [
            "1.1.1.1",
            "8.8.8.8",
            "100.128.0.1",
            "172.32.0.1",
            "192.1.0.1",
            "::ffff:8.8.8.8",
            "64:ff9b::8.8.8.8",
            "2002:808:808::1",
            "2606:4700:4700::1111",
            "2a00:1450:4001::1",
        ] {
            assert_eq!(special(address.parse().expect("an address")), None, "{address}");
        }
    }

    #[test]
    fn a_network_is_special_only_as_a_whole() {
        for (net, expected) in [
            ("10.0.0.0/8", true),
            ("10.1.0.0/16", true),
            ("127.0.0.1/32", true),
            ("0.0.0.0/0", false),
            ("8.0.0.0/6", false),
            ("8.8.8.8/32", false),
            ("::/0", false),
            ("fc00::/7", true),
            ("fd00:ec2::254/128", true),
            ("::1/128", true),
            ("2000::/3", false),
            ("::/1", false),
            ("2001:db8::/32", true),
            ("64:ff9b::/96", false),
            ("64:ff9b::a00:0/104", true),
            ("2002:a00::/24", true),
            ("2002::/16", false),
        ] {
            assert_eq!(is_special_net(&net.parse().expect("a network")), expected, "{net}");
        }
    }
}
