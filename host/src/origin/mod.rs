//! Where a request comes from and how it came, as guests and the access log see it: the client's address, the address that it
//! reached, and whether the way was encrypted.

mod forwarded;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use http::HeaderMap;

use crate::config::TrustedPeers;
use crate::error::Error;
use crate::guest::client_environ;
use forwarded::Told;

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
    /// The peer is a proxy that does not name its client: the address is the proxy's, the fields are the client's own word.
    unnamed: bool,
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

    /// The same for a peer that is a proxy, and does not name the client that it speaks for.
    pub(crate) fn unnamed(&self) -> Arc<Self> {
        Arc::new(Self { unnamed: true, ..self.clone() })
    }

    /// Nobody says who the client is: it may be anybody.
    pub(crate) fn is_unnamed(&self) -> bool {
        self.unnamed
    }

    /// The origin of one request, where its fields say more than its connection does. They count only from a peer that is
    /// trusted; from anybody else they are removed, since apps believe them as well.
    ///
    /// # Errors
    /// Where a trusted peer says what cannot be understood, or contradicts itself.
    pub(crate) fn of_request(
        self: &Arc<Self>,
        headers: &mut HeaderMap,
        trusted: &TrustedPeers,
    ) -> Result<Option<Arc<Self>>, Error> {
        if !forwarded::is_there(headers) {
            return Ok(None);
        }
        if self.unnamed || !trusted.trusts_peer(self.remote) {
            forwarded::remove(headers);
            return Ok(None);
        }
        let told = forwarded::told(headers, trusted).map_err(Error::BadRequest)?;
        Ok(Some(self.corrected(told)))
    }

    fn corrected(&self, Told { client, https }: Told) -> Arc<Self> {
        let (remote, remote_port) = match client {
            Some((address, port)) => (Some(address), port),
            None => (self.remote, self.remote_port),
        };
        // The port that the client used is not known: it is the scheme's own, unless Host says otherwise.
        let (https, port) = https.map_or((self.https, self.port), |https| (https, default_port(https)));
        Self::new(remote, remote_port, self.local, https, port)
    }

    fn new(
        remote: Option<IpAddr>,
        remote_port: Option<u16>,
        local: Option<SocketAddr>,
        https: bool,
        port: u16,
    ) -> Arc<Self> {
        let environ = client_environ(remote, remote_port, https);
        Arc::new(Self { remote, remote_port, local, https, port, unnamed: false, environ })
    }
}

fn default_port(https: bool) -> u16 {
    if https { 443 } else { 80 }
}
