use super::data::Channel;
use crate::bounded::{MAX_VARIABLES, MAX_WORDS, up_to};
use crate::digest::Algorithm;
use crate::files::FilesRequest;
use crate::ids::JobId;
use crate::outcome::{printable, shorten};
use rexec_guard::holds;
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;
use std::fmt;
use std::net::IpAddr;

/// Opens a stream and asks for a command to be run; the frame's body is an [`ExecSpec`].
///
/// Sent again with the same job and the same body, it runs nothing a second time: it attaches to the
/// job that is there. That is how a client resumes after a cut, and why a retry is safe.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exec {
    /// How many bytes of stdout and stderr together the agent may send before it hears of a
    /// `window`; at least [`crate::frame::MAX_DATA`].
    pub window: u64,
    /// The digest of all three byte streams. `None`: whichever the agent takes of those that both have,
    /// as `started` says; the client sends no stdin before that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<Algorithm>,
    /// The id of this submission; the agent makes one if there is none, and then nothing can be
    /// resumed before `started` has told it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<JobId>,
    /// The id was chosen by the caller and outlives this process: the agent has it on its disk
    /// before it starts anything.
    #[serde(default, skip_serializing_if = "is_false")]
    pub durable: bool,
    /// How long ago this was first sent, on a connection that has ended, in milliseconds by the
    /// client's clock; absent the first time. An agent that knows nothing of the job starts it only
    /// if it has served, and forgotten no job, since before then. Otherwise it answers `lost`: the
    /// command may have run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub age_ms: Option<u64>,
    /// The client does not stay: the stream ends with `detach` once the command runs.
    #[serde(default, skip_serializing_if = "is_false")]
    pub detach: bool,
    /// How much output the client has already.
    #[serde(default, skip_serializing_if = "Offsets::is_start")]
    pub have: Offsets,
}

impl Exec {
    /// The `age_ms` of one that was answered with `started`: whatever an agent knows, it is not to start
    /// it again.
    pub const STARTED: u64 = u64::MAX;

    /// A submission without an id, whose client stays.
    pub fn new(window: u64, digest: impl Into<Option<Algorithm>>) -> Self {
        Self {
            window,
            digest: digest.into(),
            job: None,
            durable: false,
            age_ms: None,
            detach: false,
            have: Offsets::default(),
        }
    }
}

/// A place in each of the two output channels, in bytes from their start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Offsets {
    /// Of stdout.
    pub out: u64,
    /// Of stderr.
    pub err: u64,
}

impl Offsets {
    /// Whether this is the start of both.
    pub fn is_start(&self) -> bool {
        *self == Self::default()
    }

    /// The place in an output channel.
    pub fn of(&self, channel: Channel) -> u64 {
        if channel == Channel::Err { self.err } else { self.out }
    }

    /// The same, to be changed.
    pub fn of_mut(&mut self, channel: Channel) -> &mut u64 {
        if channel == Channel::Err { &mut self.err } else { &mut self.out }
    }
}

/// The longest host of a connection, in bytes: no name in the DNS is longer (RFC 1035, section 2.3.4).
const MAX_HOST: usize = 255;

/// What to run and how. Words, names and paths are bytes, as the kernel takes them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecSpec {
    /// The command.
    pub command: Command,
    /// The local user to run as; the agent's policy decides. `None`: the agent's default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Variables to add to the environment that the agent builds.
    #[serde(
        default,
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "up_to::<_, _, MAX_VARIABLES>"
    )]
    pub env: Vec<(ByteBuf, ByteBuf)>,
    /// The working directory; `None`: the user's home.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cwd: Option<ByteBuf>,
    /// End the command after this long.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
    /// Whether stdin will be sent; otherwise it is `/dev/null`.
    #[serde(default)]
    pub stdin: bool,
    /// What becomes of the command when its client is gone; `None`: the agent's default, a lease of
    /// a minute if it fell silent, and of ten seconds if its system closed the connection.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_disconnect: Option<OnDisconnect>,
    /// What happens when the output that is kept reaches its limit.
    #[serde(default, skip_serializing_if = "OnFull::is_default")]
    pub on_full: OnFull,
    /// Run it on a terminal; then all its output is `out`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub terminal: Option<Terminal>,
    /// How long the output is waited for once the command has ended.
    #[serde(default, skip_serializing_if = "Drain::is_default")]
    pub drain: Drain,
    /// Whether it finds in its environment what sshd puts there: `SSH_CONNECTION`, `SSH_CLIENT`, and
    /// `SSH_ORIGINAL_COMMAND` where another command takes its place.
    #[serde(default, skip_serializing_if = "is_false")]
    pub ssh_env: bool,
}

