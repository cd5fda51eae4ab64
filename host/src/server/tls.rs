//! The certificate of a host, and how TLS is spoken with it.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, bail};
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::config::Certificate;

/// What TLS is spoken with: a certificate that was read and fits its key.
#[derive(Clone)]
pub struct Tls(pub(super) Arc<ServerConfig>);

/// What ALPN offers, best first.
const PROTOCOLS: [&[u8]; 2] = [HTTP2, b"http/1.1"];
pub(super) const HTTP2: &[u8] = b"h2";

impl Tls {
    /// Reads the certificate and its key.
    ///
    /// # Errors
    /// Names the file, and what is wrong with it.
    pub fn load(certificate: &Certificate) -> anyhow::Result<Self> {
        let Certificate { certfile, keyfile } = certificate;
        let place = || format!("certfile {}", certfile.display());
        let chain = CertificateDer::pem_file_iter(certfile).and_then(Iterator::collect::<Result<Vec<_>, _>>);
        let chain = chain.with_context(place)?;
        if chain.is_empty() {
            bail!("{}: it holds no certificate in PEM", place());
        }
        let key = key(keyfile)?;
        // Named, since a process may hold several: which one counts must not depend on what else is linked.
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
        let config = config.with_no_client_auth().with_single_cert(chain, key);
        let mut config = config.with_context(|| format!("{} with keyfile {}", place(), keyfile.display()))?;
        config.alpn_protocols = PROTOCOLS.map(<[u8]>::to_vec).to_vec();
        Ok(Self(Arc::new(config)))
    }
}

fn key(keyfile: &Path) -> anyhow::Result<PrivateKeyDer<'static>> {
    PrivateKeyDer::from_pem_file(keyfile)
        .with_context(|| format!("keyfile {}: a private key in PEM, without passphrase, is wanted", keyfile.display()))
}
