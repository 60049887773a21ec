//! The agent's configuration: a file, flags over it, and defaults under it.

use crate::admission::settings::{self, Penalties};
use crate::policy::PolicyPaths;
use crate::{audit, jobs, log_level, rooms};
use rexec_net::credentials::Files;
use rexec_net::rates::Rates;
use rexec_net::trusted;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Where the configuration is, unless another place is named.
pub const DEFAULT_PATH: &str = "/etc/rexec/agent.toml";

/// Where Debian has OpenSSH's sftp server.
const SFTP: &str = "/usr/lib/openssh/sftp-server";

/// The whole configuration. A key that is not known is an error, so that a typing mistake in a
/// limit does not go unnoticed.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Addresses to listen on.
    pub listen: Vec<SocketAddr>,
    /// The agent's certificate chain and private key, PEM, in one file.
    pub identity: PathBuf,
    /// The private key, if it is in a file of its own.
    pub key: Option<PathBuf>,
    /// The authorities whose user certificates are accepted, PEM.
    pub authority: PathBuf,
    /// Who may do what, TOML; without it everything is denied.
    pub policy: PathBuf,
    /// More of the policy: the files in this folder whose names end in `.toml`.
    pub policy_folder: PathBuf,
    /// The revocation lists of these authorities, PEM; without them no certificate counts as
    /// revoked.
    pub crl: Option<PathBuf>,
    /// Limits and times.
    pub limits: Limits,
    /// Logging.
    pub log: Log,
    /// Where the agent keeps what must outlive it; for nobody else to read.
    pub state_dir: PathBuf,
    /// How long jobs wait for their clients, and are kept.
    pub jobs: jobs::Settings,
    /// How much rooms may take.
    pub rooms: rooms::Settings,
    /// The audit log.
    pub audit: audit::Settings,
    /// Names that a client can ask for, and the line for the login shell that each stands for. Policy
    /// decides about that line.
    pub subsystems: BTreeMap<String, String>,
}

/// Limits and times; durations are written as `10s`, `5m`, `1h 30m`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// From the TCP connection to the client's hello.
    #[serde(deserialize_with = "duration", serialize_with = "written")]
    pub handshake: Duration,
    /// Handshakes under way at once; further connections are closed.
    pub handshakes: usize,
    /// From this many on, some connections are closed at random, the more the fuller it is.
    pub handshakes_early_drop: usize,
    /// Handshakes under way at once of one source: an IPv4 address, or an IPv6 /64.
    pub handshakes_per_source: usize,
    /// Of `handshakes`: kept for sources where somebody has authenticated in the last 24 hours.
    pub handshakes_reserved: usize,
    /// Connections at once, after their handshakes.
    pub connections: usize,
    /// Connections of one identity at once.
    pub connections_per_identity: usize,
    /// Commands running at once, over all connections.
    pub commands: usize,
    /// Commands of one identity running at once, over all its connections.
    pub commands_per_identity: usize,
    /// Commands running at once on one connection.
    pub commands_per_connection: usize,
    /// Forwarded connections and ports of one identity at once, over all its connections; they are none of
    /// `commands_per_identity`.
    pub forwards_per_identity: usize,
    /// How often it is on record and told, per second, that one identity comes to one job …
    pub attaches_per_second: u32,
    /// … and so often at once; beyond that it is counted.
    pub attaches_burst: u32,
    /// Frames that a client may send per second, `data` not counted, on one connection …
    pub frames_per_second: u32,
    /// … and this many at once.
    pub frames_burst: u32,
    /// Frames that are errors or cause one, on one connection.
    pub errors_per_connection: u32,
    /// How long a command that is ended has before it is killed.
    #[serde(deserialize_with = "duration", serialize_with = "written")]
    pub kill_grace: Duration,
    /// After a command ended while something it left behind holds its output open: give up after
    /// this long without output …
    #[serde(deserialize_with = "duration", serialize_with = "written")]
    pub drain_quiet: Duration,
    /// … and after this long in any case.
    #[serde(deserialize_with = "duration", serialize_with = "written")]
    pub drain_max: Duration,
    /// How long running commands may go on after the agent was told to stop.
    #[serde(deserialize_with = "duration", serialize_with = "written")]
    pub drain: Duration,
    /// A silent client is pinged after this long, and given up after three times as long.
    #[serde(deserialize_with = "duration", serialize_with = "written")]
    pub keepalive: Duration,
    /// Sources whose connections keep failing.
    pub penalties: Penalties,
    /// How long running commands may go on after the certificate that they were started with has
    /// expired; 0 ends them with it.
    #[serde(deserialize_with = "duration", serialize_with = "written")]
    pub expired_grace: Duration,
}

