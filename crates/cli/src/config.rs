//! What does not have to be typed each time: environment, then the user's file, then the system's.
//!
//! No file of the current folder is ever read, so a checkout cannot redirect a command.

use crate::{trusted, values};
use rexec_client::Algorithm;
use serde::Deserialize;
use serde::de::{Deserializer, Error as _};
use std::ffi::OsString;
use std::num::NonZeroU16;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The system's file.
const SYSTEM: &str = "/etc/rexec/client.toml";

/// One source of settings; what it does not say is `None`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// Certificate chain and, unless `key` is set, private key.
    pub identity: Option<PathBuf>,
    /// The private key, where it is a file of its own.
    pub key: Option<PathBuf>,
    /// The authorities that sign agents.
    pub authority: Option<PathBuf>,
    /// The revocation lists of these authorities.
    pub crl: Option<PathBuf>,
    /// The user to run as.
    pub user: Option<String>,
    /// The agent's port.
    pub port: Option<NonZeroU16>,
    /// How long TCP, TLS and hello may take.
    #[serde(deserialize_with = "values::duration_in_file")]
    pub connect_timeout: Option<Duration>,
    /// How long a lost connection is tried to be made again.
    #[serde(deserialize_with = "values::duration_or_zero_in_file")]
    pub reconnect_for: Option<Duration>,
    /// After how long a silent agent is asked for a sign of life.
    #[serde(deserialize_with = "values::duration_in_file")]
    pub keepalive: Option<Duration>,
    /// What the agent's certificate must be for, if not the host. Of one host, and in no file.
    #[serde(skip)]
    pub name: Option<String>,
    /// How often to try to connect. In no file either.
    #[serde(skip)]
    pub connect_attempts: Option<u32>,
    /// The digest of the streams.
    #[serde(deserialize_with = "hash_in_file")]
    pub hash: Option<Algorithm>,
    /// Whether `rexec-ssh` looks a host up in the configuration of ssh, and in which.
    pub ssh_config: Option<SshConfig>,
}

/// Where `rexec-ssh` may look a host up.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(untagged, expecting = "true, false, or the path of a file")]
pub enum SshConfig {
    /// In `~/.ssh/config`, or nowhere.
    Wanted(bool),
    /// In this file.
    File(PathBuf),
}

/// The environment, so that tests can bring their own.
pub type Env<'a> = &'a dyn Fn(&str) -> Option<OsString>;

impl Settings {
    /// This source, and `lower` for what it does not say. A key belongs to its identity, so a lower
    /// key is not combined with a higher identity.
    #[must_use]
    pub fn or(self, lower: Self) -> Self {
        let key = if self.identity.is_some() { self.key } else { self.key.or(lower.key) };
        Self {
            identity: self.identity.or(lower.identity),
            key,
            authority: self.authority.or(lower.authority),
            crl: self.crl.or(lower.crl),
            user: self.user.or(lower.user),
            port: self.port.or(lower.port),
            connect_timeout: self.connect_timeout.or(lower.connect_timeout),
            reconnect_for: self.reconnect_for.or(lower.reconnect_for),
            keepalive: self.keepalive.or(lower.keepalive),
            name: self.name.or(lower.name),
            connect_attempts: self.connect_attempts.or(lower.connect_attempts),
            hash: self.hash.or(lower.hash),
            ssh_config: self.ssh_config.or(lower.ssh_config),
        }
    }

    /// Everything below the flags; `file` stands in for both files.
    pub fn load(file: Option<&Path>, env: Env<'_>) -> Result<Self, String> {
        Self::default().over(file, env)
    }

    /// These, and what [`Settings::load`] finds for what they do not say. A variable that nobody asks is
    /// not looked at, and may have any value.
    pub fn over(self, file: Option<&Path>, env: Env<'_>) -> Result<Self, String> {
        let environment = self.environment(env)?;
        Ok(self.or(environment).or(Self::of_files(file, env)?))
    }

    /// What the files say; `file` stands in for both.
    pub fn of_files(file: Option<&Path>, env: Env<'_>) -> Result<Self, String> {
        let chosen =
            file.map(PathBuf::from).or_else(|| variable(env, "REXEC_CONFIG").map(PathBuf::from));
        if let Some(path) = chosen {
            return Self::from_file(&path)?.ok_or_else(|| missing(&path));
        }
        let user = match directory(env) {
            Some(dir) => Self::from_file(&dir.join("config.toml"))?.unwrap_or_default(),
            None => Self::default(),
        };
        let system = Self::from_file(SYSTEM.as_ref())?.unwrap_or_default();
        Ok(user.or(system))
    }

