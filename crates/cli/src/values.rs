//! Values of options that several places take: durations, variables, ssh's `-o`.

use rexec_client::{JobId, OnDisconnect, OnFull, Signal};
use serde::Deserialize;
use serde::de::{Deserializer, Error as _};
use std::env;
use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

const FORM: &str = "a duration is a number with a unit, ms, s, m, h or d, as in 90s or 1h30m; a \
                    plain number means seconds";
const TOO_LONG: &str = "that is too long";

/// A duration as people write it: `90s`, `5m`, `1h 30m`, and a plain number for seconds.
pub fn duration(text: &str) -> Result<Duration, String> {
    let text = text.trim();
    let parsed = match text.parse::<f64>() {
        Ok(seconds) if seconds.is_nan() => Err(FORM),
        Ok(seconds) if seconds <= 0.0 => Ok(Duration::ZERO),
        Ok(seconds) => Duration::try_from_secs_f64(seconds).map_err(|_| TOO_LONG),
        Err(_) => humantime::parse_duration(text).map_err(|error| match error {
            humantime::DurationError::NumberOverflow => TOO_LONG,
            _ => FORM,
        }),
    };
    match parsed {
        Ok(Duration::ZERO) => Err("it must be longer than zero".to_owned()),
        other => other.map_err(str::to_owned),
    }
}

/// [`duration`], and `0` with or without a unit.
pub fn duration_or_zero(text: &str) -> Result<Duration, String> {
    let number = text.trim().trim_end_matches(|c: char| c.is_ascii_alphabetic());
    if number.parse::<u64>() == Ok(0) { Ok(Duration::ZERO) } else { duration(text) }
}

/// [`duration`] in a configuration file, where it may also be an integer.
pub(crate) fn duration_in_file<'de, D: Deserializer<'de>>(
    d: D,
) -> Result<Option<Duration>, D::Error> {
    duration(&written(d)?).map(Some).map_err(D::Error::custom)
}

/// [`duration_or_zero`] in a configuration file.
pub(crate) fn duration_or_zero_in_file<'de, D: Deserializer<'de>>(
    d: D,
) -> Result<Option<Duration>, D::Error> {
    duration_or_zero(&written(d)?).map(Some).map_err(D::Error::custom)
}

fn written<'de, D: Deserializer<'de>>(d: D) -> Result<String, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "a duration such as \"10s\", or a number of seconds")]
    enum Written {
        Seconds(u32),
        Text(String),
    }
    Ok(match Written::deserialize(d)? {
        Written::Seconds(seconds) => seconds.to_string(),
        Written::Text(text) => text,
    })
}

/// From where on output is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Since {
    /// From this byte on.
    Offset(u64),
    /// What came at this time or later.
    Time(SystemTime),
    /// What came in the last so long.
    Ago(Duration),
}

/// A number of bytes, a time in RFC 3339, or a duration with its unit.
pub fn since(text: &str) -> Result<Since, String> {
    let text = text.trim();
    if let Ok(offset) = text.parse() {
        return Ok(Since::Offset(offset));
    }
    if let Ok(time) = humantime::parse_rfc3339_weak(text) {
        return Ok(Since::Time(time));
    }
    humantime::parse_duration(text).map(Since::Ago).map_err(|_| {
        "it is a number of bytes, a time in UTC such as 2026-11-22T20:30:00Z, or a duration with its unit, as in 10m"
            .to_owned()
    })
}

/// A job id of the user's own.
pub fn job_id(text: &str) -> Result<JobId, String> {
    JobId::new(text).ok_or_else(|| {
        format!(
            "a job id is 1 to {} letters, digits, dots, dashes and underscores, and begins with a letter or a digit",
            JobId::MAX
        )
    })
}

/// What becomes of a command whose client is gone.
pub fn on_disconnect(text: &str) -> Result<OnDisconnect, String> {
    match text.split_once('=') {
        None if text == "kill" => Ok(OnDisconnect::Kill {}),
        None if text == "keep" => Ok(OnDisconnect::Keep {}),
        Some(("lease", time)) => {
            let ms = duration(time)?.as_millis();
            Ok(OnDisconnect::Lease { ms: u64::try_from(ms).map_err(|_| TOO_LONG.to_owned())? })
        }
        _ => Err("known are kill, keep and lease=DURATION, as in lease=5m".to_owned()),
    }
}

