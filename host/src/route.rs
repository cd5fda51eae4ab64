//! Pure: host + path → app, `SCRIPT_NAME`, `PATH_INFO`.
//!
//! It knows nothing of apps, percent-encoding or ports: it is given the host without its port and the path decoded.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use crate::config::{HostPattern, RouteSpec};

/// Finds what is mounted where. `T` is what is found: an app, or a name in tests.
///
/// A look-up costs a few hash look-ups, however many routes there are: for each host pattern that fits, one per
/// segment of the path, down from the deepest prefix that is registered for it.
pub struct Router<T> {
    any: Mounts<T>,
    exact: HashMap<String, Mounts<T>>,
    /// By the part after the `*`: `.example.com`.
    suffixes: HashMap<String, Mounts<T>>,
    /// No suffix has more bytes or labels than these, so a hostile host name costs no more look-ups than that.
    suffix_bytes_max: usize,
    suffix_labels_max: usize,
}

/// The prefixes of one host pattern.
struct Mounts<T> {
    by_prefix: HashMap<Vec<u8>, Place<T>>,
    /// No prefix has more segments or bytes than these.
    depth_max: usize,
    bytes_max: usize,
}

/// What is at one prefix.
struct Place<T> {
    /// Whose it is.
    tenant: Arc<str>,
    /// None where the tenant was given the place, and serves nothing at it.
    target: Option<T>,
}

/// What [`Router::resolve`] found: the target, and where the path splits.
#[derive(Debug, PartialEq, Eq)]
pub struct Match<'r, 'p, T> {
    pub target: &'r T,
    /// `SCRIPT_NAME` (RFC 3875 §4.1.13): the prefix. "" or starting with "/", never just "/".
    pub script_name: &'p [u8],
    /// `PATH_INFO` (RFC 3875 §4.1.5): the rest. "" or starting with "/".
    pub path_info: &'p [u8],
}

impl<T> Default for Router<T> {
    fn default() -> Self {
        Self {
            any: Mounts::default(),
            exact: HashMap::new(),
            suffixes: HashMap::new(),
            suffix_bytes_max: 0,
            suffix_labels_max: 0,
        }
    }
}

impl<T> Router<T> {
    /// A router of these routes, each with its tenant. Of two that claim the same place the first one stays. A request within a place
    /// that was given to a tenant finds that tenant's routes, or nothing.
    pub fn new<'a>(
        routes: impl IntoIterator<Item = (&'a RouteSpec, &'a str, T)>,
        given: impl IntoIterator<Item = (&'a RouteSpec, &'a str)>,
    ) -> Self {
        let mut router = Self::default();
        let mut tenants: HashSet<Arc<str>> = HashSet::new();
        let routes = routes.into_iter().map(|(route, tenant, target)| (route, tenant, Some(target)));
        let given = given.into_iter().map(|(route, tenant)| (route, tenant, None));
        for (route, tenant, target) in routes.chain(given) {
            // As many texts as there are tenants, not as there are routes.
            let tenant = tenants.get(tenant).cloned().unwrap_or_else(|| {
                let tenant: Arc<str> = tenant.into();
                tenants.insert(Arc::clone(&tenant));
                tenant
            });
            router.mounts(&route.host).insert(route.prefix.as_bytes(), Place { tenant, target });
        }
        router
    }

    fn mounts(&mut self, host: &HostPattern) -> &mut Mounts<T> {
        match host {
            HostPattern::Any => &mut self.any,
            HostPattern::Exact(host) => self.exact.entry(host.clone()).or_default(),
            HostPattern::Suffix(suffix) => {
                self.suffix_bytes_max = self.suffix_bytes_max.max(suffix.len());
                self.suffix_labels_max = self.suffix_labels_max.max(count(b'.', suffix.as_bytes()));
                self.suffixes.entry(suffix.clone()).or_default()
            }
        }
    }

    /// Finds the app for a request. `host` is without port, in any case; `path` is percent-decoded and may hold any bytes.
    ///
    /// An exact host goes before a wildcard, a longer wildcard before a shorter one, any wildcard before "any host"; among
    /// the routes of a host the longest prefix wins, on segment boundaries. A host pattern without a fitting prefix does
    /// not end the search: the next pattern is tried.
    pub fn resolve<'r, 'p>(&'r self, host: Option<&str>, path: &'p [u8]) -> Option<Match<'r, 'p, T>> {
        let lowered;
        let host = match host {
            Some(host) if host.bytes().any(|byte| byte.is_ascii_uppercase()) => {
                lowered = host.to_ascii_lowercase();
                lowered.as_str()
            }
            Some(host) => host,
            None => "",
        };
        // `example.com.` is the same name (RFC 1034 §3.1).
        let host = host.strip_suffix('.').unwrap_or(host);
        let mut owner = None;
        if let Some(mounts) = self.exact.get(host)
            && let Some(found) = mounts.resolve(path, &mut owner)
        {
            return Some(found);
        }
        let found = self.wildcards(host).find_map(|mounts| mounts.resolve(path, &mut owner));
        found.or_else(|| self.any.resolve(path, &mut owner))
    }

    /// The wildcard patterns that fit, the longest suffix first.
    fn wildcards(&self, host: &str) -> impl Iterator<Item = &Mounts<T>> {
        // Only the tail can match, so a host name of thousands of dots costs no more than the longest suffix does. The `*`
        // stands for at least one character, hence from 1.
        let start = host.len().saturating_sub(self.suffix_bytes_max).max(1);
        let tail = host.as_bytes().get(start..).unwrap_or_default();
        let too_long = count(b'.', tail).saturating_sub(self.suffix_labels_max);
        boundaries(b'.', tail).skip(too_long).filter_map(move |dot| self.suffixes.get(host.get(start + dot..)?))
    }
}

