//! Paths: decoded, refused or split between an app and its rest. What is routed is what the guest sees.

use proptest::prelude::*;

use super::{bytes_like, text_like};
use crate::bundle::Manifest;
use crate::config::{AppSpec, Config, HostPattern, RouteSpec};
use crate::gateway::decode_path;
use crate::route::Router;

const PATH: &[&str] =
    &["/", "/a", "/b", "/shop", "//", ".", "..", "%2e", "%2E", "%2f", "%00", "%", "%c3%a9", "%25", ";"];
const HOST: &[&str] = &["example", ".", "com", "a", "A", "-", "*", "[::1]", ":", "80", "xn--"];

fn segment() -> impl Strategy<Value = String> {
    prop::sample::select(vec!["a", "b", "shop", "...", "a.b", "é", "a b", "%41"]).prop_map(str::to_owned)
}

fn prefix() -> impl Strategy<Value = String> {
    prop::collection::vec(segment(), 0..4).prop_map(|segments| segments.iter().map(|name| format!("/{name}")).collect())
}

fn host_pattern() -> impl Strategy<Value = HostPattern> {
    let name = prop::sample::select(vec!["example.com", "a.example.com", "com", "localhost", "[::1]"]);
    prop_oneof![
        Just(HostPattern::Any),
        name.clone().prop_map(|name| HostPattern::Exact(name.to_owned())),
        name.prop_map(|name| HostPattern::Suffix(format!(".{name}"))),
    ]
}

fn routes() -> impl Strategy<Value = Vec<RouteSpec>> {
    prop::collection::vec((host_pattern(), prefix()).prop_map(|(host, prefix)| RouteSpec { host, prefix }), 0..12)
}

fn fits(pattern: &HostPattern, host: Option<&str>) -> bool {
    let host = host.unwrap_or("").to_ascii_lowercase();
    let host = host.strip_suffix('.').unwrap_or(&host);
    match pattern {
        HostPattern::Any => true,
        HostPattern::Exact(name) => host == name,
        HostPattern::Suffix(suffix) => host.len() > suffix.len() && host.ends_with(suffix.as_str()),
    }
}

/// How much a route counts among those that fit.
fn rank(route: &RouteSpec) -> (u8, usize, usize) {
    match &route.host {
        HostPattern::Exact(_) => (2, 0, route.prefix.len()),
        HostPattern::Suffix(suffix) => (1, suffix.len(), route.prefix.len()),
        HostPattern::Any => (0, 0, route.prefix.len()),
    }
}

proptest! {
    #[test]
    fn a_decoded_path_has_no_nul_no_dot_segment_and_was_decoded_once(path in text_like(PATH, 24)) {
        if let Ok(decoded) = decode_path(&path) {
            prop_assert!(decoded.starts_with(b"/"));
            prop_assert!(!decoded.contains(&0));
            prop_assert!(decoded.split(|byte| *byte == b'/').all(|segment| segment != b"." && segment != b".."));
            let once: Vec<u8> = percent_encoding::percent_decode_str(&path).collect();
            prop_assert_eq!(decoded.as_ref(), once.as_slice());
        }
    }

    #[test]
    fn a_harmless_path_is_never_refused(segments in prop::collection::vec("[a-zA-Z0-9_~-]{1,8}", 0..8)) {
        let path = format!("/{}", segments.join("/"));
        let decoded = decode_path(&path).ok();
        prop_assert_eq!(decoded.as_deref(), Some(path.as_bytes()));
    }

    #[test]
    fn script_name_and_path_info_are_the_path(
        routes in routes(),
        host in prop::option::of(text_like(HOST, 8)),
        path in bytes_like(b"/ab%\xc3\xa9.", 24),
    ) {
        let router = Router::new(routes.iter().map(|route| (route, "", route)), []);
        let found = router.resolve(host.as_deref(), &path);
        if let Some(found) = &found {
            prop_assert_eq!([found.script_name, found.path_info].concat(), path.clone());
            prop_assert_eq!(found.script_name, found.target.prefix.as_bytes());
            prop_assert!(found.path_info.is_empty() || found.path_info.starts_with(b"/"), "a segment was cut");
            prop_assert!(found.script_name != b"/");
            prop_assert!(fits(&found.target.host, host.as_deref()));
        }
    }

    /// The router's look-ups say what a plain walk through all routes says.
    #[test]
    fn the_best_route_of_all_is_found(
        routes in routes(),
        host in prop::option::of(prop::sample::select(vec!["example.com", "x.a.Example.com.", "COM", "localhost", ""])),
        segments in prop::collection::vec(segment(), 0..5),
        slash in any::<bool>(),
    ) {
        let path = segments.iter().map(|name| format!("/{name}")).collect::<String>() + if slash { "/" } else { "" };
        let is_prefix = |prefix: &str| {
            path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        let best = routes.iter().filter(|route| fits(&route.host, host) && is_prefix(&route.prefix)).map(rank).max();
        let router = Router::new(routes.iter().map(|route| (route, "", route)), []);
        let found = router.resolve(host, path.as_bytes()).map(|found| rank(found.target));
        prop_assert_eq!(found, best);
    }

    /// A route that was accepted can be reached: by its own path, decoded as a request's is.
    #[test]
    fn an_accepted_route_is_reached_by_its_own_path(text in text_like(&["/", "a", "b.", "é", "..", " ", ";", "%", "?"], 12)) {
        let sidecar = format!("routes = [{}]", toml::Value::String(format!("/{text}")));
        let Ok(AppSpec { routes, .. }) = Config::default().app_spec("hello", Some(&sidecar), &Manifest::default()) else { return Ok(()) };
        let encoded = percent_encoding::utf8_percent_encode(&routes[0].prefix, percent_encoding::CONTROLS).to_string();
        let path = if encoded.is_empty() { "/" } else { &encoded };
        let decoded = decode_path(path).map_err(|error| TestCaseError::fail(error.to_string()))?;
        let router = Router::new(routes.iter().map(|route| (route, "", ())), []);
        prop_assert!(router.resolve(None, &decoded).is_some_and(|found| found.script_name == routes[0].prefix.as_bytes()));
    }
}
