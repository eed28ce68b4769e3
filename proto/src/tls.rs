//! TLS between machines: who a server is, and whom it believes.
//!
//! Certificates and keys are PEM files. They are read at the start and again when they change; connections that are
//! there keep what they began with. Inside a cluster both sides show a certificate of its authority, so a stranger can
//! neither ask a leaf nor pose as one; over HTTP only the server does, and clients show tokens.
//!
//! Invariants: who has no valid certificate of the cluster's authority gets no byte of an answer; a server's name is
//! checked; all cryptography is that of `ring`; no secret is ever in a message.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio_rustls::rustls;
use tokio_rustls::rustls::crypto::CryptoProvider;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{ClientConfig, RootCertStore, ServerConfig};

use crate::watched::{FileError, Watched, read_public, read_secret};

mod expiry;

/// How often files are looked at for changes.
pub const REFRESH: Duration = Duration::from_secs(2);
/// Who sees to certificates wants to know so long before one ends.
const EXPIRY_WARNED: Duration = Duration::from_secs(14 * 24 * 3600);
/// And is told again so often.
const EXPIRY_TOLD_EVERY: Duration = Duration::from_secs(24 * 3600);

/// What of TLS is made of files: how to be a server, and in a cluster also how to be a client.
#[derive(Debug)]
pub struct Tls {
    loaded: Watched<Loaded>,
    /// Whose certificate others must show, when it is not that of the host of their address.
    name: Option<ServerName<'static>>,
}

/// The files that settings name for TLS in a cluster.
#[derive(Debug, Clone, Copy, Default)]
pub struct Settings<'a> {
    /// The certificates of the cluster's authority.
    pub authority: Option<&'a PathBuf>,
    /// The certificate that is shown.
    pub certificate: Option<&'a PathBuf>,
    /// Its key.
    pub key: Option<&'a PathBuf>,
    /// The name that certificates of others must be for, instead of the host of their address.
    pub name: Option<&'a str>,
}

struct Loaded {
    server: Arc<ServerConfig>,
    client: Option<Arc<ClientConfig>>,
    not_after: Option<i64>,
}

impl Tls {
    /// A server that anybody may connect to, under this certificate.
    ///
    /// # Errors
    /// When a file cannot be used, or the key is not the certificate's.
    pub fn of_server(certificate: &Path, key: &Path) -> Result<Arc<Tls>, FileError> {
        let (certificate, key) = (certificate.to_owned(), key.to_owned());
        let paths = vec![certificate.clone(), key.clone()];
        let loaded = Watched::open(paths, move || load_server(&certificate, &key))?;
        Ok(Arc::new(Tls { loaded, name: None }))
    }

    /// One of a cluster: everybody has a certificate of this authority, and shows it.
    ///
    /// # Errors
    /// When a file cannot be used, or the key is not the certificate's.
    pub fn of_cluster(authority: &Path, certificate: &Path, key: &Path) -> Result<Arc<Tls>, FileError> {
        Ok(Arc::new(Tls::one_of_cluster(authority, certificate, key)?))
    }

    fn one_of_cluster(authority: &Path, certificate: &Path, key: &Path) -> Result<Tls, FileError> {
        let (authority, certificate, key) = (authority.to_owned(), certificate.to_owned(), key.to_owned());
        let paths = vec![authority.clone(), certificate.clone(), key.clone()];
        let load = move || load_cluster(&authority, &certificate, &key);
        Ok(Tls { loaded: Watched::open(paths, load)?, name: None })
    }

    /// One of a cluster, if settings name its files.
    ///
    /// # Errors
    /// As [`Tls::of_cluster`]; and when only some of the files are named, or the name is none.
    pub fn of_settings(settings: Settings<'_>) -> Result<Option<Arc<Tls>>, FileError> {
        let Settings { authority, certificate, key, name } = settings;
        match (authority, certificate, key) {
            (None, None, None) => Ok(None),
            (Some(authority), Some(certificate), Some(key)) => {
                let mut tls = Tls::one_of_cluster(authority, certificate, key)?;
                let wrong =
                    |name: &str| FileError::content(authority, format!("tls_name `{name}` is no name"));
                tls.name = name
                    .map(|name| ServerName::try_from(name.to_owned()).map_err(|_| wrong(name)))
                    .transpose()?;
                Ok(Some(Arc::new(tls)))
            }
            (authority, certificate, key) => {
                let named = [authority, certificate, key].into_iter().flatten().next();
                let named = named.map_or(Path::new(""), PathBuf::as_path);
                Err(FileError::content(named, "tls_ca, tls_cert and tls_key go together"))
            }
        }
    }

