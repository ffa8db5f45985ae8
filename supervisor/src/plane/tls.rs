//! TLS towards clients, with certificates that are given.
//!
//! The files are read when the rules of their service are told: `up` after a renewal reads them
//! again, and no container is restarted.
//! Clients that can (ALPN) speak HTTP/2 then.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{ServerConfig, crypto};

use crate::balance::Tls;

/// Reads the certificate and its key.
pub(crate) fn configure(files: &Tls) -> Result<Arc<ServerConfig>> {
    let certificates: Vec<CertificateDer<'static>> =
        read(&files.certificate, CertificateDer::pem_file_iter(&files.certificate))?
            .collect::<Result<_, _>>()
            .with_context(|| format!("{} is not PEM", files.certificate.display()))?;
    if certificates.is_empty() {
        bail!("{} holds no certificate", files.certificate.display());
    }
    let key = read(&files.key, PrivateKeyDer::from_pem_file(&files.key))?;
    let provider = Arc::new(crypto::ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(certificates, key)
        .with_context(|| {
            let (certificate, key) = (files.certificate.display(), files.key.display());
            format!("{certificate} and {key} do not belong together")
        })?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

fn read<T, E: std::error::Error + Send + Sync + 'static>(
    file: &Path,
    result: Result<T, E>,
) -> Result<T> {
    result.with_context(|| format!("{} cannot be read as PEM", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_that_cannot_be_used_are_named() {
        let none = Tls { certificate: "/nowhere/cert.pem".into(), key: "/nowhere/key.pem".into() };
        let error = configure(&none).map(drop).unwrap_err();
        assert!(format!("{error:#}").starts_with("/nowhere/cert.pem cannot be read"), "{error:#}");
    }
}