impl<T> Default for Mounts<T> {
    fn default() -> Self {
        Self { by_prefix: HashMap::new(), depth_max: 0, bytes_max: 0 }
    }
}

impl<T> Mounts<T> {
    fn insert(&mut self, prefix: &[u8], place: Place<T>) {
        self.depth_max = self.depth_max.max(count(b'/', prefix));
        self.bytes_max = self.bytes_max.max(prefix.len());
        self.by_prefix.entry(prefix.to_vec()).or_insert(place);
    }

    /// `owner` is the tenant that was given the request's place, once that is known: routes of others count no more.
    fn resolve<'r, 'p>(&'r self, path: &'p [u8], owner: &mut Option<&'r str>) -> Option<Match<'r, 'p, T>> {
        // A prefix ends before a slash or at the path's end. Only the first `depth_max` segments can be one, which also
        // bounds what "/////…" costs.
        let mut end = boundaries(b'/', path).nth(self.depth_max).unwrap_or(path.len());
        loop {
            if end <= self.bytes_max
                && let Some(place) = self.by_prefix.get(&path[..end])
            {
                match &place.target {
                    Some(target) if owner.is_none_or(|owner| owner == &*place.tenant) => {
                        let (script_name, path_info) = path.split_at(end);
                        return Some(Match { target, script_name, path_info });
                    }
                    Some(_) => {}
                    None => _ = owner.get_or_insert(&place.tenant),
                }
            }
            end = boundaries(b'/', &path[..end]).next_back()?;
        }
    }
}

/// Where `separator` occurs in `text`.
fn boundaries(separator: u8, text: &[u8]) -> impl DoubleEndedIterator<Item = usize> {
    (0..text.len()).filter(move |&place| text[place] == separator)
}