/// What becomes of a command whose client is gone without having said what it wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnDisconnect {
    /// End it, with all it has started.
    Kill {},
    /// End it unless a client comes back within this time.
    Lease {
        /// In milliseconds.
        ms: u64,
    },
    /// Let it run; its output is kept.
    Keep {},
}

/// What happens when the kept output of a job reaches its limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnFull {
    /// The command waits.
    #[default]
    Block,
    /// The oldest output is dropped; who reads it later is told of the gap.
    DiscardOldest,
}

impl OnFull {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// How long the output of a command is waited for that has ended, while something that it left behind
/// holds it open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Drain {
    /// For as long as the agent finds right: a few seconds.
    #[default]
    Bounded,
    /// To its end, as sshd does.
    Wait,
}

impl Drain {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// The terminal a command is to have.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Terminal {
    /// The value of `TERM`.
    pub term: ByteBuf,
    /// Its size.
    pub size: TerminalSize,
    /// The language and characters of who sits at it: `LANG` and `LC_…`. They come with the
    /// terminal; an agent leaves out what [`is_locale`] refuses.
    #[serde(
        default,
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "up_to::<_, _, MAX_VARIABLES>"
    )]
    pub locale: Vec<(ByteBuf, ByteBuf)>,
}

/// Whether a variable may come with a terminal: a name that setlocale(3) reads, and a value that
/// names a locale and cannot be a path.
pub fn is_locale(name: &[u8], value: &[u8]) -> bool {
    let is_category = |rest: &[u8]| !rest.is_empty() && rest.iter().all(u8::is_ascii_uppercase);
    let is_name = name == b"LANG" || name.strip_prefix(b"LC_").is_some_and(is_category);
    let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"_.@-".contains(byte);
    is_name && !value.is_empty() && value.len() <= 64 && value.iter().all(is_plain)
}

/// The size of a terminal; see ioctl_tty(2), `TIOCSWINSZ`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct TerminalSize {
    /// Characters in a line.
    pub columns: u16,
    /// Lines.
    pub rows: u16,
    /// Pixels in a line; 0 if not known.
    #[serde(default)]
    pub width: u16,
    /// Pixels in a column; 0 if not known.
    #[serde(default)]
    pub height: u16,
}

/// The forms of a command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Command {
    /// Words that reach `execve` as they are. The first is looked up in the command's `PATH` unless
    /// it holds a slash.
    Argv(#[serde(deserialize_with = "up_to::<_, _, MAX_WORDS>")] Vec<ByteBuf>),
    /// A line for the user's login shell: `SHELL -c LINE`.
    Line(ByteBuf),
    /// A program sent along, run by its `#!` line or, without one, by `/bin/sh`.
    Script {
        /// The file's contents.
        text: ByteBuf,
        /// The words after the script's own name.
        #[serde(deserialize_with = "up_to::<_, _, MAX_WORDS>")]
        args: Vec<ByteBuf>,
    },
    /// The user's login shell, as login(1) starts it: with a `-` before its name, and no words.
    Login {},
    /// The line for the login shell that the agent's configuration has under this name.
    Subsystem(String),
    /// A transfer of files, which the agent's own program carries out; see [`crate::files`].
    Files(FilesRequest),
    /// A TCP connection from the agent's machine: stdin goes there, stdout comes from there.
    Connect {
        /// A name or an address, as that machine knows it.
        host: String,
        /// The port there.
        port: u16,
    },
    /// A port of the agent's machine: stdout says which, and who connects to it; see
    /// [`Said`](crate::listen::Said). It lasts until stdin ends.
    Listen {
        /// A name or an address of that machine, or `*`: all that it has.
        host: String,
        /// The port there; 0: one that is free.
        port: u16,
    },
    /// A connection that a [`Command::Listen`] has: stdin goes there, stdout comes from there.
    Accept {
        /// That job, which the same caller has submitted, and which runs as the same local user.
        job: JobId,
        /// The number that it gave the connection.
        number: u64,
    },
}

