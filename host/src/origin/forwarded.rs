//! What proxies in front say of a request's client: `Forwarded` (RFC 7239), `X-Forwarded-For` and `X-Forwarded-Proto`.
//!
//! Each proxy adds, at the end, who came to it. So the list is read from its end, and only as far as those who wrote it are
//! trusted: whatever stands before that, the client may have written itself. Nothing here knows connections or apps.

use std::net::{IpAddr, Ipv6Addr};

use http::{HeaderMap, HeaderName, header};

use crate::config::TrustedPeers;

const FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// What trusted proxies say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Told {
    /// The client's address, and its port if it is named.
    pub(super) client: Option<(IpAddr, Option<u16>)>,
    /// Whether the client's way to the first proxy was encrypted.
    pub(super) https: Option<bool>,
}

type Client = (IpAddr, Option<u16>);

/// Whether a field by which proxies tell of their clients is there. For requests that came without a proxy this is all that is
/// asked, so it looks at nothing but the names.
pub(super) fn is_there(headers: &HeaderMap) -> bool {
    headers.keys().any(is_forwarding)
}

/// All of the family, those too that are not read here: apps read them.
fn is_forwarding(name: &HeaderName) -> bool {
    *name == header::FORWARDED || name.as_str().starts_with("x-forwarded-")
}

/// Takes away what somebody said who is not trusted.
pub(super) fn remove(headers: &mut HeaderMap) {
    let names: Vec<_> = headers.keys().filter(|name| is_forwarding(name)).cloned().collect();
    for name in names {
        headers.remove(name);
    }
}

/// What the peer says, which is trusted, and those before it, as far as they are.
///
/// # Errors
/// Where it cannot be understood, or the two ways of saying it disagree: then one of them is the client's own.
pub(super) fn told(headers: &HeaderMap, trusted: &TrustedPeers) -> Result<Told, &'static str> {
    let standard = headers.contains_key(header::FORWARDED).then(|| from_standard(headers, trusted)).transpose()?;
    let usual = headers.contains_key(FOR) || headers.contains_key(PROTO);
    let usual = usual.then(|| from_usual(headers, trusted)).transpose()?;
    match (standard, usual) {
        (Some(standard), Some(usual)) if standard != usual => Err("Forwarded and X-Forwarded-… say different things"),
        (Some(told), _) | (_, Some(told)) => Ok(told),
        (None, None) => Ok(Told::default()),
    }
}

/// `X-Forwarded-For: client, proxy` and `X-Forwarded-Proto: https`.
fn from_usual(headers: &HeaderMap, trusted: &TrustedPeers) -> Result<Told, &'static str> {
    let mut hops = 0;
    let mut client = None;
    for text in from_the_end(headers, &FOR) {
        let Some(named) = node(text) else { break };
        hops += 1;
        client = Some(named);
        if !trusted.trusts_hop(named.0) {
            break;
        }
    }
    // Most proxies send one scheme. Where each adds its own, that of the same hop counts.
    let mut https = None;
    for text in from_the_end(headers, &PROTO).take(hops.max(1)) {
        https = Some(scheme(text)?);
    }
    Ok(Told { client, https })
}

/// The elements of a field's lists, the last first.
fn from_the_end<'h>(headers: &'h HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'h [u8]> {
    let fields: Vec<_> = headers.get_all(name).iter().map(http::HeaderValue::as_bytes).collect();
    fields.into_iter().rev().flat_map(|field| field.rsplit(|byte| *byte == b',')).map(<[u8]>::trim_ascii)
}

/// `Forwarded: for=client;proto=https, for="[2001:db8::1]:4711"`.
fn from_standard(headers: &HeaderMap, trusted: &TrustedPeers) -> Result<Told, &'static str> {
    let mut elements = Vec::new();
    for field in headers.get_all(header::FORWARDED) {
        parse(field.as_bytes(), &mut elements).ok_or("a Forwarded field breaks the rules of RFC 7239")?;
    }
    let mut told = Told::default();
    for element in elements.iter().rev() {
        told.https = element.proto.as_deref().map(scheme).transpose()?;
        let Some(named) = element.node.as_deref().and_then(node) else { break };
        told.client = Some(named);
        if !trusted.trusts_hop(named.0) {
            break;
        }
    }
    Ok(told)
}