fn count(separator: u8, text: &[u8]) -> usize {
    boundaries(separator, text).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `example.com/a`, `*.example.com/a` or `/a` → a route.
    fn route(text: &str) -> RouteSpec {
        let (host, prefix) = text.split_at(text.find('/').unwrap_or(text.len()));
        let host = match host.strip_prefix('*') {
            _ if host.is_empty() => HostPattern::Any,
            Some(suffix) => HostPattern::Suffix(suffix.to_owned()),
            None => HostPattern::Exact(host.to_owned()),
        };
        RouteSpec { host, prefix: prefix.trim_end_matches('/').to_owned() }
    }

    /// Resolves `host` + `path` among `routes`: `route|SCRIPT_NAME|PATH_INFO`, or "none".
    #[track_caller]
    fn check(routes: &[&str], host: &str, path: &[u8], expected: &str) {
        let specs: Vec<RouteSpec> = routes.iter().map(|text| route(text)).collect();
        let router = Router::new(specs.iter().zip(routes.iter()).map(|(spec, text)| (spec, "", *text)), []);
        let host = (!host.is_empty()).then_some(host);
        let found = router.resolve(host, path).map_or_else(
            || "none".to_owned(),
            |found| format!("{}|{}|{}", found.target, found.script_name.escape_ascii(), found.path_info.escape_ascii()),
        );
        assert_eq!(found, expected, "{host:?} {:?} among {routes:?}", path.escape_ascii().to_string());
    }

    #[test]
    fn the_longest_prefix_wins_on_segment_boundaries() {
        let routes = &["/", "/shop", "/shop/cart", "/a/b/c"];
        for (path, expected) in [
            ("/", "/||/"),
            ("", "/||"),
            ("/x", "/||/x"),
            ("/shop", "/shop|/shop|"),
            ("/shop/", "/shop|/shop|/"),
            ("/shopping", "/||/shopping"),
            ("/shop/cart", "/shop/cart|/shop/cart|"),
            ("/shop/cart/1/2/3/4/5/6", "/shop/cart|/shop/cart|/1/2/3/4/5/6"),
            ("/shop/cartel", "/shop|/shop|/cartel"),
            ("/shop//cart", "/shop|/shop|//cart"),
            ("//shop", "/||//shop"),
            ("/a/b", "/||/a/b"),
            ("/a/b/c/", "/a/b/c|/a/b/c|/"),
            ("/Shop", "/||/Shop"),
        ] {
            check(routes, "", path.as_bytes(), expected);
        }
    }

    #[test]
    fn without_a_root_app_other_paths_find_nothing() {
        for path in ["/", "", "/x", "//", "/hell", "/hello2", "hello", "*"] {
            check(&["/hello"], "", path.as_bytes(), "none");
        }
        check(&["/"], "", b"*", "none");
        check(&[], "example.com", b"/", "none");
    }

    #[test]
    fn an_exact_host_goes_before_a_wildcard_and_that_before_any() {
        let routes = &["/", "*.example.com/", "*.eu.example.com/", "a.example.com/", "a.example.com/only"];
        for (host, expected) in [
            ("a.example.com", "a.example.com/||/x"),
            ("A.Example.COM", "a.example.com/||/x"),
            ("a.example.com.", "a.example.com/||/x"),
            ("b.example.com", "*.example.com/||/x"),
            ("c.b.example.com", "*.example.com/||/x"),
            ("b.eu.example.com", "*.eu.example.com/||/x"),
            ("eu.example.com", "*.example.com/||/x"),
            ("example.com", "/||/x"),
            (".example.com", "/||/x"),
            ("badexample.com", "/||/x"),
            ("example.com.evil", "/||/x"),
            ("", "/||/x"),
        ] {
            check(routes, host, b"/x", expected);
        }
    }

    #[test]
    fn a_host_without_a_fitting_prefix_falls_through() {
        let routes = &["/", "/any", "*.example.com/wild", "a.example.com/exact"];
        check(routes, "a.example.com", b"/exact/1", "a.example.com/exact|/exact|/1");
        check(routes, "a.example.com", b"/wild/1", "*.example.com/wild|/wild|/1");
        check(routes, "a.example.com", b"/any/1", "/any|/any|/1");
        check(routes, "a.example.com", b"/1", "/||/1");
    }

    #[test]
    fn an_exact_host_with_a_shorter_prefix_goes_before_a_longer_prefix_of_any_host() {
        check(&["/shop/cart", "a.example.com/"], "a.example.com", b"/shop/cart", "a.example.com/||/shop/cart");
    }

    #[test]
    fn path_bytes_need_not_be_text() {
        check(&["/hello"], "", b"/hello/\xff\x00", "/hello|/hello|/\\xff\\x00");
        check(&["/hello"], "", b"/hello\xff", "none");
        check(&["/caf\u{e9}"], "", "/caf\u{e9}/1".as_bytes(), "/caf\u{e9}|/caf\\xc3\\xa9|/1");
    }

    #[test]
    fn of_two_claims_the_first_stays() {
        let spec = route("/hello");
        let router = Router::new([(&spec, "", 1), (&spec, "", 2)], []);
        assert_eq!(router.resolve(None, b"/hello").map(|found| *found.target), Some(1));
    }

    #[test]
    fn within_a_tenants_place_only_its_routes_count() {
        let mounted = [("/", ""), ("/acme/shop", "acme"), ("/deep", "acme"), ("b.example/", "b"), ("*.example/", "")];
        let given = [("/acme", "acme"), ("/acme/b", "b"), ("acme.example/", "acme"), ("b.example/", "b")];
        let mounted = mounted.map(|(text, tenant)| (route(text), tenant, text));
        let given = given.map(|(text, tenant)| (route(text), tenant));
        let routes = mounted.iter().map(|(spec, tenant, text)| (spec, *tenant, *text));
        let router = Router::new(routes, given.iter().map(|(spec, tenant)| (spec, *tenant)));
        for (host, path, expected) in [
            ("", "/acme/shop/1", Some("/acme/shop")),
            ("", "/x", Some("/")),
            // Nobody else is asked what a tenant does not serve: visitors of its own might have come.
            ("", "/acme/other", None),
            ("", "/acme/b/x", None),
            // A host that was given is answered by the tenant's own routes of any host, and by nobody else's.
            ("acme.example", "/acme/shop", Some("/acme/shop")),
            ("acme.example", "/deep", Some("/deep")),
            ("acme.example", "/x", None),
            ("b.example", "/x", Some("b.example/")),
            ("c.example", "/x", Some("*.example/")),
        ] {
            let found = router.resolve((!host.is_empty()).then_some(host), path.as_bytes()).map(|found| *found.target);
            assert_eq!(found, expected, "{host} {path}");
        }
    }

    #[test]
    fn hostile_paths_and_hosts_cost_no_more_than_short_ones() {
        let slashes = vec![b'/'; 1 << 20];
        let dots = ".".repeat(1 << 20);
        let routes = &["/hello", "*.example.com/hello"];
        let specs: Vec<RouteSpec> = routes.iter().map(|text| route(text)).collect();
        let router = Router::new(specs.iter().map(|spec| (spec, "", ())), []);
        let started = std::time::Instant::now();
        for _ in 0..10 {
            assert!(router.resolve(Some("example.com"), &slashes).is_none());
            assert!(router.resolve(Some(&dots), b"/").is_none());
        }
        // A look-up per slash or dot would hash 10 × 2 × 1,048,576 times, over half a megabyte each.
        assert!(started.elapsed() < std::time::Duration::from_secs(2), "{:?}", started.elapsed());
    }
}
