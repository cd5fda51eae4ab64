//! Where apps may go beyond the host: destinations, as the operator grants them and as apps ask for them.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use ipnet::{IpNet, Ipv4Net};
use toml::Value;

use super::Pattern;
use crate::config::ConfigError;
use crate::config::file::{Given, Items, Section};
use crate::outbound::address;

/// Which apps of a tenant may go where: `[grant.outbound]`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OutboundGrants(Vec<(Pattern, Destinations)>);

/// A list of destinations. Nothing that is not on it is reached.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Destinations(Vec<Destination>);

/// `https://api.example.com`, `http://*.example.com:8080`, `tcp://10.0.0.0/8:5432`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Destination {
    protocol: Protocol,
    host: Host,
    /// None for all.
    port: Option<u16>,
}

/// What is spoken there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    Http,
    Https,
    /// Whatever the guest speaks.
    Tcp,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Host {
    /// `*`: every name.
    Any,
    /// `*.example.com`: `.example.com`.
    Suffix(String),
    Name(String),
    /// An address, or a network of them.
    Net(IpNet),
}

/// An app goes to so many kinds of places.
const DESTINATIONS_MAX: usize = 1000;

const PROTOCOLS: [(&str, Protocol); 3] = [("http", Protocol::Http), ("https", Protocol::Https), ("tcp", Protocol::Tcp)];

impl OutboundGrants {
    pub(in crate::config) fn parse(section: &Section<'_>, items: &Items) -> Result<Self, ConfigError> {
        let parse = |apps: &str, given: &Given<'_>| Ok((Pattern::parse(given, apps)?, Destinations::parse(given)?));
        let entries = section.items("grant.outbound", items, parse)?;
        Ok(Self(entries.into_values().collect()))
    }

    /// The same for all apps.
    #[cfg(test)]
    pub(crate) fn to_all(destinations: Destinations) -> Self {
        Self(vec![(Pattern::Below(String::new()), destinations)])
    }

    /// Grants one app more.
    pub fn add(&mut self, app: &str, destinations: Destinations) {
        if !destinations.is_empty() {
            self.0.push((Pattern::Name(app.to_owned()), destinations));
        }
    }

    /// Where one app may go.
    pub fn of(&self, app: &str) -> Destinations {
        let granted = self.0.iter().filter(|(apps, _)| apps.fits(app));
        Destinations(granted.flat_map(|(_, destinations)| destinations.0.iter().cloned()).collect())
    }

    /// Whether anybody may go anywhere where TLS is spoken by the host.
    pub fn need_tls(&self) -> bool {
        self.0.iter().flat_map(|(_, destinations)| &destinations.0).any(|to| to.protocol == Protocol::Https)
    }

    /// As they are written: apps and their destinations.
    pub(in crate::config) fn lines(&self) -> impl Iterator<Item = (String, Value)> {
        self.0.iter().map(|(apps, destinations)| {
            let texts = destinations.0.iter().map(|destination| Value::String(destination.to_string()));
            (Value::String(apps.text()).to_string(), Value::Array(texts.collect()))
        })
    }
}