/// One hop: the pairs of it that are read here, without their quotes.
#[derive(Default)]
struct Element {
    node: Option<Vec<u8>>,
    proto: Option<Vec<u8>>,
}

/// Appends the elements of one field; none where it breaks the grammar. Half a field is worth nothing: a quote that a client
/// opened may have swallowed what its proxy wrote after it.
fn parse(field: &[u8], elements: &mut Vec<Element>) -> Option<()> {
    let mut rest = field;
    loop {
        let mut element = Element::default();
        loop {
            rest = rest.trim_ascii_start();
            // RFC 9110 §5.6.1: lists may have empty elements.
            if !matches!(rest.first(), None | Some(b',' | b';')) {
                let (name, value, after) = pair(rest)?;
                let place = match name.to_ascii_lowercase().as_slice() {
                    b"for" => Some(&mut element.node),
                    b"proto" => Some(&mut element.proto),
                    _ => None,
                };
                if let Some(place) = place {
                    // §4: each parameter at most once.
                    if place.replace(value).is_some() {
                        return None;
                    }
                }
                rest = after.trim_ascii_start();
            }
            match rest.split_first() {
                Some((b';', after)) => rest = after,
                Some((b',', after)) => {
                    rest = after;
                    break;
                }
                None => {
                    elements.push(element);
                    return Some(());
                }
                _ => return None,
            }
        }
        elements.push(element);
    }
}

/// `name=value` or `name="value"` at the beginning, and what is after it.
fn pair(text: &[u8]) -> Option<(&[u8], Vec<u8>, &[u8])> {
    let equals = text.iter().position(|byte| *byte == b'=')?;
    let (name, rest) = (&text[..equals], &text[equals + 1..]);
    if name.is_empty() || !name.iter().all(|byte| is_token(*byte)) {
        return None;
    }
    if let Some(quoted) = rest.strip_prefix(b"\"") {
        let mut value = Vec::new();
        let mut bytes = quoted.iter().enumerate();
        while let Some((at, byte)) = bytes.next() {
            match byte {
                b'"' => return Some((name, value, &quoted[at + 1..])),
                b'\\' => value.push(*bytes.next()?.1),
                _ => value.push(*byte),
            }
        }
        return None;
    }
    // An IPv6 address and a port belong in quotes; proxies that forget them are understood.
    let is_bare = |byte: u8| is_token(byte) || matches!(byte, b':' | b'[' | b']');
    let end = rest.iter().position(|byte| !is_bare(*byte)).unwrap_or(rest.len());
    (end > 0).then(|| (name, rest[..end].to_vec(), &rest[end..]))
}

/// RFC 9110 §5.6.2.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// An address with or without a port. None for `unknown`, for a name made up by a proxy (`_hidden`), and for anything else.
fn node(text: &[u8]) -> Option<Client> {
    let text = std::str::from_utf8(text).ok()?;
    if let Ok(address) = text.parse::<IpAddr>() {
        return Some((address.to_canonical(), None));
    }
    let (address, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (address, port) = rest.split_once(']')?;
            (IpAddr::V6(address.parse::<Ipv6Addr>().ok()?), port.strip_prefix(':').or(port.is_empty().then_some(""))?)
        }
        None => {
            let (address, port) = text.split_once(':')?;
            (IpAddr::V4(address.parse().ok()?), port)
        }
    };
    let port = match port {
        "" => None,
        // A port may be made up, too (RFC 7239 §6.3).
        port if port.starts_with('_') => None,
        port if port.bytes().all(|byte| byte.is_ascii_digit()) => Some(port.parse().ok()?),
        _ => return None,
    };
    Some((address.to_canonical(), port))
}