/// What happens when no more output can be kept.
pub fn on_full(text: &str) -> Result<OnFull, String> {
    match text {
        "block" => Ok(OnFull::Block),
        "discard-oldest" => Ok(OnFull::DiscardOldest),
        _ => Err("known are block and discard-oldest".to_owned()),
    }
}

/// A signal by name or number, in any case.
pub fn signal(text: &str) -> Result<Signal, String> {
    text.to_ascii_uppercase()
        .parse()
        .map_err(|()| "no such signal; they are written TERM, SIGTERM or 15".to_owned())
}

/// A word as it has to be typed for a shell.
pub fn quoted(word: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "@%+=:,./-_[]".contains(c);
    if !word.is_empty() && word.chars().all(is_plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', "'\\''"))
}

/// A variable for the command; `None` for its value means that of this process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Variable {
    /// The part before the first `=`.
    pub name: OsString,
    /// The part after it.
    pub value: Option<OsString>,
}

impl Variable {
    /// Takes `NAME=VALUE` or `NAME` apart.
    pub fn parse(text: OsString) -> Result<Self, String> {
        let bytes = text.as_bytes();
        let (name, value) = match bytes.iter().position(|byte| *byte == b'=') {
            Some(at) => {
                let (name, value) = bytes.split_at(at);
                (name, value.get(1..))
            }
            None => (bytes, None),
        };
        if name.is_empty() {
            return Err("a variable is written NAME=VALUE, or NAME for its value here".to_owned());
        }
        let own = |bytes: &[u8]| OsString::from_vec(bytes.to_vec());
        Ok(Self { name: own(name), value: value.map(own) })
    }

    /// The pair to send; `None` if the value is that of this process, and this has none.
    pub fn resolve(self) -> Option<(OsString, OsString)> {
        let value = self.value.or_else(|| env::var_os(&self.name))?;
        Some((self.name, value))
    }
}

/// How much to say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogLevel {
    /// Errors only.
    Quiet,
    /// What a user needs to know.
    Normal,
    /// As with this many `-v`.
    Verbose(u8),
}

/// One `-o KEY=VALUE`, those of ssh's that have a meaning here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SshOption {
    /// `User`.
    User(String),
    /// `Port`.
    Port(u16),
    /// `ConnectTimeout`.
    ConnectTimeout(Duration),
    /// `ConnectionAttempts`.
    ConnectionAttempts(u32),
    /// `ServerAliveInterval`.
    ServerAliveInterval(Duration),
    /// `HostKeyAlias`.
    HostKeyAlias(String),
    /// `IdentityFile`.
    IdentityFile(PathBuf),
    /// `SetEnv`: one or more `NAME=VALUE`, separated by blanks; double quotes hold one together.
    SetEnv(Vec<Variable>),
    /// `LogLevel`.
    LogLevel(LogLevel),
}

impl SshOption {
    /// Takes `KEY=VALUE` or `KEY VALUE`, the key in any case.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (key, value) = text
            .split_once(|c: char| c == '=' || c.is_whitespace())
            .ok_or("it is written KEY=VALUE")?;
        let value = value.trim_start_matches(|c: char| c == '=' || c.is_whitespace()).trim_end();
        if value.is_empty() {
            return Err(format!("'{key}' needs a value"));
        }
        match key.to_ascii_lowercase().as_str() {
            "user" => Ok(Self::User(value.to_owned())),
            "port" => port(value).map(Self::Port),
            "connecttimeout" => duration(value).map(Self::ConnectTimeout),
            "connectionattempts" => attempts(value).map(Self::ConnectionAttempts),
            "serveraliveinterval" => duration(value).map(Self::ServerAliveInterval),
            "hostkeyalias" => Ok(Self::HostKeyAlias(value.to_owned())),
            "identityfile" => Ok(Self::IdentityFile(value.into())),
            "setenv" => set_env(value).map(Self::SetEnv),
            "loglevel" => log_level(value).map(Self::LogLevel),
            _ => Err(format!(
                "'{key}' is not known; known are User, Port, ConnectTimeout, ConnectionAttempts, \
                 ServerAliveInterval, HostKeyAlias, IdentityFile, SetEnv and LogLevel"
            )),
        }
    }
}