impl Destinations {
    pub(in crate::config) fn parse(given: &Given<'_>) -> Result<Self, ConfigError> {
        let texts = given.texts()?;
        if texts.len() > DESTINATIONS_MAX {
            return Err(given.refuse(format!("at most {DESTINATIONS_MAX} destinations are allowed")));
        }
        let parse = |text: &str| {
            text.parse::<Destination>().map_err(|reason| given.refuse(format!("\"{}\": {reason}", text.escape_debug())))
        };
        texts.into_iter().map(parse).collect::<Result<_, _>>().map(Self)
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn iter(&self) -> impl Iterator<Item = &Destination> {
        self.0.iter()
    }

    /// Whether whatever `destination` allows is allowed here, too.
    pub fn cover(&self, destination: &Destination) -> bool {
        self.0.iter().any(|own| own.covers(destination))
    }

    /// Whether a name is on the list. Where it leads is another question.
    pub fn name(&self, protocol: Protocol, name: &str, port: u16) -> bool {
        self.0.iter().any(|own| own.is_for(protocol, port) && own.host.fits_name(name))
    }

    /// Whether a name is on the list for some port.
    pub fn name_on_some_port(&self, protocol: Protocol, name: &str) -> bool {
        self.0.iter().any(|own| own.protocol == protocol && own.host.fits_name(name))
    }

    /// Whether it has destinations of this kind.
    pub fn speak(&self, protocol: Protocol) -> bool {
        self.0.iter().any(|own| own.protocol == protocol)
    }

    /// Whether an address is on the list, be it within a network.
    pub fn list(&self, protocol: Protocol, address: IpAddr, port: u16) -> bool {
        self.nets(protocol, port).any(|net| net.contains(&address.to_canonical()))
    }

    /// Whether an address is on the list as one that is special: by itself, or by a network that holds only such.
    pub fn list_explicitly(&self, protocol: Protocol, address: IpAddr, port: u16) -> bool {
        let is_explicit = |net: &IpNet| is_single(net) || address::is_special_net(net);
        self.nets(protocol, port).any(|net| net.contains(&address.to_canonical()) && is_explicit(net))
    }

    fn nets(&self, protocol: Protocol, port: u16) -> impl Iterator<Item = &IpNet> {
        self.0.iter().filter(move |own| own.is_for(protocol, port)).filter_map(|own| match &own.host {
            Host::Net(net) => Some(net),
            _ => None,
        })
    }
}

impl FromIterator<Destination> for Destinations {
    fn from_iter<T: IntoIterator<Item = Destination>>(destinations: T) -> Self {
        Self(destinations.into_iter().collect())
    }
}

impl Protocol {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
            Self::Tcp => "tcp",
        }
    }

    pub fn default_port(self) -> Option<u16> {
        match self {
            Self::Http => Some(80),
            Self::Https => Some(443),
            Self::Tcp => None,
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

impl Destination {
    /// Whether it names an address or a network, and no name.
    pub fn is_address(&self) -> bool {
        matches!(self.host, Host::Net(_))
    }

    fn is_for(&self, protocol: Protocol, port: u16) -> bool {
        self.protocol == protocol && self.port.is_none_or(|own| own == port)
    }

    fn covers(&self, other: &Self) -> bool {
        self.protocol == other.protocol
            && (self.port.is_none() || self.port == other.port)
            && self.host.covers(&other.host)
    }
}

impl Host {
    fn fits_name(&self, name: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Suffix(suffix) => name.len() > suffix.len() && name.ends_with(suffix.as_str()),
            Self::Name(own) => own == name,
            Self::Net(_) => false,
        }
    }

    fn covers(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Net(own), Self::Net(other)) => {
                // One that says nothing of special addresses covers none that does.
                own.contains(other) && (own == other || address::is_special_net(own) || !address::is_special_net(other))
            }
            (Self::Net(_), _) | (_, Self::Net(_)) | (Self::Name(_) | Self::Suffix(_), Self::Any) => false,
            (Self::Any, _) => true,
            (Self::Suffix(own), Self::Suffix(other)) => other.ends_with(own.as_str()),
            (Self::Name(_), Self::Suffix(_)) => false,
            (_, Self::Name(name)) => self.fits_name(name),
        }
    }
}

fn is_single(net: &IpNet) -> bool {
    net.prefix_len() == net.max_prefix_len()
}

impl fmt::Display for Destination {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}://", self.protocol)?;
        match &self.host {
            Host::Any => formatter.write_str("*")?,
            Host::Suffix(suffix) => write!(formatter, "*{suffix}")?,
            Host::Name(name) => formatter.write_str(name)?,
            Host::Net(net) => {
                let text = if is_single(net) { net.addr().to_string() } else { net.to_string() };
                match net {
                    IpNet::V4(_) => formatter.write_str(&text)?,
                    IpNet::V6(_) => write!(formatter, "[{text}]")?,
                }
            }
        }
        match self.port {
            None => formatter.write_str(":*"),
            Some(port) if Some(port) == self.protocol.default_port() => Ok(()),
            Some(port) => write!(formatter, ":{port}"),
        }
    }
}

const WANTED: &str = "a destination is wanted, such as \"https://api.example.com\", \"http://*.example.com:8080\", \
                      \"tcp://db.example.com:5432\" or \"tcp://10.0.0.0/8:5432\"";

impl FromStr for Destination {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (protocol, rest) = text.split_once("://").ok_or(WANTED)?;
        let known = PROTOCOLS.iter().find(|(name, _)| *name == protocol);
        let protocol = known.map(|(_, protocol)| *protocol).ok_or("its scheme is one of http, https, tcp")?;
        let (host, port) = match rest.strip_prefix('[') {
            Some(rest) => {
                let (inside, port) = rest.split_once(']').ok_or("the bracket is not closed")?;
                let is_v6 = inside.contains(':');
                let net = is_v6.then(|| net(inside)).ok_or("brackets are for IPv6 addresses")??;
                (Host::Net(net), port)
            }
            None => {
                let (host, port) = rest.find(':').map_or((rest, ""), |colon| rest.split_at(colon));
                (host_of(host)?, port)
            }
        };
        let port = match port.strip_prefix(':') {
            Some("*") => None,
            Some(port) => match port.parse() {
                Ok(0) | Err(_) => return Err("a port is wanted behind the colon, 1 to 65535, or \"*\" for all".into()),
                Ok(port) => Some(port),
            },
            None if port.is_empty() => Some(protocol.default_port().ok_or("tcp needs a port, such as \":5432\"")?),
            None => return Err(WANTED.to_owned()),
        };
        Ok(Self { protocol, host, port })
    }
}