    fn environment(&self, env: Env<'_>) -> Result<Self, String> {
        let file = |name: &str| variable(env, name).map(PathBuf::from);
        let user = |text: &str| Ok(text.to_owned());
        let port = value(&self.port, env, "REXEC_PORT", values::port)?;
        let timeout = &self.connect_timeout;
        let reconnect = &self.reconnect_for;
        let keepalive = &self.keepalive;
        Ok(Self {
            identity: file("REXEC_IDENTITY"),
            key: file("REXEC_KEY"),
            authority: file("REXEC_AUTHORITY"),
            crl: file("REXEC_CRL"),
            user: value(&self.user, env, "REXEC_USER", user)?,
            port: port.and_then(NonZeroU16::new),
            connect_timeout: value(timeout, env, "REXEC_CONNECT_TIMEOUT", values::duration)?,
            reconnect_for: value(reconnect, env, "REXEC_RECONNECT_FOR", values::duration_or_zero)?,
            keepalive: value(keepalive, env, "REXEC_KEEPALIVE", values::duration)?,
            name: None,
            connect_attempts: None,
            hash: value(&self.hash, env, "REXEC_HASH", hash)?,
            ssh_config: None,
        })
    }

    /// `None` if there is no such file.
    fn from_file(path: &Path) -> Result<Option<Self>, String> {
        // It may name the authority.
        let Some(text) = trusted::read(path)? else { return Ok(None) };
        let mut settings: Self = toml::from_str(&text).map_err(|error| {
            let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
            let line = before.matches('\n').count() + 1;
            format!("{}:{line}: {}", path.display(), error.message().replace('\n', " "))
        })?;
        let folder = path.parent().unwrap_or(Path::new("/"));
        let Self { identity, key, authority, crl, .. } = &mut settings;
        for file in [identity, key, authority, crl] {
            *file = file.take().map(|file| resolve(&file, folder));
        }
        if let Some(SshConfig::File(file)) = &mut settings.ssh_config {
            *file = resolve(file, folder);
        }
        Ok(Some(settings))
    }
}

