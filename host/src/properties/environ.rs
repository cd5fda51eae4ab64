//! environ: whatever a client sends, its block can be taken apart again, and nothing in it poses as something else.

use std::collections::BTreeMap;

use http::{HeaderName, HeaderValue, Request, Version};
use proptest::prelude::*;

use super::bytes_like;
use crate::guest::environ::{Constant, EnvironBlock, Place, host_and_port};
use crate::origin::Origin;

const NAMES: &[&str] = &[
    "host",
    "cookie",
    "content-type",
    "content-length",
    "content_type",
    "content_length",
    "proxy",
    "x-a",
    "x_a",
    "x-a-b",
    "x-a_b",
    "transfer-encoding",
    "accept",
    "authorization",
    "connection",
    "http-host",
    "x-forwarded-for",
    "remote-addr",
];

fn header() -> impl Strategy<Value = (HeaderName, HeaderValue)> {
    let name = prop_oneof![
        4 => prop::sample::select(NAMES).prop_map(HeaderName::from_static),
        1 => "[a-z0-9!#$%&'*+.^_`|~-]{1,12}".prop_map(|name| HeaderName::from_bytes(name.as_bytes()).expect("a token")),
    ];
    let value = bytes_like(b"a=;,: \t\"\xe9", 16).prop_map(|mut bytes| {
        // hyper lets no control character but a tab this far.
        bytes.iter_mut().filter(|byte| byte.is_ascii_control() && **byte != b'\t').for_each(|byte| *byte = b'a');
        HeaderValue::from_bytes(&bytes).expect("it holds none")
    });
    (name, value)
}

fn request() -> impl Strategy<Value = Request<()>> {
    let method = prop_oneof![
        prop::sample::select(vec!["GET", "POST", "HEAD"]).prop_map(str::to_owned),
        "[A-Z!#$%&'*+.^_`|~-]{1,10}",
    ];
    let target = prop_oneof![
        "/[a-z%./]{0,12}(\\?[a-z=&?%]{0,12})?",
        "http://[a-z.]{1,8}(:[0-9]{1,5})?/[a-z]{0,4}(\\?[a-z]{0,4})?",
        Just("*".to_owned()),
    ];
    let version = prop::sample::select(vec![Version::HTTP_10, Version::HTTP_11, Version::HTTP_2]);
    (method, target, version, prop::collection::vec(header(), 0..12)).prop_filter_map(
        "hyper takes no such request",
        |(method, target, version, headers)| {
            let request = Request::builder().method(method.as_str()).uri(target).version(version);
            headers.into_iter().fold(request, |request, (name, value)| request.header(name, value)).body(()).ok()
        },
    )
}

/// A piece of a path, as the gateway decodes it: any bytes but NUL.
fn path() -> impl Strategy<Value = Vec<u8>> {
    bytes_like(b"/ab\n=\xff", 12).prop_map(|path| path.into_iter().filter(|byte| *byte != 0).collect())
}

