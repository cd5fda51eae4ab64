//! Places in the URL space: how they are written, and which of them lie within which.

use std::fmt;
use std::net::Ipv6Addr;

use super::ConfigError;
use super::file::Given;

/// One place in the URL space.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RouteSpec {
    pub host: HostPattern,
    /// "" for the root, else `/a/b`: no trailing slash, no empty or dot segments, percent-decoded.
    pub prefix: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum HostPattern {
    /// Any host, tried last.
    Any,
    /// `*.example.com`: the suffix `.example.com`, lower case. Tried second, the longest suffix first.
    Suffix(String),
    /// `example.com`, lower case, no port. Tried first.
    Exact(String),
}

const ROUTES_MAX: usize = 100;
const ROUTE_BYTES_MAX: usize = 1024;

impl RouteSpec {
    /// Whether every request at `other` is one at this place as well. A path of any host does not hold that path of a
    /// host that is named: there others come first.
    pub fn covers(&self, other: &Self) -> bool {
        let host = match (&self.host, &other.host) {
            (HostPattern::Any, HostPattern::Any) => true,
            (HostPattern::Exact(host), HostPattern::Exact(other)) => host == other,
            (HostPattern::Suffix(suffix), HostPattern::Suffix(other)) => other.ends_with(suffix.as_str()),
            // The `*` stands for at least one character.
            (HostPattern::Suffix(suffix), HostPattern::Exact(other)) => {
                other.len() > suffix.len() && other.ends_with(suffix.as_str())
            }
            _ => false,
        };
        let rest = other.prefix.strip_prefix(self.prefix.as_str());
        host && rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }

    /// Of two places that cover the same one, the one with more of this is asked first.
    pub fn precedence(&self) -> (u8, usize, usize) {
        let (rank, host_bytes) = match &self.host {
            HostPattern::Any => (0, 0),
            HostPattern::Suffix(suffix) => (1, suffix.len()),
            HostPattern::Exact(_) => (2, 0),
        };
        (rank, host_bytes, self.prefix.len())
    }

    /// `cart` → `…/cart`, `index` → the place itself, `a/index` → `…/a`.
    ///
    /// # Errors
    /// Where the name is nothing that a path can have.
    pub(super) fn below(&self, name: &str) -> Result<Self, String> {
        let path = format!("/{name}");
        // All of it is judged: the tenant's place may be made of a folder's name.
        let path = format!("{}{}", self.prefix, path.strip_suffix("/index").unwrap_or(&path));
        Ok(Self { host: self.host.clone(), prefix: prefix(&path)? })
    }
}

impl fmt::Display for RouteSpec {
    /// As it is written in a sidecar.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = if self.prefix.is_empty() { "/" } else { &self.prefix };
        match &self.host {
            HostPattern::Any => formatter.write_str(path),
            HostPattern::Suffix(suffix) => write!(formatter, "*{suffix}{path}"),
            HostPattern::Exact(host) => write!(formatter, "{host}{path}"),
        }
    }
}

/// A list of routes, as sidecars and tenants have them. `none` is what is said of an empty one.
pub(super) fn parse_all(given: &Given<'_>, none: &str) -> Result<Vec<RouteSpec>, ConfigError> {
    let texts = given.texts()?;
    if texts.is_empty() {
        return Err(given.refuse(none));
    }
    if texts.len() > ROUTES_MAX {
        return Err(given.refuse(format!("at most {ROUTES_MAX} routes are allowed")));
    }
    let mut routes = Vec::with_capacity(texts.len());
    for text in texts {
        let route = parse(text).map_err(|reason| refuse(given, text, &reason))?;
        if routes.contains(&route) {
            return Err(refuse(given, text, "it is there twice"));
        }
        routes.push(route);
    }
    Ok(routes)
}

/// One route of a list cannot be had.
pub(super) fn refuse(given: &Given<'_>, text: &str, reason: &str) -> ConfigError {
    ConfigError::new(given.place.clone(), format!("route \"{}\": {reason}", text.escape_debug()))
}

/// `/shop`, `example.com/shop`, `*.example.com`.
fn parse(text: &str) -> Result<RouteSpec, String> {
    if text.len() > ROUTE_BYTES_MAX {
        return Err(format!("at most {ROUTE_BYTES_MAX} bytes are allowed"));
    }
    let (host, path) = match text.find('/') {
        Some(slash) => text.split_at(slash),
        // "shop" is more often a path whose slash was forgotten than the host `shop`.
        None if !text.contains(['.', ':']) => {
            return Err(format!("a route begins with \"/\" or with a host: is \"/{text}\" meant, or \"{text}/\"?"));
        }
        None => (text, ""),
    };
    Ok(RouteSpec { host: host_pattern(host)?, prefix: prefix(path)? })
}

