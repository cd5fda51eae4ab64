//! Pure: who may reach what. A destination has to be asked for by the app and granted by the operator; an address is judged after
//! its name was looked up.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};

use super::address::special;
use crate::config::{Destinations, Protocol, host_name};

/// Where a guest wants to go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    pub protocol: Protocol,
    pub host: Host,
    pub port: u16,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Host {
    /// In lower case, without a dot at its end.
    Name(String),
    /// Canonical: an IPv4 address is never written as an IPv6 one.
    Address(IpAddr),
}

impl Target {
    /// A host as it is written in a URI, `[::1]` with its brackets. None where it names nothing.
    pub fn new(protocol: Protocol, host: &str, port: u16) -> Option<Self> {
        let host = match host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            Some(address) => Host::Address(IpAddr::V6(address.parse::<Ipv6Addr>().ok()?).to_canonical()),
            None => match host.parse::<IpAddr>() {
                Ok(address) => Host::Address(address.to_canonical()),
                Err(_) => Host::Name(host_name(host)?),
            },
        };
        Some(Self { protocol, host, port })
    }

    /// `example.com`, `example.com:8080`, `[::1]:8080`: what a request's Host field says.
    pub fn authority(&self) -> String {
        let host = match &self.host {
            Host::Name(name) => name.clone(),
            Host::Address(IpAddr::V4(address)) => address.to_string(),
            Host::Address(IpAddr::V6(address)) => format!("[{address}]"),
        };
        if Some(self.port) == self.protocol.default_port() { host } else { format!("{host}:{}", self.port) }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}://{}", self.protocol, self.authority())
    }
}

/// What an app may reach at one moment.
pub struct Rights<'a> {
    pub asked: &'a Destinations,
    pub granted: Destinations,
}

/// Why it may not.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    #[error(
        "the app has not asked for it: name {0} in `outbound` of its sidecar, and in [grant.outbound] of wasgi.toml"
    )]
    NotAsked(Target),
    #[error("the operator has not granted it: name {0} in [grant.outbound] of wasgi.toml")]
    NotGranted(Target),
    #[error(
        "no name is looked up that is on no list: name tcp://{0} with its port in `outbound` of the sidecar, and in \
             [grant.outbound] of wasgi.toml"
    )]
    Name(String),
    #[error("{0} leads to {1}, which is {2}: such addresses are reached only where they are named themselves")]
    Prohibited(Target, IpAddr, &'static str),
}

impl Rights<'_> {
    /// Before anything is looked up: whether the destination is on both lists.
    ///
    /// # Errors
    /// On which it is not.
    pub fn may_ask(&self, target: &Target) -> Result<(), Denied> {
        let is_on = |list: &Destinations| match &target.host {
            Host::Name(name) => list.name(target.protocol, name, target.port),
            Host::Address(address) => list.list(target.protocol, *address, target.port),
        };
        match (is_on(self.asked), is_on(&self.granted)) {
            (true, true) => Ok(()),
            (false, _) => Err(Denied::NotAsked(target.clone())),
            (true, false) => Err(Denied::NotGranted(target.clone())),
        }
    }

    /// Whether a name may be looked up for a connection that the guest opens itself: a look-up can carry secrets out.
    ///
    /// # Errors
    /// If it is not on both lists, for some port.
    pub fn may_look_up(&self, name: &str) -> Result<(), Denied> {
        let is_on = |list: &Destinations| list.name_on_some_port(Protocol::Tcp, name);
        if is_on(self.asked) && is_on(&self.granted) { Ok(()) } else { Err(Denied::Name(name.to_owned())) }
    }

    /// Whether the target, which may be asked for, may be reached at this address. `is_own`: the address is this machine's.
    ///
    /// # Errors
    /// What kind of address it is.
    pub fn may_reach(&self, target: &Target, address: IpAddr, is_own: bool) -> Result<(), Denied> {
        let address = address.to_canonical();
        let Some(what) = special(address).or(is_own.then_some("an address of this machine")) else { return Ok(()) };
        let is_on = |list: &Destinations| list.list_explicitly(target.protocol, address, target.port);
        match is_on(self.asked) && is_on(&self.granted) {
            true => Ok(()),
            false => Err(Denied::Prohibited(target.clone(), address, what)),
        }
    }
}
