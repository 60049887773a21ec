//! Where the agent is, and the files that it takes to reach it.

use crate::args::ConnectOptions;
use crate::config::{self, Env, Settings};
use crate::target::Target;
use crate::values::SshOption;
use rexec_client::{Connector, DEFAULT_PORT, Error, Files, Outcome, Session};
use std::ffi::OsStr;
use std::io;
use std::num::NonZeroU16;
use std::path::PathBuf;
use std::time::Duration;
use tokio::time::sleep;

/// Between two attempts to connect, as with ssh.
const PAUSE: Duration = Duration::from_secs(1);

/// How to reach an agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// Name or address, as dialled and as shown.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// Certificates and keys.
    pub files: Files,
    /// How long connecting may take.
    pub connect_timeout: Duration,
    /// How long a connection that is lost while a command runs is tried to be made again.
    pub reconnect_for: Duration,
    /// After how long a silent agent is asked for a sign of life, if not after the usual time.
    pub keepalive: Option<Duration>,
    /// What its certificate must be for, if not the host.
    pub name: Option<String>,
    /// How often to try to connect.
    pub attempts: u32,
}

impl Endpoint {
    /// What connects to it. Reads the certificates and keys.
    pub fn connector(&self) -> Result<Connector, Outcome> {
        let connector = Connector::new(&self.files).map_err(|error| error.outcome().clone())?;
        let connector = connector.connect_timeout(self.connect_timeout);
        let mut connector = connector.reconnect_for(self.reconnect_for);
        if let Some(interval) = self.keepalive {
            connector = connector.keepalive(interval);
        }
        Ok(match &self.name {
            Some(name) => connector.expect_name(name),
            None => connector,
        })
    }
}

impl Endpoint {
    /// Connects, as often as it takes and is wanted. Safe to cancel.
    pub async fn connect(&self, connector: &Connector) -> Result<Session, Error> {
        for _ in 1..self.attempts {
            match connector.connect(&self.host, self.port).await {
                Err(error) if may_do_better(&error) => {
                    sleep(PAUSE).await;
                }
                connected => return connected,
            }
        }
        connector.connect(&self.host, self.port).await
    }
}

/// Whether another attempt may end in another way than with this error.
fn may_do_better(error: &Error) -> bool {
    matches!(error.outcome(), Outcome::Unreachable { .. }) && !error.is_refused()
}

/// Where to reach the agent of a target when only that is wanted.
pub fn endpoint_of(
    target: &OsStr,
    connect: ConnectOptions,
    env: Env<'_>,
) -> Result<Endpoint, String> {
    reach(target, connect, env).map(|(endpoint, _)| endpoint)
}

/// Where to reach the agent of a target, and as which user there; `None` leaves that to the agent.
pub fn reach(
    target: &OsStr,
    connect: ConnectOptions,
    env: Env<'_>,
) -> Result<(Endpoint, Option<String>), String> {
    let target = Target::parse(target)?;
    let mut settings = settings(connect, None, &target, env)?;
    let user = settings.user.take();
    Ok((endpoint(target, settings, env)?, user))
}

/// All sources in their order: the letters, `-o`, the target, the environment, the files.
pub(super) fn settings(
    connect: ConnectOptions,
    user: Option<String>,
    target: &Target,
    env: Env<'_>,
) -> Result<Settings, String> {
    let letters = Settings {
        identity: connect.identity,
        key: connect.key,
        authority: connect.authority,
        crl: connect.crl,
        user,
        port: connect.port.and_then(NonZeroU16::new),
        connect_timeout: connect.connect_timeout,
        reconnect_for: connect.reconnect_for,
        keepalive: connect.keepalive,
        ..Settings::default()
    };
    // As with ssh, the first of two that are the same counts.
    let typed = connect.ssh.into_iter().fold(letters, |settings, option| settings.or(one(option)));
    let addressed = Settings {
        user: target.user.clone(),
        port: target.port.and_then(NonZeroU16::new),
        ..Settings::default()
    };
    typed.or(addressed).over(connect.config.as_deref(), env)
}

fn one(option: SshOption) -> Settings {
    let nothing = Settings::default();
    match option {
        SshOption::User(user) => Settings { user: Some(user), ..nothing },
        SshOption::Port(port) => Settings { port: NonZeroU16::new(port), ..nothing },
        SshOption::ConnectTimeout(time) => Settings { connect_timeout: Some(time), ..nothing },
        SshOption::ConnectionAttempts(n) => Settings { connect_attempts: Some(n), ..nothing },
        SshOption::ServerAliveInterval(time) => Settings { keepalive: Some(time), ..nothing },
        SshOption::HostKeyAlias(name) => Settings { name: Some(name), ..nothing },
        SshOption::IdentityFile(file) => Settings { identity: Some(file), ..nothing },
        SshOption::SetEnv(_) | SshOption::LogLevel(_) => nothing,
    }
}

pub(super) fn endpoint(
    target: Target,
    settings: Settings,
    env: Env<'_>,
) -> Result<Endpoint, String> {
    let Settings { identity, key, authority, crl, port, connect_timeout, reconnect_for, .. } =
        settings;
    let Settings { keepalive, name, connect_attempts, .. } = settings;
    let identity = match identity {
        Some(file) => present(file, "identity", "")?,
        None => default_file("identity.pem", "identity", ", REXEC_IDENTITY or -i FILE", env)?,
    };
    let authority = match authority {
        Some(file) => present(file, "authority", "")?,
        None => default_file(
            "authority.crt",
            "authority",
            ", REXEC_AUTHORITY or --authority FILE",
            env,
        )?,
    };
    // One that was asked for must be there; the one in its default place may be.
    let default_list = || config::directory(env).map(|dir| dir.join("authority.crl"));
    let revocations = match crl {
        Some(file) => Some(present(file, "revocation list", "")?),
        None => default_list().filter(|file| file.symlink_metadata().is_ok()),
    };
    let key = key.map(|file| present(file, "key", "")).transpose()?;
    Ok(Endpoint {
        host: target.host,
        port: port.map_or(DEFAULT_PORT, NonZeroU16::get),
        files: Files { identity, key, authority, revocations },
        connect_timeout: connect_timeout.unwrap_or(Duration::from_secs(10)),
        reconnect_for: reconnect_for.unwrap_or(Duration::from_secs(300)),
        keepalive,
        name,
        attempts: connect_attempts.unwrap_or(1),
    })
}

fn default_file(name: &str, what: &str, others: &str, env: Env<'_>) -> Result<PathBuf, String> {
    let dir = config::directory(env)
        .ok_or_else(|| format!("no {what}: there is no home directory{others}"))?;
    present(dir.join(name), what, others)
}

/// Missing files are told apart from unreadable ones here, where it is known what they are for.
fn present(file: PathBuf, what: &str, others: &str) -> Result<PathBuf, String> {
    match file.metadata() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let how = match what {
                "authority" => {
                    "get it from whoever runs the agents: they have it from 'rexec ca init'"
                }
                "revocation list" => "whoever keeps the authority makes it with 'rexec ca crl'",
                "key" => "without --key and REXEC_KEY, the key is looked for in the identity file",
                _ => "whoever keeps the authority makes one with 'rexec ca issue-user'",
            };
            let elsewhere =
                if others.is_empty() { "" } else { "; other places: the configuration file" };
            Err(format!("no {what}: {} does not exist; {how}{elsewhere}{others}", file.display()))
        }
        _ => Ok(file),
    }
}
