//! The certificate authorities that TLS servers are checked against.

use std::sync::Arc;

use anyhow::Context as _;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};

/// The certificates of a file (PEM), or the system's. They are read at every connection, because they change.
///
/// # Errors
/// If the file can't be read, or there are none.
pub(super) fn load_roots(ca: Option<&str>) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let roots = match ca {
        Some(path) => CertificateDer::pem_file_iter(path)
            .and_then(Iterator::collect::<Result<Vec<_>, _>>)
            .with_context(|| format!("cannot read certificates from {path}"))?,
        None => rustls_native_certs::load_native_certs().certs,
    };
    anyhow::ensure!(
        !roots.is_empty(),
        "there are no certificates {}",
        ca.map_or("in this system: set tls_ca".to_owned(), |path| format!("in {path}"))
    );
    Ok(roots)
}

/// A client that trusts these authorities.
///
/// # Errors
/// As [`load_roots`].
pub(super) fn configure(ca: Option<&str>) -> anyhow::Result<ClientConfig> {
    let mut roots = RootCertStore::empty();
    // a system's store may have some that rustls can't use
    let (added, _) = roots.add_parsable_certificates(load_roots(ca)?);
    anyhow::ensure!(added > 0, "none of the certificates can be used");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}
