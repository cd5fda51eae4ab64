//! Where to listen, and how: `8000`, `https://0.0.0.0:443`, `unix:/run/wasgi.sock`, `proxy+fd://3`.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use super::ConfigError;
use super::file::Given;

/// One listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bind {
    pub place: Place,
    /// None where none was written: then it is HTTPS if there is a certificate, except on Unix sockets.
    pub scheme: Option<Scheme>,
    /// Every connection begins with a header of the PROXY protocol.
    pub proxied: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    Tcp(SocketAddr),
    Unix(PathBuf),
    /// A socket that listens already, and that this process was started with: the number of its descriptor.
    Fd(i32),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    Http,
    Https,
}

/// Below this are the standard streams.
const FD_MIN: i32 = 3;
/// The descriptors of systemd begin here (sd_listen_fds(3)).
pub(super) const LISTEN_FDS_START: i32 = 3;

const BIND_MAX: usize = 64;

const WANTED: &str = "an address is wanted, such as \"127.0.0.1:8000\", \"[::1]:8000\", \"8000\", \
                      \"unix:/run/wasgi.sock\" or \"fd://3\"";

impl From<SocketAddr> for Bind {
    fn from(address: SocketAddr) -> Self {
        Self { place: Place::Tcp(address), scheme: None, proxied: false }
    }
}

impl fmt::Display for Bind {
    /// As it can be written in the settings.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.proxied {
            formatter.write_str("proxy+")?;
        }
        match self.scheme {
            Some(Scheme::Http) => formatter.write_str("http://")?,
            Some(Scheme::Https) => formatter.write_str("https://")?,
            None => {}
        }
        match &self.place {
            Place::Tcp(address) => write!(formatter, "{address}"),
            Place::Unix(path) => write!(formatter, "unix:{}", path.display()),
            Place::Fd(number) => write!(formatter, "fd://{number}"),
        }
    }
}

impl Bind {
    /// Whether only this machine can reach it, for sure.
    pub fn is_local(&self) -> bool {
        match &self.place {
            Place::Tcp(address) => address.ip().is_loopback(),
            Place::Unix(_) => true,
            Place::Fd(_) => false,
        }
    }
}

/// All of the key `bind`. Relative paths start from `folder`.
pub(super) fn parse_all<'a>(
    given: &Given<'_>,
    texts: impl IntoIterator<Item = &'a str>,
    folder: &Path,
) -> Result<Vec<Bind>, ConfigError> {
    let binds = texts.into_iter().map(|text| parse(given, text, folder)).collect::<Result<Vec<_>, _>>()?;
    if binds.is_empty() || binds.len() > BIND_MAX {
        return Err(given.refuse(format!("1 to {BIND_MAX} addresses are allowed")));
    }
    for (index, bind) in binds.iter().enumerate() {
        let zero = matches!(bind.place, Place::Tcp(address) if address.port() == 0);
        if !zero && binds[..index].iter().any(|earlier| earlier.place == bind.place) {
            return Err(given.refuse(format!("{bind} is named twice")));
        }
    }
    Ok(binds)
}

fn parse(given: &Given<'_>, text: &str, folder: &Path) -> Result<Bind, ConfigError> {
    let text = text.trim();
    let (proxied, rest) = match text.strip_prefix("proxy+") {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let (scheme, rest) = if let Some(rest) = rest.strip_prefix("https://") {
        (Some(Scheme::Https), rest)
    } else if let Some(rest) = rest.strip_prefix("http://") {
        (Some(Scheme::Http), rest)
    } else {
        (None, rest)
    };
    Ok(Bind { place: place(given, rest, folder)?, scheme, proxied })
}

fn place(given: &Given<'_>, text: &str, folder: &Path) -> Result<Place, ConfigError> {
    if let Some(path) = text.strip_prefix("unix:") {
        return match path {
            "" => Err(given.refuse("a path is wanted after \"unix:\"")),
            path => Ok(Place::Unix(folder.join(path))),
        };
    }
    if let Some(number) = text.strip_prefix("fd://") {
        let number = number.parse().ok().filter(|number| *number >= FD_MIN);
        let number =
            number.ok_or_else(|| given.refuse(format!("a descriptor is wanted after \"fd://\", {FD_MIN} or more")));
        return number.map(Place::Fd);
    }
    address(given, text).map(Place::Tcp)
}

/// `127.0.0.1:8000`, `[::1]:8000`, `localhost:8000`, `8000`.
fn address(given: &Given<'_>, text: &str) -> Result<SocketAddr, ConfigError> {
    if let Ok(port) = text.parse::<u16>() {
        return Ok(SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
    }
    if let Some(port) = text.strip_prefix("localhost:").and_then(|port| port.parse().ok()) {
        return Ok(SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
    }
    text.parse().map_err(|_| match text.parse::<IpAddr>() {
        Ok(address) => given.refuse(format!("the port is missing: \"{}\"", SocketAddr::new(address, 8000))),
        Err(_) => given.refuse(WANTED),
    })
}

/// The sockets that systemd passes to the process `own`: it says so in LISTEN_FDS, for the process that LISTEN_PID names.
pub(super) fn activated(fds: Option<&str>, pid: Option<&str>, own: u32) -> Result<Vec<Bind>, ConfigError> {
    let (Some(fds), Some(pid)) = (fds, pid) else { return Ok(Vec::new()) };
    // The variables of a parent that was activated itself are not for us.
    if pid.parse() != Ok(own) {
        return Ok(Vec::new());
    }
    let given = Given::flag("the environment variable LISTEN_FDS", fds);
    let count = fds.parse::<i32>().ok().filter(|count| (0..=BIND_MAX as i32).contains(count));
    let count = count.ok_or_else(|| given.refuse(format!("a number of sockets is wanted, at most {BIND_MAX}")))?;
    let fds = LISTEN_FDS_START..LISTEN_FDS_START + count;
    Ok(fds.map(|number| Bind { place: Place::Fd(number), scheme: None, proxied: false }).collect())
}
