//! Authorities and certificates, made for one test.

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P256_SHA256, RevokedCertParams, SanType, SerialNumber,
};
use rexec_net::explain::Summary;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use time::{Duration, OffsetDateTime};

/// An authority that signs what a test asks for, however wrong.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Authority {
    pub fn new() -> Self {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "test authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let pem = params.self_signed(&key).unwrap().pem();
        Self { issuer: Issuer::new(params, key), pem }
    }

    /// The authority's own certificate.
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// Signs `params` for a new key; key and certificate in one PEM.
    pub fn issue(&self, params: CertificateParams) -> String {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        format!("{}{}", key.serialize_pem(), certificate.pem())
    }

    /// An identity file for an agent on loopback.
    pub fn issue_agent(&self) -> String {
        let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
        let mut params = CertificateParams::new(names).unwrap();
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        self.issue(params)
    }

    /// An identity file for a user.
    pub fn issue_user(&self, name: &str) -> String {
        self.issue(user_params(&[&format!("rexec:user:{name}")]))
    }

    /// A revocation list that is good for this long.
    pub fn list(&self, serials: impl IntoIterator<Item = SerialNumber>, good: Duration) -> String {
        let now = OffsetDateTime::now_utc();
        let revoked = |serial_number| RevokedCertParams {
            serial_number,
            revocation_time: now,
            reason_code: None,
            invalidity_date: None,
        };
        let params = CertificateRevocationListParams {
            this_update: now + good - Duration::days(30),
            next_update: now + good,
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: serials.into_iter().map(revoked).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        params.signed_by(&self.issuer).unwrap().pem().unwrap()
    }
}

/// A good user certificate with these URIs, to be made worse.
pub fn user_params(uris: &[&str]) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.subject_alt_names =
        uris.iter().map(|uri| SanType::URI((*uri).try_into().unwrap())).collect();
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    params.not_before = OffsetDateTime::now_utc() - Duration::minutes(5);
    params.not_after = OffsetDateTime::now_utc() + Duration::hours(1);
    params
}

/// The serial number of the certificate in an identity file.
pub fn serial(pem: &str) -> SerialNumber {
    let der = CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
    let serial = Summary::of(&der).unwrap().serial;
    let byte = |digits: &[u8]| u8::from_str_radix(str::from_utf8(digits).unwrap(), 16).unwrap();
    SerialNumber::from_slice(&serial.as_bytes().chunks(2).map(byte).collect::<Vec<_>>())
}

/// Replaces a file in one step, as whoever copies one to an agent should.
pub fn replace(dir: &Path, name: &str, text: &str) {
    fs::rename(write_private(dir, &format!("{name}.new"), text), dir.join(name)).unwrap();
}

/// Writes a file as private as a key must be.
pub fn write_private(dir: &Path, name: &str, text: &str) -> PathBuf {
    let path = dir.join(name);
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
    path
}
