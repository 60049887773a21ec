//! What rustls demands of a certificate, and two things more.
//!
//! Where there are revocation lists, every certificate of a chain must be on record as not revoked,
//! in a list that is current: a status that is not known counts as revoked.
//!
//! The extended key usage must be there. For webpki a certificate without that extension is fit
//! for every purpose (RFC 5280 says so), and then any certificate of an authority would do as a
//! user's and as an agent's. And the certificate is kept, for the words of a refusal.

use crate::credentials::Credentials;
use crate::explain::Summary;
use rexec_guard::holds;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{VerifierBuilderError, WebPkiClientVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, ExtendedKeyPurpose,
    SignatureScheme,
};
use std::cell::RefCell;
use std::sync::Arc;

/// The verifier for the agent's side.
pub(super) fn clients(
    own: &Credentials,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, VerifierBuilderError> {
    let authorities = own.authorities.clone();
    let webpki = WebPkiClientVerifier::builder_with_provider(authorities, provider.clone());
    let webpki = webpki.with_crls(lists(own)).enforce_revocation_expiration();
    Ok(Arc::new(Clients(webpki.build()?)))
}

/// The verifier for the client's side.
pub(super) fn agents(
    own: &Credentials,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn ServerCertVerifier>, VerifierBuilderError> {
    let authorities = own.authorities.clone();
    let webpki = WebPkiServerVerifier::builder_with_provider(authorities, provider.clone());
    let webpki = webpki.with_crls(lists(own)).enforce_revocation_expiration();
    Ok(Arc::new(Agents(webpki.build()?)))
}

fn lists(own: &Credentials) -> Vec<CertificateRevocationListDer<'static>> {
    own.revocations().map(|revocations| revocations.der().to_vec()).unwrap_or_default()
}

tokio::task_local! {
    static PRESENTED: RefCell<Option<CertificateDer<'static>>>;
}

/// Runs a handshake and keeps the certificate that the peer presented, whether it was accepted or
/// not, for [`crate::explain::refusal`]. (A verifier serves all connections at once and rustls
/// drops a certificate that it refuses, so it has to be handed out sideways.)
pub async fn observe<F: Future>(handshake: F) -> (F::Output, Option<CertificateDer<'static>>) {
    let observed = async {
        let output = handshake.await;
        (output, PRESENTED.with(RefCell::take))
    };
    PRESENTED.scope(RefCell::new(None), observed).await
}

fn keep(certificate: &CertificateDer<'_>) {
    // Outside of `observe` there is nobody to keep it for.
    let _ = PRESENTED.try_with(|kept| kept.replace(Some(certificate.clone().into_owned())));
}

/// The extended key usage must not only permit the purpose but name it.
fn demand(
    certificate: &CertificateDer<'_>,
    required: ExtendedKeyPurpose,
    named: impl Fn(&Summary) -> bool,
) -> Result<(), Error> {
    let summary = Summary::of(certificate).map_err(|_| CertificateError::BadEncoding)?;
    if named(&summary) {
        return Ok(());
    }
    Err(CertificateError::InvalidPurposeContext { required, presented: Vec::new() }.into())
}

#[derive(Debug)]
struct Clients(Arc<dyn ClientCertVerifier>);

impl ClientCertVerifier for Clients {
    fn offer_client_auth(&self) -> bool {
        true
    }

    fn client_auth_mandatory(&self) -> bool {
        true
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.0.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        keep(certificate);
        let verified = self.0.verify_client_cert(certificate, intermediates, now)?;
        demand(certificate, ExtendedKeyPurpose::ClientAuth, |summary| {
            holds("tls.purpose_of_users", summary.is_for_clients())
        })?;
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}

#[derive(Debug)]
struct Agents(Arc<WebPkiServerVerifier>);

impl ServerCertVerifier for Agents {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        keep(certificate);
        let verified = self.0.verify_server_cert(certificate, intermediates, name, ocsp, now)?;
        demand(certificate, ExtendedKeyPurpose::ServerAuth, |summary| {
            holds("tls.purpose_of_agents", summary.is_for_agents())
        })?;
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}
