//! Keys, certificates, authorities and revocation lists from PEM files.
//!
//! Files are read whole through one descriptor each, checked, and only then become
//! [`Credentials`]: a key that others can read, or that does not belong to its certificate, never
//! gets that far. Whether the certificate is valid *now* is not asked here: an agent on a machine
//! that starts with a wrong clock must still start. A revocation list must be current, though: an old
//! one is as good as none.

mod file;
mod revocations;

use crate::explain::Summary;
use crate::pem::{self, Contents};
use file::Access;
pub(crate) use file::Stamp;
pub use revocations::Revocations;
use rexec_guard::holds;
use rustls::RootCertStore;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::CertificateDer;
use rustls::sign::CertifiedKey;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

/// Where the PEM files are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Files {
    /// The certificate chain, the own certificate first; and the private key, unless `key` is set.
    pub identity: PathBuf,
    /// The private key, where another authority delivers it in a file of its own.
    pub key: Option<PathBuf>,
    /// The certificates of the authorities that sign peers.
    pub authority: PathBuf,
    /// The revocation lists of these authorities, one or several. Without it nobody asks whether a
    /// peer's certificate was revoked; with it, a peer is trusted only if a current list says that
    /// it was not.
    pub revocations: Option<PathBuf>,
}

impl Files {
    /// All paths.
    pub(crate) fn paths(&self) -> impl Iterator<Item = &Path> {
        let further = [self.key.as_deref(), self.revocations.as_deref()];
        let needed = [self.identity.as_path(), self.authority.as_path()];
        needed.into_iter().chain(further.into_iter().flatten())
    }
}

/// One consistent set: certificate chain, its private key, and the authorities that peers are
/// checked against, with what those have revoked.
#[derive(Debug, Clone)]
pub struct Credentials {
    pub(crate) certified: Arc<CertifiedKey>,
    pub(crate) authorities: Arc<RootCertStore>,
    revocations: Option<Arc<Revocations>>,
    summary: Summary,
    files: Files,
}

impl Credentials {
    /// Reads and checks all files.
    pub fn load(files: &Files) -> Result<Self, CredentialError> {
        let (certified, summary) = identity(files)?;
        let (authorities, certificates) = authorities(&files.authority)?;
        let read = |path: &PathBuf| Revocations::read(path, &certificates, SystemTime::now());
        let revocations = files.revocations.as_ref().map(read).transpose()?;
        Ok(Self {
            certified: Arc::new(certified),
            authorities: Arc::new(authorities),
            revocations: revocations.map(Arc::new),
            summary,
            files: files.clone(),
        })
    }

    /// What the own certificate says.
    pub fn summary(&self) -> &Summary {
        &self.summary
    }

    /// What the authorities have revoked, if that is asked.
    pub fn revocations(&self) -> Option<&Revocations> {
        self.revocations.as_deref()
    }

    /// Where the credentials came from.
    pub fn files(&self) -> &Files {
        &self.files
    }
}

fn identity(files: &Files) -> Result<(CertifiedKey, Summary), CredentialError> {
    let here = &files.identity;
    let mut contents = read_own(here)?;
    let chain = std::mem::take(&mut contents.certificates);
    let [own, ..] = chain.as_slice() else {
        let found = contents.found();
        let fault =
            if contents.keys.is_empty() { Fault::NoCertificate(found) } else { Fault::OnlyKey };
        return Err(fault.of(here));
    };
    let summary = Summary::of(own).map_err(|error| Fault::BadCertificate(error).of(here))?;
    let key = match &files.key {
        Some(file) => private_key(file, read_own(file)?)?,
        None => private_key(here, contents)?,
    };
    let certified = CertifiedKey::new(chain, key);
    certified.keys_match().map_err(|error| match error {
        rustls::Error::InconsistentKeys(_) => {
            let key = files.key.as_ref().unwrap_or(here).clone();
            Fault::KeyMismatch { key, names: summary.names() }.of(here)
        }
        other => Fault::BadCertificate(other.to_string()).of(here),
    })?;
    Ok((certified, summary))
}

