//! Whose word about a client counts: the peers that are proxies.

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;

use super::ConfigError;
use super::file::Given;

/// The key `forwarded_allow_ips`. Nobody, unless somebody is named.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TrustedPeers(Vec<Trusted>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Trusted {
    /// Whoever connects. What they say of hops before them is not believed for that.
    Anyone,
    /// Who comes by a Unix socket: its mode says who can.
    Unix,
    Net(IpNet),
}

impl TrustedPeers {
    /// Whether what this peer says of its client is believed; none is a Unix socket's.
    pub fn trusts_peer(&self, peer: Option<IpAddr>) -> bool {
        self.0.iter().any(|trusted| match (trusted, peer) {
            (Trusted::Anyone, _) | (Trusted::Unix, None) => true,
            (Trusted::Net(net), Some(peer)) => net.contains(&peer),
            _ => false,
        })
    }

    /// Whether an address that a trusted peer names is that of a further proxy, and not of the client.
    pub fn trusts_hop(&self, hop: IpAddr) -> bool {
        self.0.iter().any(|trusted| matches!(trusted, Trusted::Net(net) if net.contains(&hop)))
    }

    /// Whoever comes by a Unix socket.
    pub(crate) fn unix() -> Self {
        Self(vec![Trusted::Unix])
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn texts(&self) -> impl Iterator<Item = String> {
        self.0.iter().map(Trusted::to_string)
    }

    /// # Errors
    /// Says which text is neither an address nor a network.
    pub(super) fn parse<'a>(given: &Given<'_>, texts: impl IntoIterator<Item = &'a str>) -> Result<Self, ConfigError> {
        texts.into_iter().map(|text| parse(given, text.trim())).collect::<Result<_, _>>().map(Self)
    }
}

impl fmt::Display for Trusted {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Anyone => formatter.write_str("*"),
            Self::Unix => formatter.write_str("unix"),
            Self::Net(net) if net.prefix_len() == net.max_prefix_len() => write!(formatter, "{}", net.addr()),
            Self::Net(net) => write!(formatter, "{net}"),
        }
    }
}

fn parse(given: &Given<'_>, text: &str) -> Result<Trusted, ConfigError> {
    match text {
        "*" => return Ok(Trusted::Anyone),
        "unix" => return Ok(Trusted::Unix),
        _ => {}
    }
    if let Ok(address) = text.parse::<IpAddr>() {
        return Ok(Trusted::Net(IpNet::from(address.to_canonical())));
    }
    let Ok(net) = text.parse::<IpNet>() else {
        return Err(given.refuse(format!(
            "\"{}\" is not an address (\"10.0.0.1\"), a network (\"10.0.0.0/8\", \"fd00::/8\"), \"unix\" or \"*\"",
            text.escape_debug()
        )));
    };
    // 10.0.0.1/8 may mean the one or the other, and this is about trust.
    if net.trunc() != net {
        return Err(given.refuse(format!("\"{net}\" is written \"{}\"", net.trunc())));
    }
    Ok(Trusted::Net(net))
}