/// The folder of the user's own files.
pub fn directory(env: Env<'_>) -> Option<PathBuf> {
    let xdg = variable(env, "XDG_CONFIG_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
    let base = xdg.or_else(|| variable(env, "HOME").map(|home| Path::new(&home).join(".config")));
    base.or_else(|| std::env::home_dir().map(|home| home.join(".config")))
        .map(|base| base.join("rexec"))
}

/// A digest by name.
pub fn hash(text: &str) -> Result<Algorithm, String> {
    text.parse().map_err(|()| "known are sha256 and blake3".to_owned())
}

fn hash_in_file<'de, D: Deserializer<'de>>(d: D) -> Result<Option<Algorithm>, D::Error> {
    let name = String::deserialize(d)?;
    hash(&name).map(Some).map_err(D::Error::custom)
}

/// What a variable says, unless that is known already.
fn value<K, T>(
    known: &Option<K>,
    env: Env<'_>,
    name: &str,
    parse: impl Fn(&str) -> Result<T, String>,
) -> Result<Option<T>, String> {
    let Some(text) = variable(env, name).filter(|_| known.is_none()) else { return Ok(None) };
    let text = text.into_string().map_err(|_| format!("{name} is not UTF-8"))?;
    parse(&text).map(Some).map_err(|why| format!("{name}: {why}"))
}

/// A variable; an empty one counts as unset.
fn variable(env: Env<'_>, name: &str) -> Option<OsString> {
    env(name).filter(|value| !value.is_empty())
}

/// Paths in a file are relative to its folder; `~/` is the home directory.
fn resolve(path: &Path, folder: &Path) -> PathBuf {
    match (path.strip_prefix("~"), std::env::home_dir()) {
        (Ok(rest), Some(home)) => home.join(rest),
        _ => folder.join(path),
    }
}

fn missing(path: &Path) -> String {
    format!("the configuration file {} does not exist", path.display())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt;

    fn none(_: &str) -> Option<OsString> {
        None
    }

    fn file(text: &str) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("client.toml");
        fs::write(&path, text).unwrap();
        (dir, path)
    }

    #[test]
    fn a_file_is_read_and_its_paths_are_relative_to_it() {
        let (dir, path) = file(
            "identity = 'me.pem'\nauthority = '/ca.crt'\ncrl = 'ca.crl'\nport = 9\nconnect_timeout = 3\nreconnect_for = 0\nhash = 'blake3'\n",
        );
        let settings = Settings::load(Some(&path), &none).unwrap();
        assert_eq!(settings.identity, Some(dir.path().join("me.pem")));
        assert_eq!(settings.authority, Some("/ca.crt".into()));
        assert_eq!(settings.crl, Some(dir.path().join("ca.crl")));
        assert_eq!(settings.port, NonZeroU16::new(9));
        assert_eq!(settings.connect_timeout, Some(Duration::from_secs(3)));
        assert_eq!(settings.reconnect_for, Some(Duration::ZERO));
        assert_eq!(settings.hash, Some(Algorithm::Blake3));
    }

    #[test]
    fn a_file_that_others_may_write_names_no_authority() {
        let (_dir, path) = file("authority = '/ca.crt'\n");
        fs::set_permissions(&path, Permissions::from_mode(0o666)).unwrap();
        let error = Settings::load(Some(&path), &none).unwrap_err();
        assert!(error.contains("chmod go-w"), "{error}");
    }

    #[test]
    fn errors_name_file_and_line() {
        for bad in [
            "\nprot = 9\n",
            "user = 'a'\nport = 0",
            "user = 'a'\nport = 'x'",
            "\nconnect_timeout = 'soon'",
            "\nhash = 'md5'",
            "\nport = ",
        ] {
            let (_dir, path) = file(bad);
            let error = Settings::load(Some(&path), &none).unwrap_err();
            assert!(error.starts_with(&format!("{}:2: ", path.display())), "{error}");
            assert!(!error.contains('\n'), "{error}");
        }
        let missing = Settings::load(Some("/nowhere/x.toml".as_ref()), &none).unwrap_err();
        assert!(missing.contains("/nowhere/x.toml"), "{missing}");
    }

    #[test]
    fn the_environment_goes_before_the_user_file() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("rexec")).unwrap();
        fs::write(dir.path().join("rexec/config.toml"), "user = 'file'\nport = 1\n").unwrap();
        let env = |name: &str| match name {
            "XDG_CONFIG_HOME" => Some(dir.path().into()),
            "REXEC_USER" => Some("env".into()),
            "REXEC_PORT" => Some("".into()),
            _ => None,
        };
        let settings = Settings::load(None, &env).unwrap();
        assert_eq!((settings.user.as_deref(), settings.port), (Some("env"), NonZeroU16::new(1)));
    }

    #[test]
    fn a_variable_that_an_option_stands_in_for_may_say_anything() {
        let env = |name: &str| match name {
            "REXEC_PORT" | "REXEC_CONNECT_TIMEOUT" | "REXEC_RECONNECT_FOR" => Some("abc".into()),
            _ => None,
        };
        let (_dir, path) = file("user = 'file'\n");
        let bad = |known: Settings| known.over(Some(&path), &env).unwrap_err();
        assert!(bad(Settings::default()).starts_with("REXEC_PORT: "));
        let known = Settings { port: NonZeroU16::new(1), ..Settings::default() };
        assert!(bad(known.clone()).starts_with("REXEC_CONNECT_TIMEOUT: "));
        let time = Some(Duration::from_secs(1));
        let known = Settings { connect_timeout: time, reconnect_for: time, ..known };
        let settings = known.over(Some(&path), &env).unwrap();
        assert_eq!((settings.user.as_deref(), settings.port), (Some("file"), NonZeroU16::new(1)));
    }

    #[test]
    fn a_key_is_never_paired_with_a_strangers_identity() {
        let high = Settings { identity: Some("mine".into()), ..Settings::default() };
        let low = Settings {
            identity: Some("other".into()),
            key: Some("k".into()),
            ..Settings::default()
        };
        assert_eq!(high.or(low.clone()).key, None);
        assert_eq!(Settings::default().or(low).key, Some("k".into()));
    }
}