impl Command {
    /// Whether it is about connections, and runs no program of the caller's choice.
    pub fn is_connection(&self) -> bool {
        matches!(self, Self::Connect { .. } | Self::Listen { .. } | Self::Accept { .. })
    }
}

impl fmt::Display for Command {
    /// For logs: words separated by blanks, cut, and not meant to be run.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words = match self {
            Self::Argv(words) => words.as_slice(),
            Self::Line(line) => std::slice::from_ref(line),
            Self::Login {} => return f.write_str("(login shell)"),
            Self::Subsystem(name) => {
                return write!(f, "(subsystem {})", printable(&shorten(name.clone())));
            }
            Self::Connect { host, port } => {
                return write!(f, "(connection to {})", place(host, *port));
            }
            Self::Listen { host, port } => {
                return write!(f, "(connections to {})", place(host, *port));
            }
            Self::Accept { job, number } => {
                return write!(f, "(connection {number} of job {job})");
            }
            Self::Script { args, .. } => {
                f.write_str("(script)")?;
                args
            }
            Self::Files(request) => return f.write_str(&joined(&request.words())),
        };
        f.write_str(&joined(words))
    }
}

fn place(host: &str, port: u16) -> String {
    format!("{} port {port}", printable(&shorten(host.to_owned())))
}

fn joined<T: AsRef<[u8]>>(words: &[T]) -> String {
    let words: Vec<_> = words.iter().map(|word| String::from_utf8_lossy(word.as_ref())).collect();
    printable(&shorten(words.join(" ")))
}

/// The command runs; its output follows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Started {
    /// The agent's name for this run.
    pub job: JobId,
    /// The process id on the agent's machine.
    pub pid: u32,
    /// The job was there already: this stream joins it.
    #[serde(default, skip_serializing_if = "is_false")]
    pub attached: bool,
    /// How many bytes of `in` the agent has; a client that sends stdin goes on from there.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub stdin: u64,
    /// The digest of the job's streams, which a client that attaches, or left the choice to the agent,
    /// cannot know.
    #[serde(default, skip_serializing_if = "is_default")]
    pub digest: Algorithm,
    /// The job has a terminal.
    #[serde(default, skip_serializing_if = "is_false")]
    pub terminal: bool,
}

impl Started {
    /// A job that was just started.
    pub fn new(job: JobId, pid: u32, digest: Algorithm) -> Self {
        Self { job, pid, attached: false, stdin: 0, digest, terminal: false }
    }
}

pub(super) fn is_false(flag: &bool) -> bool {
    !flag
}

pub(super) fn is_zero(n: &u64) -> bool {
    *n == 0
}

fn is_default(algorithm: &Algorithm) -> bool {
    *algorithm == Algorithm::default()
}

impl ExecSpec {
    /// A spec that runs `command` with every choice left to the agent.
    pub fn new(command: Command) -> Self {
        Self {
            command,
            user: None,
            env: Vec::new(),
            cwd: None,
            timeout_ms: None,
            stdin: false,
            on_disconnect: None,
            on_full: OnFull::default(),
            terminal: None,
            drain: Drain::default(),
            ssh_env: false,
        }
    }

