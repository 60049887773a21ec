//! What is on record. `docs/audit.md` lists every event and field for those who read the log.
//!
//! What a peer sent gets into a record as [`Text`] only. Values of environment variables and stdin
//! have no field.

use super::text::{Text, words};
use crate::connect;
use crate::policy::Permit;
use rexec_net::Identity;
use rexec_protocol::message::{Command, ExecSpec, Exit, Usage};
use rexec_protocol::stream::Tally;
use rexec_protocol::{Algorithm, Digest, JobId, Outcome, RoomName};
use serde::{Serialize, Serializer};
use std::net::SocketAddr;
use std::os::unix::ffi::OsStrExt;

/// Room for the words of a command, and for the names of its variables, in bytes of JSON. With the
/// groups (64 names of 128 bytes) and two short texts a record stays below 64 KiB.
const ARGV: usize = 32 * 1024;
const ENV_NAMES: usize = 1024;
/// A folder, which may be as long as the one that asks wants it.
const FOLDER: usize = 512;

/// One event.
#[derive(Debug, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
#[allow(missing_docs, reason = "docs/audit.md is the reference of the fields")]
pub enum Event<'a> {
    /// The agent accepts connections from now on.
    AgentStarted { version: &'static str, pid: u32 },
    /// The agent ended in good order.
    AgentStopped,
    /// A client proved who it is.
    Connected {
        #[serde(flatten)]
        caller: Caller<'a>,
        groups: &'a [String],
    },
    /// A client did not get in.
    Refused { from: SocketAddr, reason: Text },
    /// A client that was in is gone.
    Disconnected {
        #[serde(flatten)]
        caller: Caller<'a>,
        reason: Text,
    },
    /// Policy said no.
    Denied {
        job: &'a JobId,
        #[serde(flatten)]
        caller: Caller<'a>,
        #[serde(rename = "as")]
        run_as: Option<Text>,
        #[serde(flatten)]
        what: What,
        rule: Option<Text>,
        reason: Text,
    },
    /// A command was not started for another reason.
    Rejected {
        job: Option<&'a JobId>,
        #[serde(flatten)]
        caller: Caller<'a>,
        reason: Text,
    },
    /// A command is about to be started.
    Exec {
        job: &'a JobId,
        #[serde(flatten)]
        caller: Caller<'a>,
        groups: &'a [String],
        #[serde(rename = "as")]
        run_as: &'a str,
        #[serde(flatten)]
        what: What,
        cwd: Option<Text>,
        env_names: Vec<Text>,
        rule: Text,
        /// Where the connection comes from that it takes.
        #[serde(skip_serializing_if = "Option::is_none")]
        peer: Option<SocketAddr>,
        /// What was asked for, if the rule's forced command runs in its place.
        #[serde(skip_serializing_if = "Option::is_none")]
        asked: Option<Text>,
    },
    /// What became of it.
    Ended {
        job: &'a JobId,
        user: &'a str,
        pid: Option<u32>,
        outcome: Told,
        stdout: Counted,
        stderr: Counted,
        stdin: Counted,
        held: bool,
        usage: Usage,
    },
    /// A job has opened this port.
    Listening { job: &'a JobId, user: &'a str, port: u16 },
    /// The job of an agent that is gone runs on under this one.
    Adopted { job: &'a JobId, user: &'a str, pid: u32 },
    /// A client came to a job that was there; without `control` it can only watch. Who comes too often is
    /// not on record each time.
    Attached {
        job: &'a JobId,
        #[serde(flatten)]
        caller: Caller<'a>,
        control: bool,
        /// What of this identity is not on record before this.
        #[serde(flatten)]
        left_out: LeftOut,
    },
    /// So much of how often an identity came to jobs is not on record: a connection of it has ended, or the agent
    /// does.
    AttachesLeftOut {
        user: &'a str,
        #[serde(flatten)]
        left_out: LeftOut,
    },
    /// A client had an ended job forgotten, with its output.
    Removed {
        job: &'a JobId,
        #[serde(flatten)]
        caller: Caller<'a>,
    },
    /// A client came into a room. What is said there is not on record.
    Joined {
        room: &'a RoomName,
        #[serde(flatten)]
        caller: Caller<'a>,
        member: u64,
    },
    /// A client told everybody something.
    Wall {
        #[serde(flatten)]
        caller: Caller<'a>,
        text: Text,
        rooms: u64,
        connections: u64,
    },
    /// Something is about to be done on the agent's console; `refused`: why it is not.
    Console {
        user: &'a str,
        uid: u32,
        words: Vec<Text>,
        #[serde(skip_serializing_if = "Option::is_none")]
        refused: Option<Text>,
    },
    /// A new version of a file is in force.
    Reloaded { what: &'a str },
    /// A new version of a file cannot be used; the one in force stays.
    ReloadFailed { what: &'a str, reason: Text },
    /// This file goes on where another ended; `None`: somebody else took that one away.
    Rotated { previous: Option<String> },
    /// So many bytes before this line are what a crash left of a record.
    Recovered { torn_bytes: u64 },
    /// The log could not be written for a while, or not as fast as there was something to say.
    Resumed { unavailable_ms: u64, dropped: u64, reason: Text },
}

/// How often an identity came to jobs without being on record each time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct LeftOut {
    /// In all.
    #[serde(skip_serializing_if = "is_zero")]
    pub left_out: u64,
    /// Those with which it could do more than watch.
    #[serde(skip_serializing_if = "is_zero")]
    pub left_out_control: u64,
}

/// Who, from where, with which certificate.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Caller<'a> {
    user: &'a str,
    from: SocketAddr,
    #[serde(serialize_with = "shown")]
    fingerprint: Digest,
}

