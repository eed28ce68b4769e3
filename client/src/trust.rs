//! Which servers are believed over TLS.

use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};

use crate::error::{Error, ErrorKind};

/// Which servers are believed.
#[derive(Debug, Clone, Default)]
pub enum Trust {
    /// Those with a certificate for their name from an authority that this system trusts.
    #[default]
    System,
    /// Those with a certificate for their name from one of these authorities, PEM.
    Authority(Vec<u8>),
    /// The one that shows the first of these certificates, PEM, whatever its name is.
    Certificate(Vec<u8>),
}

impl Trust {
    /// How to speak TLS.
    pub(crate) fn tls(&self) -> Result<ClientConfig, Error> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let failed = |error: rustls::Error| wrong(&error.to_string());
        let verifier: Arc<dyn ServerCertVerifier> = match self {
            Trust::System => by_name(system()?, &provider)?,
            Trust::Authority(pem) => by_name(certificates(pem)?, &provider)?,
            Trust::Certificate(pem) => {
                let certificate = certificates(pem)?.swap_remove(0);
                Arc::new(Exactly { certificate, provider: Arc::clone(&provider) })
            }
        };
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(failed)?
            // What is dangerous is a verifier that believes everybody; these do not.
            .dangerous()
            .with_custom_certificate_verifier(verifier)
            .with_no_client_auth();
        Ok(config)
    }
}

fn wrong(what: &str) -> Error {
    Error::new(ErrorKind::Address, format!("the certificates to trust cannot be used: {what}"))
}

/// Those that the system trusts.
fn system() -> Result<Vec<CertificateDer<'static>>, Error> {
    let found = rustls_native_certs::load_native_certs();
    if found.certs.is_empty() {
        return Err(Error {
            hint: Some("name the file of the authority that signed the server's certificate".to_owned()),
            ..wrong("this system has none")
        });
    }
    Ok(found.certs)
}

/// At least one certificate.
fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, Error> {
    let certificates = CertificateDer::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>();
    let certificates = certificates.map_err(|error| wrong(&format!("this is no PEM: {error}")))?;
    if certificates.is_empty() {
        return Err(wrong("there is none in the file"));
    }
    Ok(certificates)
}

fn by_name(
    authorities: Vec<CertificateDer<'static>>,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<WebPkiServerVerifier>, Error> {
    let mut roots = RootCertStore::empty();
    // A system may trust authorities in a form that is not understood here.
    if roots.add_parsable_certificates(authorities).0 == 0 {
        return Err(wrong("none of them is one of an authority"));
    }
    WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider))
        .build()
        .map_err(|error| wrong(&error.to_string()))
}

/// Believes who has the key of one certificate.
#[derive(Debug)]
struct Exactly {
    certificate: CertificateDer<'static>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Exactly {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if end_entity.as_ref() == self.certificate.as_ref() {
            Ok(ServerCertVerified::assertion())
        } else {
            Err(CertificateError::ApplicationVerificationFailure.into())
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// The certificate of an authority of its own.
    pub(crate) fn authority() -> Vec<u8> {
        let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let key = rcgen::KeyPair::generate().unwrap();
        params.self_signed(&key).unwrap().pem().into_bytes()
    }

    #[test]
    fn what_cannot_be_trusted_is_named() {
        let check = |trust: Trust, expect: &str| {
            let error = trust.tls().unwrap_err();
            let expect = format!("the certificates to trust cannot be used: {expect}");
            assert_eq!((error.kind, error.message), (ErrorKind::Address, expect));
        };
        check(Trust::Authority(b"nothing".to_vec()), "there is none in the file");
        check(Trust::Certificate(Vec::new()), "there is none in the file");
        assert!(Trust::Authority(authority()).tls().is_ok());
        assert!(Trust::Certificate(authority()).tls().is_ok());
    }
}