    /// The first thing that makes this unfit to be run anywhere, in words for the person who wrote
    /// it: no word at all, a NUL, an `=` in a variable's name, a relative directory.
    pub fn fault(&self) -> Option<&'static str> {
        let has_nul = |bytes: &ByteBuf| bytes.contains(&0);
        let words: &[ByteBuf] = match &self.command {
            Command::Argv(words) => words,
            Command::Line(line) if has_nul(line) => {
                return Some("the command line holds a NUL byte");
            }
            Command::Line(_) | Command::Login {} | Command::Subsystem(_) => &[],
            Command::Connect { .. } | Command::Listen { .. } | Command::Accept { .. } => {
                if let Some(fault) = self.unfit_connection().or_else(|| self.outlives_client()) {
                    return Some(fault);
                }
                &[]
            }
            Command::Script { args, .. } => args,
            Command::Files(request) => {
                if let Some(fault) = request.fault().or_else(|| self.unfit_for_files()) {
                    return Some(fault);
                }
                &[]
            }
        };
        let no_program = matches!(&self.command, Command::Argv(words) if words.first().is_none_or(|w| w.is_empty()));
        if words.len() > MAX_WORDS {
            return Some("the command has more than 32768 words, which is the limit");
        }
        let locale = self.terminal.as_ref().map_or(&[][..], |terminal| &terminal.locale);
        if self.env.len() > MAX_VARIABLES || locale.len() > MAX_VARIABLES {
            return Some("there are more than 1024 environment variables, which is the limit");
        }
        if no_program {
            return Some("the command is empty");
        }
        if words.iter().any(has_nul) {
            return Some("a word of the command holds a NUL byte");
        }
        if self.env.iter().any(|(name, value)| has_nul(name) || has_nul(value)) {
            return Some("an environment variable holds a NUL byte");
        }
        if self.env.iter().any(|(name, _)| name.is_empty() || name.contains(&b'=')) {
            return Some("an environment variable's name is empty or holds '='");
        }
        if self.terminal.as_ref().is_some_and(|terminal| has_nul(&terminal.term)) {
            return Some("the terminal's type holds a NUL byte");
        }
        match &self.cwd {
            Some(dir) if has_nul(dir) => Some("the working directory holds a NUL byte"),
            Some(dir) if !dir.starts_with(b"/") => {
                Some("the working directory is not an absolute path")
            }
            _ => None,
        }
    }

    /// Whether there is nothing in it that policy is asked about for commands alone.
    fn is_plain(&self) -> bool {
        self.env.is_empty() && self.cwd.is_none() && self.terminal.is_none()
    }

    /// What is wrong with a command that is about connections.
    fn unfit_connection(&self) -> Option<&'static str> {
        let place = match &self.command {
            Command::Connect { host, port } => Some((host, *port, false)),
            Command::Listen { host, port } => Some((host, *port, true)),
            _ => None,
        };
        if let Some((host, port, listens)) = place {
            if host.is_empty() || host.contains('\0') {
                return Some("the host of a connection is empty or holds a NUL byte");
            }
            if !holds("connect.host_length", host.len() <= MAX_HOST) {
                return Some("the host of a connection is longer than 255 bytes");
            }
            if port == 0 && !listens {
                return Some("the port to connect to is 0");
            }
            let is_all = listens && is_everywhere(host);
            if !holds("connect.address", is_all || is_name_or_address(host)) {
                return Some("a host is neither a name nor an address in its usual form");
            }
            if listens && !self.stdin {
                return Some("what listens needs its stdin, because it ends with that");
            }
        }
        (!holds("connect.plain", self.is_plain()))
            .then_some("a connection has no variables, no directory and no terminal")
    }

    /// A connection is of use to its client alone, and policy has let nobody else have it.
    fn outlives_client(&self) -> Option<&'static str> {
        let is_kept = matches!(self.on_disconnect, Some(OnDisconnect::Keep {}));
        (!holds("connect.keep", !is_kept))
            .then_some("a connection, or a port, cannot be kept without its client")
    }

    /// What a transfer has no use for, and policy is not asked about.
    fn unfit_for_files(&self) -> Option<&'static str> {
        if !holds("files.plain", self.is_plain()) {
            return Some("a file transfer has no variables, no directory and no terminal");
        }
        if self.on_disconnect == Some(OnDisconnect::Keep {}) {
            return Some("a file transfer does not go on without its client");
        }
        (!self.stdin).then_some("a file transfer needs its stdin")
    }
}

/// Whether to listen at this host is to listen at all addresses of the machine, or all of one kind.
pub fn is_everywhere(host: &str) -> bool {
    host == "*"
        || host.parse::<IpAddr>().is_ok_and(|address| address.to_canonical().is_unspecified())
}

