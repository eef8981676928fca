//! TLS by rustls over ring: what it takes from files, once at the start. A file that cannot be used is a reason not to
//! start, never to go on without encryption.

use ring::digest;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use std::fmt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use tokio_rustls::TlsAcceptor;
use x509_certificate::X509Certificate;

/// Where certificate and key are, PEM.
#[derive(Debug, Clone, Copy)]
pub struct TlsFiles<'a> {
    /// The server's certificate, and those between it and a root.
    pub certificate: &'a Path,
    pub key: &'a Path,
    /// Of the certificates that clients may show; `None`: they are not asked for one.
    pub client_roots: Option<&'a Path>,
}

/// Why there is no TLS.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("cannot read {what} from {path}: {problem}\nHINT: {hint}")]
    File { what: &'static str, path: String, problem: String, hint: &'static str },
    #[error("the private key {path} may be read by everybody or written by others\nHINT: chmod 600 {path}")]
    Permissions { path: String },
    #[error("certificate and private key cannot be used: {0}\nHINT: do they belong together?")]
    Pair(rustls::Error),
    #[error("client certificates cannot be verified: {0}\nHINT: --ssl-ca-file names a PEM file of root certificates")]
    Roots(String),
}

/// How connections are encrypted.
#[derive(Clone)]
pub struct Tls {
    acceptor: TlsAcceptor,
    end_point: Option<Arc<[u8]>>,
    /// Who does not ask for encryption is refused.
    pub is_required: bool,
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").field("is_required", &self.is_required).finish()
    }
}

impl Tls {
    pub fn load(files: TlsFiles<'_>, is_required: bool) -> Result<Tls, TlsError> {
        check_private(files.key)?;
        let chain = certificates(files.certificate, "the certificate")?;
        let end_point = chain.first().and_then(|certificate| end_point(certificate)).map(Arc::from);
        let key = PrivateKeyDer::from_pem_file(files.key)
            .map_err(|problem| unreadable("the private key", files.key, &problem))?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ServerConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions();
        let builder = builder.map_err(TlsError::Pair)?;
        let builder = match files.client_roots {
            None => builder.with_no_client_auth(),
            Some(path) => {
                let mut roots = RootCertStore::empty();
                for root in certificates(path, "root certificates")? {
                    roots.add(root).map_err(|error| TlsError::Roots(error.to_string()))?;
                }
                // Whether one is needed is for the rules to say, which know who it is.
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
                let verifier = verifier.allow_unauthenticated().build();
                builder.with_client_cert_verifier(verifier.map_err(|error| TlsError::Roots(error.to_string()))?)
            }
        };
        let config = builder.with_single_cert(chain, key).map_err(TlsError::Pair)?;
        Ok(Tls { acceptor: TlsAcceptor::from(Arc::new(config)), end_point, is_required })
    }

    pub(super) fn acceptor(&self) -> &TlsAcceptor {
        &self.acceptor
    }

    /// What identifies the server's certificate in channel binding (`tls-server-end-point`, RFC 5929); `None`: its signature
    /// has no hash of its own.
    pub(super) fn end_point(&self) -> Option<&[u8]> {
        self.end_point.as_deref()
    }
}

/// As PostgreSQL: a key that others can read is no secret. A group may read it, which is how distributions share one.
fn check_private(path: &Path) -> Result<(), TlsError> {
    let shown = || path.display().to_string();
    let metadata = std::fs::metadata(path).map_err(|problem| unreadable("the private key", path, &problem))?;
    match metadata.permissions().mode() & 0o027 {
        0 => Ok(()),
        _ => Err(TlsError::Permissions { path: shown() }),
    }
}

fn unreadable(what: &'static str, path: &Path, problem: &dyn fmt::Display) -> TlsError {
    let hint = "it is a PEM file that the server's user may read";
    TlsError::File { what, path: path.display().to_string(), problem: problem.to_string(), hint }
}

fn certificates(path: &Path, what: &'static str) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let certificates = read.map_err(|problem| unreadable(what, path, &problem))?;
    match certificates.is_empty() {
        true => Err(unreadable(what, path, &"there is none in it")),
        false => Ok(certificates),
    }
}

/// The hash of the certificate by the algorithm of its signature; MD5 and SHA-1 become SHA-256.
fn end_point(certificate: &[u8]) -> Option<Vec<u8>> {
    let parsed = X509Certificate::from_der(certificate).ok()?;
    let algorithm = match parsed.signature_algorithm_oid().to_string().as_str() {
        "1.2.840.113549.1.1.4" | "1.2.840.113549.1.1.5" | "1.2.840.113549.1.1.11" => &digest::SHA256,
        "1.2.840.10045.4.1" | "1.2.840.10045.4.3.2" => &digest::SHA256,
        "1.2.840.113549.1.1.12" | "1.2.840.10045.4.3.3" => &digest::SHA384,
        "1.2.840.113549.1.1.13" | "1.2.840.10045.4.3.4" => &digest::SHA512,
        _ => return None,
    };
    Some(digest::digest(algorithm, certificate).as_ref().to_vec())
}

/// Whom a client's certificate is for: the common name of its subject.
pub fn common_name(certificate: &[u8]) -> Option<String> {
    let name = X509Certificate::from_der(certificate).ok()?.subject_common_name()?;
    // As PostgreSQL since CVE-2009-4034: a name that ends early would be another one's.
    (!name.contains('\0')).then_some(name)
}
