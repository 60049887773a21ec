//! A certificate and what it says.

use super::CaError;
use rexec_client::certificate::Summary;
use rexec_client::{Algorithm, Digest};
use std::fs::File;
use std::io::BufReader;
use std::path::Path;
use x509_parser::pem::Pem;

/// One certificate.
pub(super) struct Certificate {
    pub(super) der: Vec<u8>,
    pub(super) summary: Summary,
}

impl Certificate {
    pub(super) fn new(der: Vec<u8>) -> Result<Self, CaError> {
        let summary = Summary::of(&der)
            .map_err(|error| CaError::new(format!("the certificate is malformed: {error}")))?;
        Ok(Self { der, summary })
    }

    /// All certificates of a PEM file; there is at least one. Keys in the file are passed over.
    pub(super) fn read_all(path: &Path) -> Result<Vec<Self>, CaError> {
        let unusable = |why: &dyn std::fmt::Display| {
            CaError::new(format!("{} cannot be used: {why}", path.display()))
        };
        let file = File::open(path).map_err(|error| CaError::io("read", path, &error))?;
        let mut certificates = Vec::new();
        for section in Pem::iter_from_reader(BufReader::new(file)) {
            let section = section.map_err(|error| unusable(&error))?;
            if section.label == "CERTIFICATE" {
                certificates.push(Self::new(section.contents).map_err(|error| unusable(&error))?);
            }
        }
        if certificates.is_empty() {
            return Err(unusable(&"it holds no certificate in PEM"));
        }
        Ok(certificates)
    }

    /// The SHA-256 of the certificate, by which agents name it in their logs.
    pub(super) fn fingerprint(&self) -> Digest {
        Digest::of(Algorithm::Sha256, &self.der)
    }
}