/// A command, as words.
#[derive(Debug, Serialize)]
pub struct What {
    argv: Vec<Text>,
    /// The text of a script that was sent along.
    #[serde(skip_serializing_if = "Option::is_none")]
    script: Option<Counted>,
    /// It is a transfer of files, and the words only say which.
    #[serde(skip_serializing_if = "is_false")]
    transfer: bool,
    /// It is a connection or a port, and the words only say which.
    #[serde(skip_serializing_if = "is_false")]
    connection: bool,
    /// It is a login shell.
    #[serde(skip_serializing_if = "is_false")]
    login: bool,
    /// It has a terminal.
    #[serde(skip_serializing_if = "is_false")]
    terminal: bool,
}

fn is_false(flag: &bool) -> bool {
    !flag
}

fn is_zero(n: &u64) -> bool {
    *n == 0
}

/// A byte stream by its size and digest.
#[derive(Debug, Serialize)]
pub struct Counted {
    bytes: u64,
    digest: String,
}

/// An outcome whose words are harmless.
#[derive(Debug, Serialize)]
#[serde(transparent)]
pub struct Told(Outcome);

impl<'a> Caller<'a> {
    /// A peer, and where it is.
    pub fn new(identity: &'a Identity, from: SocketAddr) -> Self {
        Self { user: identity.name(), from, fingerprint: identity.fingerprint() }
    }
}

impl<'a> Event<'a> {
    /// A command that policy allowed.
    pub fn exec(
        job: &'a JobId,
        identity: &'a Identity,
        from: SocketAddr,
        permit: &'a Permit,
        peer: Option<SocketAddr>,
    ) -> Self {
        let (spec, account) = (permit.spec(), permit.account());
        let names = spec.env.iter().map(|(name, _)| name.as_slice());
        Self::Exec {
            job,
            caller: Caller::new(identity, from),
            groups: identity.groups(),
            run_as: &account.name,
            what: What::of(spec, account.shell.as_os_str().as_bytes()),
            cwd: spec.cwd.as_ref().map(|cwd| Text::up_to(FOLDER, cwd)),
            env_names: words(names, ENV_NAMES),
            rule: Text::of(permit.rule()),
            peer,
            asked: permit.original().map(Text::of),
        }
    }

    /// A command that policy did not allow. Its login shell, if it has one, is not known then.
    pub fn denied(
        job: &'a JobId,
        caller: Caller<'a>,
        spec: &ExecSpec,
        rule: Option<&str>,
        reason: &str,
    ) -> Self {
        Self::Denied {
            job,
            caller,
            run_as: spec.user.as_ref().map(Text::of),
            what: What::of(spec, b"SHELL"),
            rule: rule.map(Text::of),
            reason: Text::of(reason),
        }
    }

    /// The end of a command; its streams were digested by `algorithm`.
    pub fn ended(
        job: &'a JobId,
        user: &'a str,
        pid: Option<u32>,
        exit: &Exit,
        algorithm: Algorithm,
    ) -> Self {
        let count =
            |Tally { size, hash }| Counted { bytes: size, digest: format!("{algorithm}:{hash}") };
        Self::Ended {
            job,
            user,
            pid,
            outcome: Told::of(&exit.outcome),
            stdout: count(exit.stdout),
            stderr: count(exit.stderr),
            stdin: count(exit.stdin),
            held: exit.held,
            usage: exit.usage,
        }
    }
}