fn host_of(text: &str) -> Result<Host, String> {
    if let Ok(net) = net(text) {
        return Ok(Host::Net(net));
    }
    if text.contains('/') {
        return Err("it is a host with a port, without a path; a network is written \"10.0.0.0/8\"".to_owned());
    }
    if text.contains('@') {
        return Err("it is a host with a port: no user or password stands there".to_owned());
    }
    match text.strip_prefix('*') {
        Some("") => Ok(Host::Any),
        Some(suffix) => {
            let name = suffix.strip_prefix('.').and_then(host_name);
            name.map(|name| Host::Suffix(format!(".{name}"))).ok_or_else(|| WANTED.to_owned())
        }
        None => host_name(text).map(Host::Name).ok_or_else(|| format!("it names no host; {WANTED}")),
    }
}

/// An address or a network, written as it is stored: what could mean two things is refused.
fn net(text: &str) -> Result<IpNet, String> {
    if let Ok(address) = text.parse::<IpAddr>() {
        return Ok(IpNet::from(address.to_canonical()));
    }
    let net: IpNet = text.parse().map_err(|_| format!("\"{}\" is no address or network", text.escape_debug()))?;
    if net.trunc() != net {
        return Err(format!("\"{net}\" is written \"{}\"", net.trunc()));
    }
    let IpNet::V6(v6) = net else { return Ok(net) };
    // Connections go to the IPv4 address within.
    let (Some(inner), Some(prefix)) = (v6.addr().to_ipv4_mapped(), v6.prefix_len().checked_sub(96)) else {
        return Ok(net);
    };
    Ipv4Net::new(inner, prefix).map(IpNet::from).map_err(|error| error.to_string())
}