/// A port, which is never 0.
pub fn port(text: &str) -> Result<u16, String> {
    match text.parse() {
        Ok(port) if port > 0 => Ok(port),
        _ => Err("a port is a number from 1 to 65535".to_owned()),
    }
}

/// How often to try, at least once.
pub(crate) fn attempts(text: &str) -> Result<u32, String> {
    match text.parse() {
        Ok(attempts) if attempts > 0 => Ok(attempts),
        _ => Err("it is a number from 1".to_owned()),
    }
}

pub(crate) fn log_level(text: &str) -> Result<LogLevel, String> {
    Ok(match text.to_ascii_lowercase().as_str() {
        "quiet" | "fatal" | "error" => LogLevel::Quiet,
        "info" => LogLevel::Normal,
        "verbose" => LogLevel::Verbose(1),
        "debug" | "debug1" => LogLevel::Verbose(2),
        "debug2" | "debug3" => LogLevel::Verbose(3),
        _ => {
            return Err(
                "known are QUIET, FATAL, ERROR, INFO, VERBOSE, DEBUG, DEBUG1 to DEBUG3".to_owned()
            );
        }
    })
}

/// The variables of `SetEnv`.
pub(crate) fn set_env(text: &str) -> Result<Vec<Variable>, String> {
    words(text)?
        .into_iter()
        .map(|word| match Variable::parse(word.into())? {
            variable @ Variable { value: Some(_), .. } => Ok(variable),
            variable => Err(format!("'{}' has no value", variable.name.display())),
        })
        .collect()
}

/// Words separated by blanks; double quotes hold one together.
pub(crate) fn words(text: &str) -> Result<Vec<String>, String> {
    let mut words = Vec::new();
    let mut word = String::new();
    let mut quoted = false;
    for c in text.chars() {
        match c {
            '"' => quoted = !quoted,
            c if c.is_whitespace() && !quoted => words.push(std::mem::take(&mut word)),
            c => word.push(c),
        }
    }
    if quoted {
        return Err("a '\"' is not closed".to_owned());
    }
    words.push(word);
    words.retain(|word| !word.is_empty());
    Ok(words)
}

/// What begins an escape; `None`: nothing does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EscapeKey(pub Option<u8>);