/// Whether a scheme is that of an encrypted connection. WebSockets begin as HTTP, and some proxies call them by their name.
fn scheme(text: &[u8]) -> Result<bool, &'static str> {
    match text.to_ascii_lowercase().as_slice() {
        b"https" | b"wss" => Ok(true),
        b"http" | b"ws" => Ok(false),
        _ => Err("a proxy names a scheme that is neither http nor https"),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::config::{Config, Settings};

    fn trusted(peers: &[&str]) -> TrustedPeers {
        let forwarded_allow_ips = peers.iter().map(ToString::to_string).collect();
        let settings = Settings { forwarded_allow_ips, ..Settings::default() };
        Config::load(&settings).expect("the peers are right").forwarded_allow_ips
    }

    fn headers(fields: &[(&str, &str)]) -> HeaderMap {
        let name = |name: &str| HeaderName::from_bytes(name.as_bytes()).unwrap();
        fields.iter().map(|(field, value)| (name(field), value.parse().unwrap())).collect()
    }

    /// `client` is "" for none.
    #[track_caller]
    fn check(fields: &[(&str, &str)], client: &str, https: Option<bool>) {
        let told = told(&headers(fields), &trusted(&["127.0.0.1", "10.0.0.0/8", "fd00::/8", "unix"])).expect("right");
        let found = told.client.map_or_else(String::new, |(address, port)| match port {
            Some(port) => std::net::SocketAddr::new(address, port).to_string(),
            None => address.to_string(),
        });
        assert_eq!((found.as_str(), told.https), (client, https), "{fields:?}");
    }

    #[track_caller]
    fn check_refused(fields: &[(&str, &str)]) {
        assert!(told(&headers(fields), &trusted(&["127.0.0.1"])).is_err(), "{fields:?}");
    }

    #[test]
    fn the_last_address_that_is_no_proxy_is_the_clients() {
        let x_for = |value| [("X-Forwarded-For", value)];
        check(&x_for("192.0.2.7"), "192.0.2.7", None);
        check(&x_for("203.0.113.9, 192.0.2.7"), "192.0.2.7", None);
        check(&x_for("203.0.113.9, 192.0.2.7, 10.1.2.3,10.0.0.1"), "192.0.2.7", None);
        check(&x_for("10.1.2.3, 10.0.0.1"), "10.1.2.3", None);
        check(&x_for("2001:db8::7"), "2001:db8::7", None);
        check(&x_for("[2001:db8::7]:4711, fd00::1"), "[2001:db8::7]:4711", None);
        check(&x_for("192.0.2.7:4711"), "192.0.2.7:4711", None);
        check(&x_for("::ffff:192.0.2.7"), "192.0.2.7", None);
        check(&[("X-Forwarded-For", "203.0.113.9"), ("X-Forwarded-For", "192.0.2.7, 10.0.0.1")], "192.0.2.7", None);
        check(&[("Forwarded", "for=203.0.113.9, For=192.0.2.7;by=x;PROTO=HTTPS")], "192.0.2.7", Some(true));
        check(
            &[("Forwarded", "for=\"[2001:db8::7]:4711\";proto=http, for=10.0.0.1")],
            "[2001:db8::7]:4711",
            Some(false),
        );
        check(
            &[("Forwarded", "for=192.0.2.7:80"), ("Forwarded", "for=10.0.0.1;secret=\"a,b;c\\\"\"")],
            "192.0.2.7:80",
            None,
        );
    }

    #[test]
    fn what_is_no_address_ends_the_search() {
        check(&[("X-Forwarded-For", "203.0.113.9, unknown")], "", None);
        check(&[("X-Forwarded-For", "203.0.113.9, unknown, 10.0.0.1")], "10.0.0.1", None);
        check(&[("X-Forwarded-For", "")], "", None);
        check(&[("X-Forwarded-For", "192.0.2.7:99999")], "", None);
        check(&[("Forwarded", "for=_hidden;proto=https")], "", Some(true));
        check(&[("Forwarded", "for=\"192.0.2.7:_port\"")], "192.0.2.7", None);
        check(&[("Forwarded", "proto=https")], "", Some(true));
    }

    #[test]
    fn the_scheme_is_that_of_the_clients_hop() {
        check(&[("X-Forwarded-Proto", "https")], "", Some(true));
        check(&[("X-Forwarded-For", "192.0.2.7"), ("X-Forwarded-Proto", "http, https")], "192.0.2.7", Some(true));
        check(&[("X-Forwarded-For", "192.0.2.7, 10.0.0.1"), ("X-Forwarded-Proto", "https")], "192.0.2.7", Some(true));
        check(
            &[("X-Forwarded-For", "9.9.9.9, 192.0.2.7, 10.0.0.1"), ("X-Forwarded-Proto", "evil, https, http")],
            "192.0.2.7",
            Some(true),
        );
    }

    #[test]
    fn what_contradicts_itself_or_breaks_the_rules_is_refused() {
        check_refused(&[("X-Forwarded-Proto", "gopher")]);
        check_refused(&[("Forwarded", "for=192.0.2.7"), ("X-Forwarded-For", "192.0.2.8")]);
        check_refused(&[("Forwarded", "for=192.0.2.7;proto=https"), ("X-Forwarded-For", "192.0.2.7")]);
        check_refused(&[("Forwarded", "for=\", for=192.0.2.7;proto=https")]);
        check_refused(&[("Forwarded", "for=192.0.2.7;for=192.0.2.8")]);
        check_refused(&[("Forwarded", "192.0.2.7")]);
        check_refused(&[("Forwarded", "for=192.0.2.7 for=192.0.2.8")]);
        check(&[("Forwarded", "for=192.0.2.7"), ("X-Forwarded-For", "192.0.2.7")], "192.0.2.7", None);
    }

    #[test]
    fn anyone_may_name_its_client_but_no_further_hop() {
        let fields = headers(&[("X-Forwarded-For", "203.0.113.9, 192.0.2.7")]);
        let told = told(&fields, &trusted(&["*"])).expect("right");
        assert_eq!(told.client.map(|(address, _)| address.to_string()).as_deref(), Some("192.0.2.7"));
    }

    #[test]
    fn the_whole_family_is_removed_and_nothing_else() {
        let mut fields = headers(&[
            ("Forwarded", "for=1.2.3.4"),
            ("X-Forwarded-For", "1.2.3.4"),
            ("X-Forwarded-For", "1.2.3.5"),
            ("X-Forwarded-Host", "a"),
            ("X-Forwarded-Prefix", "/a"),
            ("X-Forward", "b"),
            ("Host", "c"),
        ]);
        assert!(is_there(&fields));
        remove(&mut fields);
        assert!(!is_there(&fields));
        assert!(fields.len() == 2 && fields.contains_key("x-forward") && fields.contains_key("host"));
    }

    proptest! {
        /// Whatever a client writes before what its proxy adds changes nothing.
        #[test]
        fn no_client_can_say_who_it_is(forged in "[ -~]{0,80}") {
            let peers = trusted(&["127.0.0.1", "10.0.0.0/8"]);
            let client = "192.0.2.7".parse().unwrap();
            let usual = headers(&[("X-Forwarded-For", &format!("{forged}, 192.0.2.7")), ("X-Forwarded-Proto", "http")]);
            let found = told(&usual, &peers).expect("the last element is right");
            prop_assert_eq!((found.client, found.https), (Some((client, None)), Some(false)));
            let standard = headers(&[("Forwarded", &format!("{forged}, for=192.0.2.7;proto=http"))]);
            if let Ok(found) = told(&standard, &peers) {
                prop_assert_eq!((found.client, found.https), (Some((client, None)), Some(false)));
            }
        }

        #[test]
        fn fields_of_any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            let Ok(value) = http::HeaderValue::from_bytes(&bytes) else { return Ok(()) };
            let mut fields = HeaderMap::new();
            for name in [header::FORWARDED, FOR, PROTO] {
                fields.insert(name, value.clone());
            }
            let _ = told(&fields, &trusted(&["*", "10.0.0.0/8"]));
        }
    }
}
