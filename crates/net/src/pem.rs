//! PEM: text to certificates, keys and revocation lists. The only place that names `rustls-pemfile`, which is
//! archived (RUSTSEC-2025-0134) and today a thin wrapper over `rustls-pki-types`.

use rexec_protocol::outcome::printable;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};

/// What a file holds.
#[derive(Debug, Default)]
pub(crate) struct Contents {
    /// The certificates, in the order of the file.
    pub(crate) certificates: Vec<CertificateDer<'static>>,
    /// The private keys.
    pub(crate) keys: Vec<PrivateKeyDer<'static>>,
    /// The certificate revocation lists, in the order of the file.
    pub(crate) lists: Vec<CertificateRevocationListDer<'static>>,
    /// The labels of all sections, to tell what was found.
    labels: Vec<String>,
}

impl Contents {
    /// There is a private key that only a passphrase opens.
    pub(crate) fn is_encrypted(&self) -> bool {
        self.labels.iter().any(|label| label == "ENCRYPTED PRIVATE KEY")
    }

    /// What was found, for a sentence: "a private key and no certificate".
    pub(crate) fn found(&self) -> String {
        if self.labels.is_empty() {
            return "no PEM at all".to_owned();
        }
        let labels: Vec<_> = self.labels.iter().map(|label| printable(label)).collect();
        labels.join(", ")
    }
}

/// Reads all sections. The error tells what is wrong, to follow the name of the file.
pub(crate) fn parse(pem: &[u8]) -> Result<Contents, String> {
    if pem.starts_with(&[0x30, 0x82]) {
        return Err("holds DER, not PEM; convert it with `openssl x509 -inform DER`, or a revocation list with `openssl crl -inform DER`".to_owned());
    }
    let mut contents = Contents { labels: labels(pem), ..Contents::default() };
    if pem.windows(LEGACY.len()).any(|window| window == LEGACY) {
        return Err(ENCRYPTED.to_owned());
    }
    for item in rustls_pemfile::read_all(&mut &*pem) {
        match item.map_err(|error| format!("holds damaged PEM: {error}"))? {
            rustls_pemfile::Item::X509Certificate(der) => contents.certificates.push(der),
            rustls_pemfile::Item::Pkcs8Key(der) => contents.keys.push(der.into()),
            rustls_pemfile::Item::Sec1Key(der) => contents.keys.push(der.into()),
            rustls_pemfile::Item::Pkcs1Key(der) => contents.keys.push(der.into()),
            rustls_pemfile::Item::Crl(der) => contents.lists.push(der),
            _ => {}
        }
    }
    Ok(contents)
}

/// How OpenSSL marks a key with a passphrase in the format before PKCS #8.
const LEGACY: &[u8] = b"Proc-Type: 4,ENCRYPTED";

/// To follow the name of a file.
pub(crate) const ENCRYPTED: &str = "holds a private key with a passphrase, which is not supported; remove the passphrase with `openssl pkey -in OLD -out NEW`, and keep the file readable by its owner only";

fn labels(pem: &[u8]) -> Vec<String> {
    let begins = pem
        .split(|byte| *byte == b'\n')
        .filter_map(|line| line.trim_ascii().strip_prefix(b"-----BEGIN ")?.strip_suffix(b"-----"));
    begins.map(|label| String::from_utf8_lossy(label).into_owned()).collect()
}