/// A host name as it is compared: lower case, without a dot at its end. None for what is none, and for what some would read as a
/// number: `127.1`, `0x7f000001`.
pub fn host_name(text: &str) -> Option<String> {
    let name = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
    };
    let last = name.rsplit('.').next().unwrap_or_default();
    let is_number = last.bytes().all(|byte| byte.is_ascii_digit()) || last.starts_with("0x");
    (name.len() <= 253 && name.split('.').all(is_label) && !is_number).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bundle::Manifest;
    use crate::config::Config;

    fn list(texts: &[&str]) -> Destinations {
        texts.iter().map(|text| text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))).collect()
    }

    #[test]
    fn what_is_written_is_read_and_printed() {
        for (text, printed) in [
            ("https://api.example.com", "https://api.example.com"),
            ("https://API.example.com.:443", "https://api.example.com"),
            ("http://*.example.com:8080", "http://*.example.com:8080"),
            ("https://*", "https://*"),
            ("http://localhost:*", "http://localhost:*"),
            ("tcp://10.0.0.0/8:5432", "tcp://10.0.0.0/8:5432"),
            ("tcp://10.1.2.3:5432", "tcp://10.1.2.3:5432"),
            ("http://[::1]:80", "http://[::1]"),
            ("tcp://[fd00::/8]:5432", "tcp://[fd00::/8]:5432"),
            ("http://[::ffff:10.0.0.1]", "http://10.0.0.1"),
            ("http://[::ffff:10.0.0.0/104]", "http://10.0.0.0/8"),
        ] {
            let destination: Destination = text.parse().unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!(destination.to_string(), printed);
            assert_eq!(printed.parse(), Ok(destination));
        }
    }

    #[test]
    fn what_could_mean_something_else_is_refused() {
        for text in [
            "",
            "api.example.com",
            "ftp://example.com",
            "HTTPS://example.com",
            "https://",
            "https://example.com/",
            "https://example.com/v1",
            "https://user@example.com",
            "https://example.com:",
            "https://example.com:0",
            "https://example.com:65536",
            "https://*example.com",
            "https://a.*.example.com",
            "https://**",
            "https://*.",
            "tcp://db.example.com",
            "tcp://10.0.0.1/8:5432",
            "http://127.1",
            "http://0x7f000001",
            "http://2130706433",
            "http://[::1",
            "http://[10.0.0.1]",
            "http://::1",
            "http://[fe80::1%25eth0]",
            "https://exa mple.com",
            "https://xn--\u{e4}.example",
        ] {
            assert!(text.parse::<Destination>().is_err(), "{text}");
        }
    }

    #[test]
    fn names_wildcards_ports_and_schemes_are_told_apart() {
        let some = list(&["https://api.example.com", "http://*.example.org:8080", "http://localhost:*"]);
        for (protocol, name, port, expected) in [
            (Protocol::Https, "api.example.com", 443, true),
            (Protocol::Https, "api.example.com", 444, false),
            (Protocol::Http, "api.example.com", 443, false),
            (Protocol::Tcp, "api.example.com", 443, false),
            (Protocol::Https, "x.api.example.com", 443, false),
            (Protocol::Https, "example.com", 443, false),
            (Protocol::Http, "a.example.org", 8080, true),
            (Protocol::Http, "a.b.example.org", 8080, true),
            (Protocol::Http, "example.org", 8080, false),
            (Protocol::Http, "badexample.org", 8080, false),
            (Protocol::Http, ".example.org", 8080, false),
            (Protocol::Http, "localhost", 1, true),
        ] {
            assert_eq!(some.name(protocol, name, port), expected, "{protocol} {name} {port}");
        }
    }

    #[test]
    fn a_network_of_all_addresses_lists_no_special_one_explicitly() {
        let address = |text: &str| text.parse::<IpAddr>().expect("an address");
        let all = list(&["tcp://0.0.0.0/0:80", "tcp://[::/0]:80"]);
        assert!(all.list(Protocol::Tcp, address("10.0.0.1"), 80));
        assert!(!all.list_explicitly(Protocol::Tcp, address("10.0.0.1"), 80));
        assert!(!all.list_explicitly(Protocol::Tcp, address("fd00::1"), 80));
        let some = list(&["tcp://10.0.0.0/8:80", "tcp://127.0.0.1:81"]);
        assert!(some.list_explicitly(Protocol::Tcp, address("10.2.3.4"), 80));
        assert!(some.list_explicitly(Protocol::Tcp, address("::ffff:10.2.3.4"), 80));
        assert!(!some.list_explicitly(Protocol::Tcp, address("10.2.3.4"), 81));
        assert!(some.list_explicitly(Protocol::Tcp, address("127.0.0.1"), 81));
        assert!(!some.list_explicitly(Protocol::Tcp, address("127.0.0.2"), 81));
    }

    #[test]
    fn an_app_asks_for_less_than_it_is_granted_or_is_refused_with_the_line_that_asks() {
        let mut config = Config::default();
        config.grants.outbound = OutboundGrants(vec![
            (Pattern::Name("shop".to_owned()), list(&["https://*.example.com"])),
            (Pattern::Name("store".to_owned()), list(&["tcp://10.0.0.0/8:5432"])),
        ]);
        let spec = |app: &str, sidecar: &str| {
            let spec = config.app_spec(app, Some(sidecar), &Manifest::default());
            spec.map(|spec| spec.outbound).map_err(|error| error.to_string())
        };
        assert_eq!(spec("shop", ""), Ok(Destinations::default()), "what is not asked for is not there");
        let asked = "\noutbound = ['https://api.example.com']";
        assert_eq!(spec("shop", asked), Ok(list(&["https://api.example.com"])));
        assert_eq!(
            spec("store", asked),
            Err("line 2: outbound = [\"https://api.example.com\"]: the operator has not granted https://api.example.com: put \
                 it into [grant.outbound], as \"store\" = [\"https://api.example.com\"]"
                .to_owned())
        );
        assert!(spec("shop", "outbound = ['tcp://10.0.0.1:5432']").is_err());
        assert!(spec("store", "outbound = 'tcp://10.0.0.1:5432'").is_ok());
        assert!(spec("store", "outbound = 'tcp://10.0.0.1'").is_err());
    }

    #[test]
    fn what_covers_what() {
        for (granted, asked, expected) in [
            ("https://*", "https://api.example.com", true),
            ("https://*", "https://*.example.com", true),
            ("https://*", "https://10.0.0.1", false),
            ("https://*", "https://8.8.8.8", false),
            ("https://*.example.com", "https://*", false),
            ("https://*.example.com", "https://*.a.example.com", true),
            ("https://*.example.com", "https://a.example.com", true),
            ("https://*.example.com", "https://example.com", false),
            ("https://a.example.com", "https://*.a.example.com", false),
            ("https://a.example.com", "http://a.example.com:443", false),
            ("https://a.example.com:*", "https://a.example.com:8443", true),
            ("https://a.example.com:8443", "https://a.example.com:*", false),
            ("tcp://10.0.0.0/8:1", "tcp://10.1.0.0/16:1", true),
            ("tcp://10.1.0.0/16:1", "tcp://10.0.0.0/8:1", false),
            ("tcp://0.0.0.0/0:1", "tcp://10.0.0.0/8:1", false),
            ("tcp://0.0.0.0/0:1", "tcp://8.8.0.0/16:1", true),
            ("tcp://0.0.0.0/0:1", "tcp://8.8.8.8:1", true),
            ("tcp://0.0.0.0/0:1", "tcp://127.0.0.1:1", false),
        ] {
            let asked: Destination = asked.parse().expect("a destination");
            assert_eq!(list(&[granted]).cover(&asked), expected, "{granted} covers {asked}");
        }
    }
}