impl What {
    fn of(spec: &ExecSpec, shell: &[u8]) -> Self {
        let mut script = None;
        let transferred;
        let connected = connect::words(&spec.command);
        let argv: Vec<&[u8]> = match &spec.command {
            Command::Files(request) => {
                transferred = request.words();
                transferred.iter().map(AsRef::as_ref).collect()
            }
            Command::Argv(argv) => argv.iter().map(|word| word.as_slice()).collect(),
            Command::Line(line) => vec![shell, b"-c", line],
            Command::Login {} => vec![shell],
            Command::Subsystem(name) => vec![name.as_bytes()],
            Command::Connect { .. } | Command::Listen { .. } | Command::Accept { .. } => {
                connected.iter().flatten().map(String::as_bytes).collect()
            }
            Command::Script { text, args } => {
                let hash = Digest::of(Algorithm::Sha256, text);
                let digest = format!("{}:{hash}", Algorithm::Sha256);
                script = Some(Counted { bytes: text.len() as u64, digest });
                let args = args.iter().map(|word| word.as_slice());
                std::iter::once(b"script".as_slice()).chain(args).collect()
            }
        };
        Self {
            argv: words(argv.into_iter(), ARGV),
            script,
            transfer: matches!(spec.command, Command::Files(_)),
            connection: connected.is_some(),
            login: matches!(spec.command, Command::Login {}),
            terminal: spec.terminal.is_some(),
        }
    }
}

impl Told {
    fn of(outcome: &Outcome) -> Self {
        use rexec_protocol::outcome::printable;
        let mut outcome = outcome.clone();
        if let Outcome::NeverStarted { message, .. }
        | Outcome::Denied { message }
        | Outcome::Lost { message } = &mut outcome
        {
            *message = printable(message);
        }
        Self(outcome)
    }
}

fn shown<S: Serializer>(digest: &Digest, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(digest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_bytes::ByteBuf;

    #[test]
    fn a_line_is_the_words_that_the_shell_gets() {
        let line = Command::Line(ByteBuf::from("echo \"$HOME\"\n"));
        let what = What::of(&ExecSpec::new(line), b"/bin/sh");
        let json = serde_json::to_string(&what).unwrap();
        assert_eq!(json, r#"{"argv":["/bin/sh","-c","echo \"$HOME\"\\u{a}"]}"#);
    }

    #[test]
    fn a_script_is_told_by_its_digest() {
        let (text, args) = (ByteBuf::from("password=secret"), vec![ByteBuf::from("x")]);
        let script = Command::Script { text, args };
        let what = What::of(&ExecSpec::new(script), b"/bin/sh");
        let json = serde_json::to_string(&what).unwrap();
        assert!(
            json.starts_with(r#"{"argv":["script","x"],"script":{"bytes":15,"digest":"sha256:"#),
            "{json}"
        );
        assert!(!json.contains("secret"));
    }

    #[test]
    fn ports_and_who_takes_their_connections_are_told_apart() {
        let job = JobId::new("listens").unwrap();
        for (command, argv) in [
            (Command::Connect { host: "db".to_owned(), port: 5432 }, r#"["connect","db","5432"]"#),
            (Command::Listen { host: "*".to_owned(), port: 0 }, r#"["listen","*","0"]"#),
            (Command::Accept { job, number: 7 }, r#"["accept","listens","7"]"#),
        ] {
            let what = What::of(&ExecSpec::new(command), b"/bin/sh");
            let json = serde_json::to_string(&what).unwrap();
            assert_eq!(json, format!(r#"{{"argv":{argv},"connection":true}}"#));
        }
        let program = Command::Argv(["listen", "*", "0"].map(ByteBuf::from).to_vec());
        let json = serde_json::to_string(&What::of(&ExecSpec::new(program), b"/bin/sh")).unwrap();
        assert_eq!(json, r#"{"argv":["listen","*","0"]}"#);
    }

    #[test]
    fn words_of_an_outcome_are_harmless() {
        let outcome = Outcome::Denied { message: "a\u{202e}b\u{85}".to_owned() };
        let json = serde_json::to_string(&Told::of(&outcome)).unwrap();
        assert_eq!(json, r#"{"kind":"denied","message":"a\\u{202e}b\\u{85}"}"#);
    }

    #[test]
    fn a_record_has_a_size_limit_whatever_was_asked_for() {
        let words = vec![ByteBuf::from(vec![0xff; 100_000]); 4];
        let mut spec = ExecSpec::new(Command::Argv(words));
        spec.user = Some("\u{202e}".repeat(10_000));
        let job = JobId::new("job").unwrap();
        let from = SocketAddr::from(([127, 0, 0, 1], 1));
        let fingerprint = Digest::of(Algorithm::Sha256, b"");
        let caller = Caller { user: "alice", from, fingerprint };
        let denied = Event::denied(&job, caller, &spec, None, &"\n".repeat(10_000));
        let json = serde_json::to_string(&denied).unwrap();
        assert!(json.len() < 64 * 1024, "{}", json.len());
        assert!(json.matches("\\\\cut{").count() == 3, "{json}");
    }
}
