//! What is written down of a job: who submitted what, and how it ended.
//!
//! JSON, so that whoever looks into the agent's state folder can read it, with digests in
//! hexadecimal. Unknown keys are skipped: an older agent may find what a newer one wrote.

use rexec_net::Identity;
use rexec_protocol::message::{Command, Exit, OnDisconnect, OnFull, TerminalSize, Usage};
use rexec_protocol::stream::Tally;
use rexec_protocol::{Algorithm, Digest, JobId, Outcome};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Who submitted a job, for policy to ask about. That somebody is this is what an [`Identity`]
/// proves; this proves nothing, and outlives the connection and the agent.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Owner {
    /// The user's name, or a SPIFFE id.
    pub name: String,
    /// The groups in the certificate.
    pub groups: Vec<String>,
}

impl From<&Identity> for Owner {
    fn from(identity: &Identity) -> Self {
        Self { name: identity.name().to_owned(), groups: identity.groups().to_vec() }
    }
}

/// The port that a job opens, as its submitter has named it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Port {
    /// The name or address of this machine, or `*`.
    pub host: String,
    /// The number; 0: one that is free.
    pub port: u16,
}

impl Port {
    /// That of a command which listens.
    pub fn of(command: &Command) -> Option<Self> {
        match command {
            Command::Listen { host, port } => Some(Self { host: host.clone(), port: *port }),
            _ => None,
        }
    }
}

/// All that another agent process needs to know of a job, beside its output.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Meta {
    /// Its id.
    pub job: JobId,
    /// Who submitted it.
    pub owner: Owner,
    /// The local user it runs as.
    pub user: String,
    /// The digest of the request.
    #[serde(with = "hexadecimal")]
    pub body: Digest,
    /// The digest function of its streams.
    #[serde(rename = "digest")]
    pub algorithm: Algorithm,
    /// The command, for people.
    pub command: String,
    /// When it was submitted, in milliseconds since 1970, UTC.
    pub begun_ms: u64,
    /// The id is the caller's own.
    #[serde(default)]
    pub durable: bool,
    /// The client chose the id, and acknowledges what it has.
    #[serde(default)]
    pub resumable: bool,
    /// It goes on without a client, and its output is kept.
    #[serde(default)]
    pub kept: bool,
    /// What becomes of it when its client is gone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_disconnect: Option<OnDisconnect>,
    /// What happens when its output reaches a limit.
    #[serde(default)]
    pub on_full: OnFull,
    /// Its stdin is sent by its client.
    #[serde(default)]
    pub stdin: bool,
    /// It has a terminal.
    #[serde(default)]
    pub terminal: bool,
    /// The size of that at its start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub terminal_size: Option<TerminalSize>,
    /// It is a connection, or a port.
    #[serde(default)]
    pub connection: bool,
    /// The port that it opens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub listens: Option<Port>,
    /// The number of that port, which is on record.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub listening: Option<u16>,
    /// The boot id of the system that it was started in.
    #[serde(default)]
    pub boot: String,
}

/// How a job ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct End {
    /// The command's process; 0 if it is not known.
    #[serde(default)]
    pub pid: u32,
    /// When, in milliseconds since 1970, UTC.
    pub ended_ms: u64,
    /// With which outcome and how much output.
    #[serde(flatten)]
    pub exit: Ending,
}

/// An [`Exit`], readable.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ending {
    outcome: Outcome,
    stdout: Sum,
    stderr: Sum,
    stdin: Sum,
    held: bool,
    usage: Usage,
}

/// A [`Tally`], readable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Sum(u64, #[serde(with = "hexadecimal")] Digest);

impl From<Tally> for Sum {
    fn from(Tally { size, hash }: Tally) -> Self {
        Self(size, hash)
    }
}

impl From<Sum> for Tally {
    fn from(Sum(size, hash): Sum) -> Self {
        Self { size, hash }
    }
}

impl From<&Exit> for Ending {
    fn from(exit: &Exit) -> Self {
        Self {
            outcome: exit.outcome.clone(),
            stdout: exit.stdout.into(),
            stderr: exit.stderr.into(),
            stdin: exit.stdin.into(),
            held: exit.held,
            usage: exit.usage,
        }
    }
}

impl From<Ending> for Exit {
    fn from(Ending { outcome, stdout, stderr, stdin, held, usage }: Ending) -> Self {
        let (stdout, stderr, stdin) = (stdout.into(), stderr.into(), stdin.into());
        Self { outcome, stdout, stderr, stdin, held, usage, unknown: false }
    }
}

/// A digest as 64 hexadecimal digits.
pub mod hexadecimal {
    use super::*;

    /// Writes one.
    pub fn serialize<S: Serializer>(digest: &Digest, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(digest)
    }

    /// Reads one.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Digest, D::Error> {
        let text = String::deserialize(deserializer)?;
        parse(&text).ok_or_else(|| de::Error::custom("not a digest"))
    }

    fn parse(text: &str) -> Option<Digest> {
        let mut bytes = [0; 32];
        if text.len() != 64 || !text.bytes().all(|c| c.is_ascii_hexdigit()) {
            return None;
        }
        for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().as_chunks::<2>().0) {
            *byte = u8::from_str_radix(str::from_utf8(pair).ok()?, 16).ok()?;
        }
        Some(bytes.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_can_be_read_again() {
        let meta = Meta {
            job: JobId::new("deploy-1").unwrap(),
            owner: Owner { name: "alice".to_owned(), groups: vec!["ops".to_owned()] },
            user: "deploy".to_owned(),
            body: Digest::of(Algorithm::Sha256, b"request"),
            algorithm: Algorithm::Blake3,
            command: "make all".to_owned(),
            begun_ms: 1,
            durable: true,
            resumable: true,
            kept: true,
            on_disconnect: Some(OnDisconnect::Lease { ms: 5 }),
            on_full: OnFull::DiscardOldest,
            stdin: false,
            terminal: false,
            terminal_size: None,
            connection: true,
            listens: Some(Port { host: "*".to_owned(), port: 0 }),
            listening: Some(8080),
            boot: "0".to_owned(),
        };
        let text = serde_json::to_string(&meta).unwrap();
        assert!(text.contains(&meta.body.to_string()), "{text}");
        assert_eq!(serde_json::from_str::<Meta>(&text).unwrap(), meta);
        let exit = Exit::of_nothing(Outcome::Exited { code: 7 }, Algorithm::Sha256);
        let end = End { pid: 3, ended_ms: 2, exit: Ending::from(&exit) };
        let text = serde_json::to_string(&end).unwrap();
        let back: End = serde_json::from_str(&text).unwrap();
        assert_eq!(Exit::from(back.exit), exit);
    }
}