/// Resolvers take `127.1`, `0x7f000001` and `0` for addresses (inet_aton(3)), and kernels 0.0.0.0 for this
/// machine: a policy that compares addresses would be passed by them. A name does not end with a number.
fn is_name_or_address(host: &str) -> bool {
    if let Ok(address) = host.parse::<IpAddr>() {
        return !address.to_canonical().is_unspecified();
    }
    let last = host.rsplit('.').next().unwrap_or_default();
    let is_hexadecimal = last.starts_with("0x") || last.starts_with("0X");
    // With a dot at its end it would be another word for the same host, which no rule about that would know.
    let is_number = is_hexadecimal || last.bytes().all(|byte| byte.is_ascii_digit());
    !is_number && !host.contains([':', '%', '/'])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::Get;

    #[test]
    fn a_transfer_has_nothing_that_policy_is_not_asked_about() {
        let paths = vec![ByteBuf::from("x")];
        let digest = Algorithm::Sha256;
        let get = Get { paths, recursive: false, glob: false, ask: false, digest, links: false };
        let command = Command::Files(FilesRequest::Get(get));
        let spec = ExecSpec { stdin: true, ..ExecSpec::new(command) };
        assert_eq!(spec.fault(), None);
        let env = vec![(ByteBuf::from("LD_PRELOAD"), ByteBuf::from("x"))];
        assert!(ExecSpec { env, ..spec.clone() }.fault().is_some());
        assert!(ExecSpec { cwd: Some(ByteBuf::from("/")), ..spec.clone() }.fault().is_some());
        let on_disconnect = Some(OnDisconnect::Keep {});
        assert!(ExecSpec { on_disconnect, ..spec.clone() }.fault().is_some());
        assert!(ExecSpec { stdin: false, ..spec }.fault().is_some());
    }

    /// A word of no bytes takes one on the way, and dozens in memory.
    #[test]
    fn a_request_of_many_tiny_elements_takes_little_memory() {
        let empty = |n| vec![ByteBuf::new(); n];
        let read = |spec: &ExecSpec| -> ExecSpec {
            crate::msgpack::decode(&crate::msgpack::encode(spec), crate::msgpack::BODY).unwrap()
        };
        let words =
            |n| ExecSpec::new(Command::Argv([vec![b"x".to_vec().into()], empty(n - 1)].concat()));
        let script = Command::Script { text: ByteBuf::new(), args: empty(200_000) };
        let pairs = |n| vec![(ByteBuf::from("LC_A"), ByteBuf::new()); n];
        let (columns, rows, width, height) = (80, 24, 0, 0);
        let size = TerminalSize { columns, rows, width, height };
        let terminal = |n| Terminal { term: ByteBuf::new(), size, locale: pairs(n) };
        for (spec, most) in [
            (words(200_000), MAX_WORDS),
            (ExecSpec::new(script), MAX_WORDS),
            (ExecSpec { env: pairs(60_000), ..words(1) }, MAX_VARIABLES),
            (ExecSpec { terminal: Some(terminal(60_000)), ..words(1) }, MAX_VARIABLES),
        ] {
            let read = read(&spec);
            let said = read.fault().unwrap();
            assert!(said.contains(&format!("more than {most} ")), "{said}");
            assert_eq!(spec.fault(), Some(said), "who sends it knows it too");
            let elements = match &read.command {
                Command::Argv(words) | Command::Script { args: words, .. } => words.len(),
                _ => 0,
            };
            let locale = read.terminal.map_or(0, |terminal| terminal.locale.len());
            assert!(elements.max(read.env.len()).max(locale) == most + 1);
        }
        // seq 100000 | xargs, and a long line for a shell.
        let numbers: Vec<ByteBuf> =
            (1..=23_696).map(|n| n.to_string().into_bytes().into()).collect();
        let line = Command::Line(vec![b'x'; 200 * 1024].into());
        for spec in [
            ExecSpec::new(Command::Argv(numbers)),
            ExecSpec::new(line),
            ExecSpec { env: pairs(MAX_VARIABLES), ..words(MAX_WORDS) },
        ] {
            assert_eq!((read(&spec).fault(), read(&spec) == spec), (None, true));
        }
    }

    #[test]
    fn a_connection_has_nothing_that_policy_is_not_asked_about() {
        let to = |host: &str, port| ExecSpec::new(Command::Connect { host: host.into(), port });
        assert_eq!(to("db", 5432).fault(), None);
        let env = vec![(ByteBuf::from("LD_PRELOAD"), ByteBuf::from("x"))];
        assert!(ExecSpec { env, ..to("db", 5432) }.fault().is_some());
        assert!(ExecSpec { cwd: Some(ByteBuf::from("/")), ..to("db", 5432) }.fault().is_some());
        for (host, port) in [("", 1), ("db", 0), ("d\0b", 1)] {
            assert!(to(host, port).fault().is_some(), "{host:?} {port}");
        }
        assert_eq!(to(&"d".repeat(MAX_HOST), 1).fault(), None);
        assert!(to(&"d".repeat(MAX_HOST + 1), 1).fault().is_some());
    }

    /// What lets it be there is asked about no more once nobody is there for it.
    #[test]
    fn no_connection_is_kept_without_its_client() {
        let job = JobId::new("x").unwrap();
        for command in [
            Command::Connect { host: "db".to_owned(), port: 1 },
            Command::Listen { host: "*".to_owned(), port: 1 },
            Command::Accept { job, number: 1 },
        ] {
            for (then, fits) in [
                (None, true),
                (Some(OnDisconnect::Kill {}), true),
                (Some(OnDisconnect::Lease { ms: u64::MAX }), true),
                (Some(OnDisconnect::Keep {}), false),
            ] {
                let spec = ExecSpec::new(command.clone());
                let spec = ExecSpec { stdin: true, on_disconnect: then, ..spec };
                assert_eq!(spec.fault().is_none(), fits, "{spec:?}");
            }
        }
    }

    #[test]
    fn what_listens_is_no_less_plain_and_may_be_everywhere() {
        let listen = |host: &str| ExecSpec {
            stdin: true,
            ..ExecSpec::new(Command::Listen { host: host.into(), port: 0 })
        };
        for host in ["localhost", "*", "0.0.0.0", "::", "127.0.0.1", "::1"] {
            assert_eq!(listen(host).fault(), None, "{host}");
        }
        let long = "a".repeat(MAX_HOST + 1);
        for host in ["", "a\0b", "127.1", "0", "10.0.0.0/8", "[::1]", "::1%1", "*:1", &long] {
            assert!(listen(host).fault().is_some(), "{host}");
        }
        assert!(ExecSpec { stdin: false, ..listen("*") }.fault().is_some());
        let accept = Command::Accept { job: JobId::new("x").unwrap(), number: 1 };
        for spec in [listen("*"), ExecSpec::new(accept)] {
            assert_eq!(spec.fault(), None);
            let env = vec![(ByteBuf::from("LD_PRELOAD"), ByteBuf::from("x"))];
            assert!(ExecSpec { env, ..spec.clone() }.fault().is_some());
            assert!(ExecSpec { cwd: Some(ByteBuf::from("/")), ..spec }.fault().is_some());
        }
    }

    /// A rule that denies 127.0.0.0/8 would not be about these.
    #[test]
    fn an_address_has_one_spelling() {
        let fault = |host: &str| {
            ExecSpec::new(Command::Connect { host: host.into(), port: 1 }).fault().is_some()
        };
        for host in [
            "127.1",
            "2130706433",
            "0x7f000001",
            "0177.0.0.1",
            "0",
            "0.0.0.0",
            "::",
            "::ffff:0.0.0.0",
            "::ffff:127.0.0.1%1",
            "127.0.0.1.",
            "127.0.0.0x1",
            ".",
            "db.",
            "db.internal.",
            "10.0.0.0/8",
        ] {
            assert!(fault(host), "{host}");
        }
        for host in [
            "127.0.0.1",
            "::1",
            "::ffff:127.0.0.1",
            "db",
            "db.internal",
            "web1",
            "0.example",
            "x-1",
        ] {
            assert!(!fault(host), "{host}");
        }
    }

    #[test]
    fn a_locale_is_a_name_and_no_path() {
        for (name, value) in
            [("LANG", "de_DE.UTF-8"), ("LC_ALL", "C"), ("LC_PAPER", "ca_ES@valencia")]
        {
            assert!(is_locale(name.as_bytes(), value.as_bytes()), "{name}={value}");
        }
        for (name, value) in [
            ("LANG", "/tmp/evil"),
            ("LANG", ""),
            ("LANG", "a\nb"),
            ("LC_", "C"),
            ("LC_all", "C"),
            ("LANGUAGE", "de"),
            ("LD_PRELOAD", "x"),
            ("LOCPATH", "x"),
        ] {
            assert!(!is_locale(name.as_bytes(), value.as_bytes()), "{name}={value}");
        }
    }
}