proptest! {
    #[test]
    fn a_host_and_a_port_are_the_whole_text_and_unambiguous(text in "[a1.:%@/,+-]{0,12}|\\[?[a1:.]{0,8}\\]?(:[0-9]{0,6})?") {
        let Some((host, port)) = host_and_port(&text) else { return Ok(()) };
        prop_assert!(!host.is_empty() && !host.contains(['@', '/']));
        prop_assert!(host.starts_with('[') == host.contains(':'), "{}", host);
        prop_assert!(port.is_none_or(|port| port.parse::<u16>().is_ok()));
        let whole = port.map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"));
        prop_assert_eq!(text.strip_suffix(':').unwrap_or(&text), whole);
    }

    #[test]
    fn environ_can_be_taken_apart_and_nothing_in_it_poses_as_something_else(
        request in request(),
        script_name in path(),
        path_info in path(),
        env in prop::collection::btree_map("[A-Z]{1,3}_OWN", "[^\\x00]{0,8}", 0..4),
        remote in prop::option::of(any::<std::net::SocketAddr>()),
        spooled in prop::option::of(any::<u64>()),
    ) {
        let (parts, ()) = request.into_parts();
        // Only a body that came without a length is spooled.
        let spooled = spooled.filter(|_| !parts.headers.contains_key("content-length"));
        let origin = Origin::of_connection(remote, Some("127.0.0.1:8000".parse().expect("an address")), false);
        let place = Place { script_name: &script_name, path_info: &path_info, origin: &origin, spooled_bytes: spooled };
        let env: Vec<_> = env.into_iter().collect();
        let block = EnvironBlock::of_request(&Constant::new(env.iter().map(|(name, value)| (name.as_str(), value.as_str()))), &parts, &place).into_bytes();
        let variables = take_apart(&block)?;
        let value = |name: &str| variables.get(name).map(Vec::as_slice);

        // E3, E4, E5: there for every request, and as they came.
        prop_assert_eq!(value("REQUEST_METHOD"), Some(parts.method.as_str().as_bytes()));
        prop_assert_eq!(value("SCRIPT_NAME"), Some(script_name.as_slice()));
        prop_assert_eq!(value("PATH_INFO"), Some(path_info.as_slice()));
        prop_assert_eq!(value("QUERY_STRING"), Some(parts.uri.query().unwrap_or("").as_bytes()));
        if let Some(remote) = remote {
            let address = remote.ip().to_canonical().to_string();
            prop_assert_eq!(value("REMOTE_ADDR"), Some(address.as_bytes()));
        }
        for name in ["SERVER_NAME", "SERVER_PORT", "SERVER_PROTOCOL", "SERVER_SOFTWARE", "GATEWAY_INTERFACE"] {
            prop_assert!(value(name).is_some_and(|value| !value.is_empty()), "{} is missing or empty", name);
        }
        prop_assert!(value("SERVER_PORT").is_some_and(|port| port.iter().all(u8::is_ascii_digit)));

        // E6, E8: what would alias another variable, or be taken for a setting, is not there.
        for name in ["HTTP_PROXY", "HTTP_CONTENT_TYPE", "HTTP_CONTENT_LENGTH", "HTTP_TRANSFER_ENCODING"] {
            prop_assert!(value(name).is_none(), "{}", name);
        }
        // E7: each field that is passed has its variable, with its values in order.
        for name in parts.headers.keys().filter(|name| !name.as_str().contains('_')) {
            if ["proxy", "transfer-encoding", "content-type", "content-length", "host"].contains(&name.as_str()) {
                continue;
            }
            let separator: &[u8] = if name == "cookie" { b"; " } else { b"," };
            let values: Vec<&[u8]> = parts.headers.get_all(name).iter().map(HeaderValue::as_bytes).collect();
            let joined = values.join(separator);
            let variable = format!("HTTP_{}", name.as_str().to_ascii_uppercase().replace('-', "_"));
            prop_assert_eq!(value(&variable), Some(joined.as_slice()), "{}", variable);
        }
        for (name, own) in &env {
            prop_assert_eq!(value(name), Some(own.as_bytes()));
        }
    }
}

/// Name, NUL, value, NUL, again and again; each name once.
fn take_apart(block: &[u8]) -> Result<BTreeMap<String, Vec<u8>>, TestCaseError> {
    prop_assert!(block.ends_with(&[0]));
    let fields: Vec<&[u8]> = block[..block.len() - 1].split(|byte| *byte == 0).collect();
    prop_assert_eq!(fields.len() % 2, 0);
    let mut variables = BTreeMap::new();
    for pair in fields.chunks(2) {
        let name = String::from_utf8(pair[0].to_vec()).map_err(|_| TestCaseError::fail("a name is not text"))?;
        prop_assert!(!name.is_empty() && !name.contains('='), "{:?}", name);
        prop_assert!(variables.insert(name.clone(), pair[1].to_vec()).is_none(), "{} is there twice", name);
    }
    Ok(variables)
}