/// Logging.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Log {
    /// Text or JSON, on stderr.
    pub format: LogFormat,
    /// A level, or directives as `tracing-subscriber` takes them: `info,rexec_agent=debug`.
    pub level: String,
}

/// The form of a log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object per line.
    Json,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            // Nothing is exposed by installing.
            listen: vec![SocketAddr::from(([127, 0, 0, 1], rexec_net::handshake::DEFAULT_PORT))],
            identity: "/etc/rexec/agent.pem".into(),
            key: None,
            authority: "/etc/rexec/authority.crt".into(),
            policy: "/etc/rexec/policy.toml".into(),
            policy_folder: "/etc/rexec/policy.d".into(),
            crl: None,
            limits: Limits::default(),
            log: Log::default(),
            state_dir: "/var/lib/rexec".into(),
            jobs: jobs::Settings::default(),
            rooms: rooms::Settings::default(),
            audit: audit::Settings::default(),
            subsystems: BTreeMap::from([("sftp".to_owned(), SFTP.to_owned())]),
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            handshake: Duration::from_secs(10),
            handshakes: 128,
            handshakes_early_drop: 32,
            handshakes_per_source: 16,
            handshakes_reserved: 4,
            connections: 16_384,
            connections_per_identity: 64,
            commands: 4_096,
            commands_per_identity: 128,
            commands_per_connection: 256,
            forwards_per_identity: 256,
            attaches_per_second: 5,
            attaches_burst: 100,
            frames_per_second: 10_000,
            frames_burst: 20_000,
            errors_per_connection: 100,
            kill_grace: Duration::from_secs(5),
            drain_quiet: Duration::from_secs(2),
            drain_max: Duration::from_secs(10),
            drain: Duration::from_secs(60),
            keepalive: Duration::from_secs(15),
            penalties: Penalties::default(),
            expired_grace: Duration::from_secs(3600),
        }
    }
}

impl Limits {
    /// How much a client may send.
    pub fn rates(&self) -> Rates {
        let Self { frames_per_second, frames_burst, errors_per_connection, .. } = *self;
        Rates { frames_per_second, frames_burst, errors: errors_per_connection }
    }
}

impl Default for Log {
    fn default() -> Self {
        Self { format: LogFormat::Text, level: "info".to_owned() }
    }
}

/// Why there is no usable configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file is not what it should be; the text says where and what.
    #[error("{}: {message}", path.display())]
    Parse {
        /// The file.
        path: PathBuf,
        /// Line, column and fault.
        message: String,
    },
    /// A value is out of range.
    #[error("{0}")]
    Value(String),
}

impl Config {
    /// Reads a configuration file, which nobody but root and the agent's own user may be able to
    /// change: it names the files that decide who gets in.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let unreadable = |source| ConfigError::Read { path: path.to_owned(), source };
        let wrong = |message| ConfigError::Parse { path: path.to_owned(), message };
        let mut file = File::open(path).map_err(unreadable)?;
        let metadata = file.metadata().map_err(unreadable)?;
        trusted::demand_configuration(path, &metadata).map_err(wrong)?;
        let mut text = String::new();
        file.read_to_string(&mut text).map_err(unreadable)?;
        toml::from_str(&text).map_err(|error| wrong(error.to_string().trim_end().to_owned()))
    }

    /// Checks what the types cannot.
    pub fn validate(&self) -> Result<(), ConfigError> {
        if self.listen.is_empty() {
            return Err(ConfigError::Value("'listen' names no address".to_owned()));
        }
        settings::validate(&self.limits).map_err(ConfigError::Value)?;
        self.jobs.validate().map_err(ConfigError::Value)?;
        if let Err(error) = log_level::check(&self.log.level) {
            return Err(ConfigError::Value(format!("'log.level': {error}")));
        }
        if self.limits.handshake.is_zero() || self.limits.keepalive.is_zero() {
            let message = "'limits.handshake' and 'limits.keepalive' must not be 0";
            return Err(ConfigError::Value(message.to_owned()));
        }
        Ok(())
    }

    /// The files that prove who this agent is, and whom it trusts.
    pub fn files(&self) -> Files {
        Files {
            identity: self.identity.clone(),
            key: self.key.clone(),
            authority: self.authority.clone(),
            revocations: self.crl.clone(),
        }
    }

    /// The files that say who may do what.
    pub fn policy_paths(&self) -> PolicyPaths {
        PolicyPaths { file: self.policy.clone(), folder: self.policy_folder.clone() }
    }
}

