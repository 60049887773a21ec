//! The rustls configurations: TLS 1.3 only, certificates on both sides, ALPN `rexec/1`, and no
//! resumption.
//!
//! Resumption is off on both sides because rustls takes the client's certificate out of the stored
//! session without verifying it again: one that has expired, or was revoked, would get in for as
//! long as the ticket lives.

mod chain;
mod follow;
mod reload;
mod verify;

use crate::checkup::Side;
use crate::credentials::{CredentialError, Credentials, Fault};
pub use chain::Chain;
pub use follow::trust_lost;
pub use reload::{Refreshed, Reloading};
use rexec_protocol::hello::ALPN;
use rustls::client::Resumption;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::{ServerName, UnixTime};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoServerSessionStorage, VerifierBuilderError};
use rustls::sign::SingleCertAndKey;
use rustls::version::TLS13;
use rustls::{ClientConfig, CommonState, ServerConfig};
use std::sync::Arc;
use std::time::SystemTime;
pub use verify::observe;

/// The agent's side: every client must present a certificate for clients that one of our
/// authorities signed.
pub fn server_config(own: &Credentials) -> Result<Arc<ServerConfig>, CredentialError> {
    server(own).map(|(config, _)| config)
}

/// The verifier apart, which rustls does not give back.
type Server = (Arc<ServerConfig>, Arc<dyn ClientCertVerifier>);

fn server(own: &Credentials) -> Result<Server, CredentialError> {
    if !own.summary().is_for_agents() {
        return Err(purpose(own, "agents", "rexec ca issue-agent NAME"));
    }
    let verifier = verify::clients(own, &provider()).map_err(|e| distrusted(own, e))?;
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])
        .map_err(|error| unfit(own, &error))?
        .with_client_cert_verifier(Arc::clone(&verifier))
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(own.certified.clone())));
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.max_early_data_size = 0;
    Ok((Arc::new(config), verifier))
}

/// The client's side: the agent must present a certificate for servers that one of our authorities
/// signed for the name that was dialled.
pub fn client_config(own: &Credentials) -> Result<Arc<ClientConfig>, CredentialError> {
    if !own.summary().is_for_clients() {
        return Err(purpose(own, "users", "rexec ca issue-user NAME"));
    }
    let verifier = verify::agents(own, &provider()).map_err(|e| distrusted(own, e))?;
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])
        .map_err(|error| unfit(own, &error))?
        // "Dangerous" because the verifier is ours; it only adds demands to the one of rustls.
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_client_cert_resolver(Arc::new(SingleCertAndKey::from(own.certified.clone())));
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.resumption = Resumption::disabled();
    config.enable_early_data = false;
    Ok(Arc::new(config))
}

/// Verifies the own certificate as a peer would that trusts the same authorities.
pub(crate) fn own_certificate(
    own: &Credentials,
    side: Side,
    now: SystemTime,
) -> Result<(), rustls::Error> {
    let general = |error: VerifierBuilderError| rustls::Error::General(error.to_string());
    let now =
        UnixTime::since_unix_epoch(now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default());
    let Some((first, others)) = own.certified.cert.split_first() else { return Ok(()) };
    match side {
        Side::User => {
            let verifier = verify::clients(own, &provider()).map_err(general)?;
            verifier.verify_client_cert(first, others, now).map(drop)
        }
        Side::Agent => {
            let verifier = verify::agents(own, &provider()).map_err(general)?;
            let host = own.summary().hosts.first().cloned().unwrap_or_default();
            let name = ServerName::try_from(host)
                .map_err(|_| rustls::Error::General("it names no host".to_owned()))?;
            verifier.verify_server_cert(first, others, &name, &[], now).map(drop)
        }
    }
}

/// Whether the peers agreed on `rexec/1`. rustls refuses a peer that offers only other protocols,
/// but lets one pass that offers none at all, so both sides must ask this before the first frame.
pub fn agreed_on_rexec(connection: &CommonState) -> bool {
    connection.alpn_protocol() == Some(ALPN)
}

/// aws-lc-rs, with the hybrid X25519MLKEM768 before all other key exchanges.
fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

fn purpose(own: &Credentials, wanted: &'static str, command: &'static str) -> CredentialError {
    let (names, found) = (own.summary().names(), own.summary().purposes());
    Fault::Purpose { wanted, found, names, command }.of(&own.files().identity)
}

fn unfit(own: &Credentials, error: &rustls::Error) -> CredentialError {
    Fault::Tls(error.to_string()).of(&own.files().identity)
}

fn distrusted(own: &Credentials, error: VerifierBuilderError) -> CredentialError {
    let files = own.files();
    match (error, &files.revocations) {
        (VerifierBuilderError::InvalidCrl(error), Some(list)) => {
            Fault::BadRevocations(format!("{error:?}")).of(list)
        }
        (error, _) => Fault::Tls(error.to_string()).of(&files.authority),
    }
}