/// `none`, a character, or `^X`.
pub fn escape(text: &str) -> Result<EscapeKey, String> {
    match text.as_bytes() {
        b"none" => Ok(EscapeKey(None)),
        [key] => Ok(EscapeKey(Some(*key))),
        [b'^', key @ b'@'..=b'_'] => Ok(EscapeKey(Some(key & 0x1f))),
        [b'^', key @ b'a'..=b'z'] => Ok(EscapeKey(Some(key & 0x1f))),
        _ => Err("it is one character, ^X for Ctrl-X, or none".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        for (text, ms) in
            [("30s", 30_000), ("5m", 300_000), ("10", 10_000), ("0.5", 500), ("1m 1s", 61_000)]
        {
            assert_eq!(duration(text), Ok(Duration::from_millis(ms)), "{text}");
        }
        for bad in ["", "0", "0s", "-1", "soon", "1 parsec", "inf", "NaN"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
        for (bad, why) in [
            ("5x", FORM),
            ("s", FORM),
            ("NaN", FORM),
            ("inf", TOO_LONG),
            ("99999999999999999999d", TOO_LONG),
        ] {
            assert_eq!(duration(bad), Err(why.to_owned()), "{bad}");
        }
        for zero in ["0", "0s", "0m", " 0 "] {
            assert_eq!(duration_or_zero(zero), Ok(Duration::ZERO), "{zero}");
        }
        assert_eq!(duration_or_zero("10"), Ok(Duration::from_secs(10)));
        for bad in ["", "-1", "0 parsec 1", "soon", "s"] {
            assert!(duration_or_zero(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_becomes_of_a_job() {
        assert_eq!(on_disconnect("kill"), Ok(OnDisconnect::Kill {}));
        assert_eq!(on_disconnect("keep"), Ok(OnDisconnect::Keep {}));
        assert_eq!(on_disconnect("lease=5m"), Ok(OnDisconnect::Lease { ms: 300_000 }));
        for bad in ["", "Kill", "lease", "lease=", "lease=0", "keep=1m", "lease=soon"] {
            assert!(on_disconnect(bad).is_err(), "{bad}");
        }
        assert_eq!(on_full("discard-oldest"), Ok(OnFull::DiscardOldest));
        assert!(on_full("discard").unwrap_err().contains("block"));
        assert_eq!(signal("term"), Ok(Signal::TERM));
        assert_eq!(signal("SigKill"), Ok(Signal::KILL));
        assert!(signal("MAYBE").unwrap_err().contains("SIGTERM"));
        assert!(job_id("deploy-2026-11-22-web1").is_ok());
        assert!(job_id("a b").unwrap_err().contains("128"));
    }

    #[test]
    fn places_in_the_output() {
        assert_eq!(since("0"), Ok(Since::Offset(0)));
        assert_eq!(since("4096"), Ok(Since::Offset(4096)));
        assert_eq!(since("10m"), Ok(Since::Ago(Duration::from_secs(600))));
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        for text in ["2023-11-14T22:13:20Z", "2023-11-14 22:13:20"] {
            assert_eq!(since(text), Ok(Since::Time(time)), "{text}");
        }
        for bad in ["", "-1", "1.5", "yesterday", "10 parsecs"] {
            assert!(since(bad).unwrap_err().contains("UTC"), "{bad}");
        }
    }

    #[test]
    fn words_are_quoted_for_a_shell() {
        for (word, shown) in [
            ("web1:99", "web1:99"),
            ("a b", "'a b'"),
            ("it's", "'it'\\''s'"),
            ("", "''"),
            ("$x", "'$x'"),
        ] {
            assert_eq!(quoted(word), shown);
        }
    }

    #[test]
    fn variables_are_bytes() {
        let raw = OsString::from_vec(b"K=a=\xff".to_vec());
        let parsed = Variable::parse(raw).unwrap();
        assert_eq!(
            (parsed.name, parsed.value),
            ("K".into(), Some(OsString::from_vec(b"a=\xff".to_vec())))
        );
        assert_eq!(Variable::parse("K".into()).unwrap().value, None);
        assert_eq!(Variable::parse("K=".into()).unwrap().value, Some(OsString::new()));
        assert!(Variable::parse("=x".into()).is_err());
        assert!(Variable::parse("PATH".into()).unwrap().resolve().is_some());
    }

    #[test]
    fn ssh_options() {
        let ok = |text| SshOption::parse(text).unwrap();
        assert_eq!(ok("Port=99"), SshOption::Port(99));
        assert_eq!(ok("port 99"), SshOption::Port(99));
        assert_eq!(ok("USER = bob"), SshOption::User("bob".to_owned()));
        assert_eq!(ok("ConnectTimeout=3"), SshOption::ConnectTimeout(Duration::from_secs(3)));
        assert_eq!(ok("loglevel=ERROR"), SshOption::LogLevel(LogLevel::Quiet));
        let SshOption::SetEnv(variables) = ok("SetEnv=A=1 B=\"two words\"") else { panic!() };
        assert_eq!(variables.len(), 2);
        assert_eq!(variables[1].value, Some("two words".into()));
        for bad in ["Port", "Port=", "Port=0", "SetEnv=A", "SetEnv=A=\"x", "LogLevel=loud"] {
            assert!(SshOption::parse(bad).is_err(), "{bad}");
        }
        assert!(SshOption::parse("ProxyJump=x").unwrap_err().contains("ConnectTimeout"));
    }
}