pub(crate) fn written<S: Serializer>(
    duration: &Duration,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&humantime::format_duration(*duration))
}

pub(crate) fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(deserializer)?;
    humantime::parse_duration(&text)
        .map_err(|error| serde::de::Error::custom(format!("not a duration: {text:?}: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    fn parse(text: &str) -> Result<Config, ConfigError> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("agent.toml");
        fs::write(&path, text).unwrap();
        // Whatever the umask is.
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        Config::read(&path)
    }

    /// It names the policy, so who can write it can do all that any policy could allow.
    #[test]
    fn what_others_may_write_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("agent.toml");
        fs::write(&path, "").unwrap();
        for (mode, fits) in [(0o600, true), (0o644, true), (0o664, false), (0o646, false)] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            let read = Config::read(&path).map_err(|error| error.to_string());
            assert_eq!(read.is_ok(), fits, "{mode:o}");
            assert!(read.err().is_none_or(|error| error.contains("chmod go-w")));
        }
    }

    #[test]
    fn an_empty_file_gives_the_defaults() {
        assert_eq!(parse("").unwrap(), Config::default());
        assert!(Config::default().validate().is_ok());
        assert!(Config::default().listen.iter().all(|address| address.ip().is_loopback()));
    }

    #[test]
    fn what_is_printed_can_be_read_again() {
        let text = toml::to_string(&Config::default()).unwrap();
        assert_eq!(parse(&text).unwrap(), Config::default(), "{text}");
        for line in ["handshakes_per_source = 16", "[limits.penalties]", "timeout = \"10s\""] {
            assert!(text.lines().any(|printed| printed == line), "{line} is not in:\n{text}");
        }
    }

    /// A setting that the README shows otherwise would mislead whoever copies it.
    #[test]
    fn the_readme_shows_the_defaults() {
        let readme = include_str!("../../../README.md");
        let blocks = readme.split("```toml\n").filter_map(|block| block.split("```").next());
        let shown: Vec<_> = blocks.filter(|block| block.starts_with("listen = ")).collect();
        assert_eq!(shown.len(), 1);
        assert_eq!(parse(shown[0]).unwrap(), Config::default());
        for commented in ["key", "crl"] {
            let line =
                shown[0].lines().find_map(|line| line.strip_prefix("# ")?.strip_prefix(commented));
            assert!(line.is_some_and(|line| line.starts_with(" = ")), "{commented}");
        }
    }

    /// Even a client that reads all of it was waited for in vain.
    #[test]
    fn output_is_not_kept_in_less_than_a_reader_tells_of_at_once() {
        for (size, is_good) in [("1MiB", true), ("1023KiB", false), ("0", false)] {
            let config = parse(&format!("[jobs]\nmax_output = '{size}'")).unwrap();
            let told = config.validate();
            assert_eq!(told.is_ok(), is_good, "{size}: {told:?}");
        }
    }

    #[test]
    fn durations_are_written_as_people_write_them() {
        let config = parse("[limits]\nkill_grace = '1m 30s'").unwrap();
        assert_eq!(config.limits.kill_grace, Duration::from_secs(90));
    }

    #[test]
    fn mistakes_are_errors_that_say_where() {
        for (text, says) in [
            ("lisen = []", "unknown field `lisen`"),
            ("[limits]\nhandshake = '10'", "not a duration"),
            ("listen = ['nowhere']", "listen"),
            ("[log]\nformat = 'xml'", "xml"),
            ("[audit]\nmax_size = '64MB'", "not a size"),
        ] {
            let error = parse(text).unwrap_err().to_string();
            assert!(error.contains(says) && error.contains("agent.toml"), "{error}");
        }
    }
}
