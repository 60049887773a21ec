//! The authority of a folder, and signing with it.

use super::certificate::Certificate;
use super::record::{self, Issue, Reason, Record, Revocation};
use super::{CaError, store};
use rcgen::{
    CertificateParams, CertificateRevocationList, CertificateRevocationListParams, Issuer,
    KeyIdMethod, KeyPair, RevocationReason, RevokedCertParams, SerialNumber,
};
use rexec_client::certificate::moment;
use std::path::{Path, PathBuf};
use time::{Duration, OffsetDateTime};
use x509_parser::parse_x509_certificate;

/// The private key.
pub(super) const KEY: &str = "ca.key";
/// The certificate.
pub(super) const CERTIFICATE: &str = "ca.crt";
/// Clocks differ; a new certificate is good this long before it was made.
pub(super) const SKEW: Duration = Duration::minutes(5);

/// Key and certificate that belong together.
pub(super) struct Authority {
    folder: PathBuf,
    issuer: Issuer<'static, KeyPair>,
    not_before: OffsetDateTime,
    not_after: OffsetDateTime,
}

impl Authority {
    /// Reads the authority of a folder.
    pub(super) fn open(folder: PathBuf) -> Result<Self, CaError> {
        let (key_path, path) = (folder.join(KEY), folder.join(CERTIFICATE));
        if !key_path.exists() {
            return Err(CaError::new(format!(
                "there is no authority in {}; make one with `rexec ca init`, or name its folder with --dir",
                folder.display()
            )));
        }
        let unusable = |path: &Path, why: &dyn std::fmt::Display| {
            CaError::new(format!("{} cannot be used: {why}", path.display()))
        };
        let key = KeyPair::from_pem(&store::read_secret(&key_path)?)
            .map_err(|error| unusable(&key_path, &error))?;
        let certificates = Certificate::read_all(&path)?;
        let [certificate] = certificates.as_slice() else {
            return Err(unusable(&path, &"it holds more than one certificate"));
        };
        let (_, parsed) =
            parse_x509_certificate(&certificate.der).map_err(|error| unusable(&path, &error))?;
        if !parsed.is_ca() {
            return Err(unusable(&path, &"it is not an authority's certificate"));
        }
        if parsed.public_key().subject_public_key.data.as_ref() != key.public_key_raw() {
            let words = format!("it does not belong to the key in {}", key_path.display());
            return Err(unusable(&path, &words));
        }
        let issuer = Issuer::from_ca_cert_der(&certificate.der.as_slice().into(), key);
        Ok(Self {
            folder,
            issuer: issuer.map_err(|error| unusable(&path, &error))?,
            not_before: parsed.validity().not_before.to_datetime(),
            not_after: parsed.validity().not_after.to_datetime(),
        })
    }

    /// The authority's certificate, to be copied to agents and clients.
    pub(super) fn certificate(&self) -> PathBuf {
        self.folder.join(CERTIFICATE)
    }

    /// Signs a certificate for a new key and records that. The result is one PEM text, the key
    /// first.
    pub(super) fn issue(
        &self,
        mut params: CertificateParams,
        validity: Duration,
        now: OffsetDateTime,
        record: Record,
    ) -> Result<Issued, CaError> {
        let (from, to) = self.validity(validity, now)?;
        (params.not_before, params.not_after) = (from, to);
        params.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?;
        let issued = Certificate::new(certificate.der().to_vec())?;
        // First the record: a certificate that nobody knows of could not be revoked.
        record::issued(&self.folder, &Issue::new(record, &issued))?;
        let pem = format!("{}{}", key.serialize_pem(), certificate.pem());
        Ok(Issued { pem, until: moment(issued.summary.not_after) })
    }

    /// Signs the list of what was revoked.
    pub(super) fn revocation_list(
        &self,
        revocations: &[Revocation],
        number: u64,
        now: OffsetDateTime,
        next_update: OffsetDateTime,
    ) -> Result<CertificateRevocationList, CaError> {
        let params = CertificateRevocationListParams {
            this_update: now,
            next_update,
            crl_number: number.into(),
            issuing_distribution_point: None,
            revoked_certs: revocations.iter().map(entry).collect::<Result<_, _>>()?,
            key_identifier_method: KeyIdMethod::Sha256,
        };
        Ok(params.signed_by(&self.issuer)?)
    }

    /// The folder it lives in.
    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Never beyond the authority's own: such a certificate would die before its date.
    fn validity(
        &self,
        validity: Duration,
        now: OffsetDateTime,
    ) -> Result<(OffsetDateTime, OffsetDateTime), CaError> {
        let shown = |time: OffsetDateTime| moment(time.into());
        let here = self.folder.display();
        if now >= self.not_after {
            return Err(CaError::new(format!(
                "the authority in {here} ended on {}; this machine's clock says {}. Make a new one with `rexec ca init`, and bring its {CERTIFICATE} to all agents and clients",
                shown(self.not_after),
                shown(now)
            )));
        }
        if now < self.not_before {
            return Err(CaError::new(format!(
                "the authority in {here} is not valid before {}, and this machine's clock says {}",
                shown(self.not_before),
                shown(now)
            )));
        }
        let end = now.checked_add(validity).filter(|end| *end <= self.not_after);
        let end = end.ok_or_else(|| {
            CaError::new(format!(
                "the authority in {here} ends on {}, and the certificate would outlive it; ask for less than {} days, or make a new authority",
                shown(self.not_after),
                (self.not_after - now).whole_days().saturating_add(1)
            ))
        })?;
        Ok((now.saturating_sub(SKEW).max(self.not_before), end))
    }
}

fn entry(revocation: &Revocation) -> Result<RevokedCertParams, CaError> {
    let serial = bytes(&revocation.serial)
        .ok_or_else(|| CaError::new(format!("'{}' is no serial number", revocation.serial)))?;
    let reason_code = match revocation.reason {
        // RFC 5280 wants it left out.
        Reason::Unspecified => None,
        Reason::KeyCompromise => Some(RevocationReason::KeyCompromise),
        Reason::AffiliationChanged => Some(RevocationReason::AffiliationChanged),
        Reason::Superseded => Some(RevocationReason::Superseded),
        Reason::CessationOfOperation => Some(RevocationReason::CessationOfOperation),
        Reason::PrivilegeWithdrawn => Some(RevocationReason::PrivilegeWithdrawn),
    };
    Ok(RevokedCertParams {
        serial_number: SerialNumber::from_slice(&serial),
        revocation_time: revocation.time.into(),
        reason_code,
        invalidity_date: None,
    })
}

/// From hexadecimal.
fn bytes(serial: &str) -> Option<Vec<u8>> {
    let digits: Vec<_> = serial.chars().map(|c| c.to_digit(16)).collect::<Option<_>>()?;
    let pair = |pair: &[u32]| match pair {
        [high, low] => u8::try_from(high << 4 | low).ok(),
        _ => None,
    };
    digits.chunks(2).map(pair).collect()
}

/// A key and its certificate.
pub(super) struct Issued {
    /// Both, as text.
    pub(super) pem: String,
    /// When the certificate ends.
    pub(super) until: String,
}