    /// Whose certificate others must show, when it is not that of the host of their address.
    pub(crate) fn name(&self) -> Option<&ServerName<'static>> {
        self.name.as_ref()
    }

    /// How to be a server, now.
    pub fn server(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.loaded.current().server)
    }

    /// How to be a client of another server of the cluster, now.
    pub fn client(&self) -> Option<Arc<ClientConfig>> {
        self.loaded.current().client.clone()
    }

    /// The second since 1970 after which the certificate is no longer valid, if it says so in a way we can read.
    pub fn not_after(&self) -> Option<i64> {
        self.loaded.current().not_after
    }

    /// Looks at the files, and says whether they changed.
    ///
    /// # Errors
    /// When they changed and cannot be used. What was there before stays in use.
    pub fn refresh(&self) -> Result<bool, FileError> {
        self.loaded.refresh()
    }
}

/// Looks after certificates until it is dropped: reads them again when they change, and warns before they end. `what`
/// they are for is for the log.
pub async fn look_after(tls: Arc<Tls>, what: &'static str) {
    let mut ticks = tokio::time::interval(REFRESH);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut told: Option<tokio::time::Instant> = None;
    loop {
        ticks.tick().await;
        match tls.refresh() {
            Ok(true) => {
                tracing::info!(what, "certificates were read again");
                told = None;
            }
            Ok(false) => {}
            Err(error) => tracing::error!(what, %error, "new certificates cannot be used; the old ones stay"),
        }
        if told.is_none_or(|told| told.elapsed() >= EXPIRY_TOLD_EVERY)
            && let Some(warning) = expiry_warning(tls.not_after(), SystemTime::now())
        {
            told = Some(tokio::time::Instant::now());
            tracing::warn!(what, "{warning}");
        }
    }
}

/// What to say about a certificate that ends soon, or has ended.
fn expiry_warning(not_after: Option<i64>, now: SystemTime) -> Option<String> {
    let now = i64::try_from(now.duration_since(UNIX_EPOCH).ok()?.as_secs()).ok()?;
    let left = not_after? - now;
    match left {
        left if left > i64::try_from(EXPIRY_WARNED.as_secs()).ok()? => None,
        left if left >= 0 => Some(format!("the certificate ends in {} days", left / 86_400)),
        _ => Some("the certificate has ended: nobody will connect any more".to_owned()),
    }
}

/// The one provider of cryptography here.
fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn load_server(certificate: &Path, key: &Path) -> Result<Loaded, FileError> {
    let (chain, not_after) = certificates(certificate)?;
    let wrong = |error: rustls::Error| FileError::content(key, key_error(certificate, &error));
    let mut server = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(wrong)?
        .with_no_client_auth()
        .with_single_cert(chain, private_key(key)?)
        .map_err(wrong)?;
    server.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Loaded { server: Arc::new(server), client: None, not_after })
}

fn load_cluster(authority: &Path, certificate: &Path, key: &Path) -> Result<Loaded, FileError> {
    let roots = Arc::new(roots(authority)?);
    let (chain, not_after) = certificates(certificate)?;
    let wrong = |error: rustls::Error| FileError::content(key, key_error(certificate, &error));
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::clone(&roots), provider())
        .build()
        .map_err(|error| FileError::content(authority, error))?;
    // Both ends are ours, so nothing older is needed.
    let versions = [&rustls::version::TLS13];
    let mut server = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&versions)
        .map_err(wrong)?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain.clone(), private_key(key)?)
        .map_err(wrong)?;
    let mut client = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&versions)
        .map_err(wrong)?
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, private_key(key)?)
        .map_err(wrong)?;
    server.alpn_protocols = vec![b"h2".to_vec()];
    client.alpn_protocols = vec![b"h2".to_vec()];
    // A certificate that was taken back must not live on in a ticket.
    server.send_tls13_tickets = 0;
    client.resumption = rustls::client::Resumption::disabled();
    Ok(Loaded { server: Arc::new(server), client: Some(Arc::new(client)), not_after })
}

fn key_error(certificate: &Path, error: &rustls::Error) -> String {
    match error {
        rustls::Error::InconsistentKeys(_) => {
            format!("is not the key of certificate {}", certificate.display())
        }
        other => format!("cannot be used with certificate {}: {other}", certificate.display()),
    }
}

/// The certificates of a file, the server's own first, and when that one ends.
fn certificates(path: &Path) -> Result<(Vec<CertificateDer<'static>>, Option<i64>), FileError> {
    let pem = read_public(path)?;
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(&pem)
        .collect::<Result<_, _>>()
        .map_err(|error| FileError::content(path, format!("is no PEM: {error}")))?;
    let Some(own) = chain.first() else { return Err(FileError::content(path, "holds no certificate")) };
    let not_after = expiry::not_after(own);
    Ok((chain, not_after))
}

fn roots(path: &Path) -> Result<RootCertStore, FileError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path)?.0 {
        roots.add(certificate).map_err(|error| FileError::content(path, error))?;
    }
    Ok(roots)
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, FileError> {
    // The library's error could quote what it read.
    PrivateKeyDer::from_pem_slice(&read_secret(path)?)
        .map_err(|_| FileError::content(path, "holds no private key in PEM"))
}

#[cfg(test)]
mod tests;
