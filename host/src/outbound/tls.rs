//! Which servers are believed when the host speaks TLS for a guest.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, bail};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};

/// Where distributions keep the certificates of authorities in one file: Debian and its kin, Fedora and its kin, openSUSE, and
/// what others have taken over from OpenSSL.
const BUNDLES: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// With the certificates of `cafile`, else with the system's.
pub(super) fn client(cafile: Option<&Path>) -> anyhow::Result<Arc<ClientConfig>> {
    let found = cafile.or_else(|| BUNDLES.iter().map(Path::new).find(|path| path.exists()));
    let Some(path) = found else {
        bail!(
            "apps may send HTTPS requests, but there are no certificates of authorities (none of {}): install \
             ca-certificates, or name a file with outbound_cafile",
            BUNDLES.join(", ")
        );
    };
    let place = || format!("outbound_cafile {}", path.display());
    let certificates = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let mut roots = RootCertStore::empty();
    // A store of a system may hold old ones that cannot be used any more.
    let (usable, _) = roots.add_parsable_certificates(certificates.with_context(place)?);
    if usable == 0 {
        bail!("{}: it holds no certificate of an authority in PEM", place());
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    let mut config = config.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    // Sessions of one app are of no use to another, and would tell a server that they come from one host.
    config.resumption = rustls::client::Resumption::disabled();
    Ok(Arc::new(config))
}
