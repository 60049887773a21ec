//! The client's side of revocation while a connection lasts.

use super::{Chain, provider, verify};
use crate::credentials::{Credentials, Files, Stamp};
use crate::error::NetError;
use crate::explain::{Side, refusal};
use rexec_protocol::ErrorCode;
use rustls::pki_types::ServerName;
use rustls::{CertificateError, Error};
use std::io;
use std::time::{Duration, SystemTime};
use tokio::time::sleep;

/// How often the files are looked at.
const INTERVAL: Duration = Duration::from_secs(2);

/// Looks at the authorities and revocation lists of a client again and again, and returns, with the
/// reason, once the agent that showed `chain` as `host` is trusted no more. A version of the files
/// that cannot be used changes nothing, and neither does a list that has become too old: it revokes
/// nobody.
///
/// Never returns where there is no revocation list.
pub async fn trust_lost(files: Files, host: String, chain: Chain) -> NetError {
    if files.revocations.is_none() {
        return std::future::pending().await;
    }
    // Nothing yet: the configuration that accepted the agent may be older than the files are now.
    let mut seen: Vec<Stamp> = Vec::new();
    loop {
        sleep(INTERVAL).await;
        let now: Vec<Stamp> = files.paths().map(Stamp::of).collect();
        if now == seen {
            continue;
        }
        seen = now;
        let (files, host, chain) = (files.clone(), host.clone(), chain.clone());
        let looked = tokio::task::spawn_blocking(move || verify_again(&files, &host, &chain)).await;
        if let Ok(Err(end)) = looked {
            return end;
        }
    }
}

fn verify_again(files: &Files, host: &str, chain: &Chain) -> Result<(), NetError> {
    let verifier = Credentials::load(files)
        .map_err(|error| error.to_string())
        .and_then(|own| verify::agents(&own, &provider()).map_err(|error| error.to_string()));
    let verifier = match verifier {
        Ok(verifier) => verifier,
        Err(error) => {
            tracing::warn!(error, "the new certificate files cannot be used");
            return Ok(());
        }
    };
    let Some((own, others)) = chain.certificates().split_first() else { return Ok(()) };
    let Ok(name) = ServerName::try_from(host.to_owned()) else { return Ok(()) };
    let now = SystemTime::now();
    match verifier.verify_server_cert(own, others, &name, &[], chain.valid_moment(now)) {
        Ok(_)
        | Err(Error::InvalidCertificate(
            CertificateError::ExpiredRevocationList
            | CertificateError::ExpiredRevocationListContext { .. },
        )) => Ok(()),
        Err(error) => {
            let error = io::Error::other(error);
            let message = refusal(Side::Client(host), &error, Some(own), files, now);
            Err(NetError::Untrusted { code: ErrorCode::Revoked, message })
        }
    }
}