fn host_pattern(host: &str) -> Result<HostPattern, String> {
    if host.is_empty() {
        return Ok(HostPattern::Any);
    }
    let host = host.to_ascii_lowercase();
    if let Some(address) = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        return match address.parse::<Ipv6Addr>() {
            Ok(address) => Ok(HostPattern::Exact(format!("[{address}]"))),
            Err(_) => Err(format!("\"{host}\" is no IPv6 address")),
        };
    }
    let (wildcard, name) = match host.strip_prefix("*.") {
        Some(rest) => (true, rest),
        None => (false, host.as_str()),
    };
    if name.contains('*') {
        return Err("a wildcard stands only at the beginning, as \"*.\"".to_owned());
    }
    if name.contains(':') {
        return Err("a host stands without port".to_owned());
    }
    if !name.is_ascii() {
        return Err("a host name is written in ASCII (\"xn--…\")".to_owned());
    }
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
    };
    if name.len() > 253 || !name.split('.').all(is_label) {
        return Err(format!("\"{}\" is no host name", host.escape_debug()));
    }
    Ok(if wildcard { HostPattern::Suffix(format!(".{name}")) } else { HostPattern::Exact(host) })
}

/// A path that lies below a route, as static files do: checked, without the slash at its end.
pub(super) fn path_below(path: &str) -> Result<String, String> {
    if !path.starts_with('/') || path.len() > ROUTE_BYTES_MAX {
        return Err("a path below the app's own is wanted, such as \"/static/\"".to_owned());
    }
    prefix(path)
}

/// The path of a route, checked, without the slash at its end.
fn prefix(path: &str) -> Result<String, String> {
    let path = path.strip_suffix('/').unwrap_or(path);
    if path.is_empty() {
        return Ok(String::new());
    }
    for segment in path.split('/').skip(1) {
        match segment {
            "" => return Err("a path has no empty segments".to_owned()),
            "." | ".." => return Err(format!("a path has no \"{segment}\" segments")),
            _ => {}
        }
    }
    if let Some(character) = path.chars().find(|character| character.is_control() || "?#%\\".contains(*character)) {
        let hint = if character == '%' { "; write the path decoded" } else { "" };
        return Err(format!("a path has no '{}'{hint}", character.escape_debug()));
    }
    Ok(path.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_holds_what_lies_below_it_on_the_same_hosts() {
        let check = |claim: &str, route: &str| {
            let [claim, route] = [claim, route].map(|text| parse(text).expect(text));
            claim.covers(&route)
        };
        for (claim, route, expected) in [
            ("/", "/", true),
            ("/", "/acme/x", true),
            ("/acme", "/acme", true),
            ("/acme", "/acme/x", true),
            ("/acme", "/acmeX", false),
            ("/acme", "/", false),
            // Who has a path of any host would else take it from those that have a host.
            ("/acme", "example.com/acme", false),
            ("/", "example.com/", false),
            ("/", "*.example.com/", false),
            ("example.com", "example.com/x", true),
            ("example.com/x", "example.com/", false),
            ("example.com", "www.example.com/", false),
            ("example.com", "/", false),
            ("*.example.com", "www.example.com/x", true),
            ("*.example.com", "a.b.example.com/", true),
            ("*.example.com", "*.b.example.com/", true),
            ("*.example.com", "*.example.com/", true),
            ("*.b.example.com", "*.example.com/", false),
            ("*.example.com", "example.com/", false),
            ("*.example.com", "badexample.com/", false),
            ("*.example.com/x", "www.example.com/y", false),
        ] {
            assert_eq!(check(claim, route), expected, "{claim} {route}");
        }
    }

    #[test]
    fn a_place_that_a_folders_name_makes_is_judged_as_well() {
        let folder = RouteSpec { host: HostPattern::Any, prefix: "/.".to_owned() };
        for name in ["", "shop", "index"] {
            assert!(folder.below(name).is_err(), "{name}");
        }
    }

    #[test]
    fn an_app_lies_below_its_tenants_place() {
        let check = |place: &str, name: &str| parse(place).expect(place).below(name).map(|route| route.to_string());
        for (place, name, expected) in [
            ("/", "hello", "/hello"),
            ("/", "index", "/"),
            ("/acme", "shop", "/acme/shop"),
            ("/acme", "index", "/acme"),
            ("acme.example", "shop/index", "acme.example/shop"),
            ("acme.example", "index", "acme.example/"),
            ("*.acme.example/x", "shop", "*.acme.example/x/shop"),
        ] {
            assert_eq!(check(place, name).as_deref(), Ok(expected));
        }
        assert!(check("/", "a//b").is_err());
    }
}