fn private_key(
    path: &Path,
    mut contents: Contents,
) -> Result<Arc<dyn rustls::sign::SigningKey>, CredentialError> {
    let fault = |fault: Fault| fault.of(path);
    if contents.is_encrypted() {
        return Err(fault(Fault::Pem(pem::ENCRYPTED.to_owned())));
    }
    let (Some(key), true) = (contents.keys.pop(), contents.keys.is_empty()) else {
        let count = contents.keys.len();
        let found = contents.found();
        return Err(fault(if count == 0 { Fault::NoKey(found) } else { Fault::ManyKeys }));
    };
    aws_lc_rs::sign::any_supported_type(&key).map_err(|error| {
        fault(Fault::BadKey(match error {
            rustls::Error::General(words) => words,
            other => other.to_string(),
        }))
    })
}

/// For TLS, and as they are.
type Authorities = (RootCertStore, Vec<CertificateDer<'static>>);

fn authorities(path: &Path) -> Result<Authorities, CredentialError> {
    let (contents, access) = read(path)?;
    let fault = |fault: Fault| fault.of(path);
    if contents.certificates.is_empty() {
        return Err(fault(Fault::NoCertificate(contents.found())));
    }
    let has_key = !contents.keys.is_empty() || contents.is_encrypted();
    if !holds("authority.without_key", !has_key) {
        return Err(fault(Fault::AuthorityWithKey));
    }
    access.demand_unchangeable().map_err(fault)?;
    let mut roots = RootCertStore::empty();
    for certificate in &contents.certificates {
        check_authority(certificate).map_err(fault)?;
        let added = roots.add(certificate.clone());
        added.map_err(|error| fault(Fault::BadCertificate(error.to_string())))?;
    }
    Ok((roots, contents.certificates))
}

/// webpki takes any certificate for an anchor and never looks at its basic constraints, so that
/// a user's certificate that got into the file would make its holder an authority.
fn check_authority(certificate: &CertificateDer<'_>) -> Result<(), Fault> {
    let summary = Summary::of(certificate).map_err(Fault::BadCertificate)?;
    if holds("authority.is_one", summary.authority) {
        Ok(())
    } else {
        Err(Fault::NotAnAuthority(summary.names()))
    }
}

/// Reads certificates or keys of our own.
fn read_own(path: &Path) -> Result<Contents, CredentialError> {
    let (contents, access) = read(path)?;
    let demanded = if contents.keys.is_empty() {
        access.demand_unchangeable()
    } else {
        access.demand_private()
    };
    demanded.map_err(|fault| fault.of(path))?;
    Ok(contents)
}

fn read(path: &Path) -> Result<(Contents, Access), CredentialError> {
    let (bytes, access) = file::read(path, file::MAX_SIZE).map_err(|fault| fault.of(path))?;
    let contents = pem::parse(&bytes).map_err(|error| Fault::Pem(error).of(path))?;
    Ok((contents, access))
}

/// The own certificate in `path` as far as it can be read, to explain why a peer refused it.
pub(crate) fn peek(path: &Path) -> Option<Summary> {
    let (contents, _) = read(path).ok()?;
    Summary::of(contents.certificates.first()?).ok()
}

/// Why credentials can't be used: a file and its fault.
#[derive(Debug, thiserror::Error)]
#[error("{} {fault}", file.display())]
pub struct CredentialError {
    /// The file.
    pub file: PathBuf,
    /// What is wrong with it.
    pub fault: Fault,
}

/// What is wrong with a file; each text follows the file's name.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Fault {
    /// The system's words.
    #[error("cannot be read: {0}")]
    Read(io::Error),
    /// A directory, a pipe or a device.
    #[error("is not a regular file")]
    NotAFile,
    /// More than anybody's certificates, or revocations.
    #[error("is larger than {0} KiB")]
    TooLarge(u64),
    /// Others can read the private key.
    #[error(
        "holds a private key, and others than its owner can read it (mode {mode:04o}); run: chmod 600 {}", path.display()
    )]
    Exposed {
        /// The permission bits.
        mode: u32,
        /// The file again, to be copied with the command.
        path: PathBuf,
    },
    /// Others can replace what is trusted.
    #[error(
        "can be changed by others than its owner (mode {mode:04o}); run: chmod go-w {}", path.display()
    )]
    Writable {
        /// The permission bits.
        mode: u32,
        /// The file again, to be copied with the command.
        path: PathBuf,
    },
    /// A third party owns it.
    #[error("belongs to user {0}, not to the user of this process and not to root")]
    Owner(u32),
    /// Not PEM, or damaged.
    #[error("{0}")]
    Pem(String),
    /// A certificate was expected.
    #[error("holds no certificate (found: {0})")]
    NoCertificate(String),
    /// A certificate was expected beside the key.
    #[error("holds a private key but no certificate; append the certificate chain to it")]
    OnlyKey,
    /// A private key was expected.
    #[error(
        "holds no private key (found: {0}); append the key to it, or name the key's own file as well"
    )]
    NoKey(String),
    /// One private key was expected.
    #[error("holds more than one private key")]
    ManyKeys,
    /// The key is of a kind this build does not support.
    #[error("holds a private key that cannot be used: {0}")]
    BadKey(String),
    /// Not an X.509 certificate, or one that can't be used.
    #[error("holds a certificate that cannot be used: {0}")]
    BadCertificate(String),
    /// Key and certificate are not of one pair.
    #[error("holds a certificate ({names}) that does not belong to the private key in {}", key.display())]
    KeyMismatch {
        /// The key's file.
        key: PathBuf,
        /// Whose certificate.
        names: String,
    },
    /// A certificate that may not sign others.
    #[error(
        "holds a certificate that is not an authority's ({0}); name a file with the authority's certificate alone"
    )]
    NotAnAuthority(String),
    /// The authority's private key is where only its certificate should be.
    #[error(
        "holds a private key; name a file with the authority's certificate alone, and keep the key off this machine"
    )]
    AuthorityWithKey,
    /// The revocation list that was asked for is not there.
    #[error(
        "cannot be read: {0}; it should hold the revocation list that `rexec ca crl` makes. Copy that here, or take the file out of the configuration to do without revocation"
    )]
    NoRevocationFile(io::Error),
    /// A revocation list was expected.
    #[error("holds no revocation list (found: {0}); make one with `rexec ca crl`")]
    NoRevocations(String),
    /// Not a revocation list, or one that can't be used.
    #[error("holds a revocation list that cannot be used: {0}; make a new one with `rexec ca crl`")]
    BadRevocations(String),
    /// A list that the authority of its name has not signed.
    #[error(
        "holds a revocation list of '{0}' that the authority of this name has not signed; copy the one that `rexec ca crl` made"
    )]
    ForgedRevocations(String),
    /// An old list and a new one, say, of which only the first would count.
    #[error("holds two revocation lists of '{0}'; keep the newer one alone")]
    TwoRevocations(String),
    /// An older list than the one in force: it may have been put there to bring somebody back.
    #[error(
        "holds revocation list number {number} of '{issuer}', and number {known} is in force; copy the newest one, or restart the agent if this is meant"
    )]
    OlderRevocations {
        /// Whose list.
        issuer: String,
        /// Its number.
        number: String,
        /// The number of the one in force.
        known: String,
    },
    /// A list that should have been replaced.
    #[error(
        "holds a revocation list of '{issuer}' that was to be replaced by {until}, and this machine's clock says {now}; make a new one with `rexec ca crl` and copy it here"
    )]
    StaleRevocations {
        /// Whose list.
        issuer: String,
        /// Until when it was good.
        until: String,
        /// By this machine's clock.
        now: String,
    },
    /// An authority without a list, of which every certificate would be refused.
    #[error("holds no revocation list of the authority '{0}'; append the one that it has made")]
    MissingRevocations(String),
    /// A user's certificate for an agent, or the other way round.
    #[error(
        "holds a certificate ({names}) that is not for {wanted}: extended key usage {found}; issue one with `{command}`"
    )]
    Purpose {
        /// What it is needed for.
        wanted: &'static str,
        /// What it is for.
        found: String,
        /// Whose certificate.
        names: String,
        /// What makes the right one.
        command: &'static str,
    },
    /// rustls did not accept the whole.
    #[error("cannot be used: {0}")]
    Tls(String),
}

impl Fault {
    pub(crate) fn of(self, file: &Path) -> CredentialError {
        // A relative name says nothing to whoever does not know where this process is.
        let file = std::path::absolute(file).unwrap_or_else(|_| file.to_owned());
        CredentialError { file, fault: self }
    }
}
