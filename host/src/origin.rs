//! Where a request comes from and how it came, as guests and the access log see it: the client's address, the address that it
//! reached, and whether the way was encrypted.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use crate::guest::client_environ;

/// The same for all requests of a connection, unless a trusted proxy says otherwise of one of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// None where the client came by a Unix socket.
    pub remote: Option<IpAddr>,
    /// None where only a proxy knows it.
    pub remote_port: Option<u16>,
    /// The address that the client reached; none where it came by a Unix socket.
    pub local: Option<SocketAddr>,
    /// `wsgi.url_scheme` is "https".
    pub https: bool,
    /// SERVER_PORT for requests whose Host names none.
    pub port: u16,
    /// The variables that follow from all this, packed once.
    pub environ: Box<[u8]>,
}

impl Origin {
    /// The client at the other end of a connection; none of the addresses for a Unix socket's.
    pub fn of_connection(remote: Option<SocketAddr>, local: Option<SocketAddr>, https: bool) -> Arc<Self> {
        let port = local.map_or(default_port(https), |local| local.port());
        // A socket for both families shows clients of the older one as `::ffff:192.0.2.1`.
        Self::new(
            remote.map(|remote| remote.ip().to_canonical()),
            remote.map(|remote| remote.port()),
            local,
            https,
            port,
        )
    }

    fn new(
        remote: Option<IpAddr>,
        remote_port: Option<u16>,
        local: Option<SocketAddr>,
        https: bool,
        port: u16,
    ) -> Arc<Self> {
        let environ = client_environ(remote, remote_port, https);
        Arc::new(Self { remote, remote_port, local, https, port, environ })
    }
}

fn default_port(https: bool) -> u16 {
    if https { 443 } else { 80 }
}
