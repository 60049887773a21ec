//! A real agent in a directory of its own, ended when the test ends.

use super::certs::{Authority, write_private};
use super::{program, users};
use rexec_client::{Connector, Files, Session};
use std::ffi::{OsStr, OsString};
use std::fs::{self, File, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;
use tempfile::TempDir;

/// A running agent.
pub struct TestAgent {
    pub dir: TempDir,
    pub authority: Authority,
    pub port: u16,
    child: Child,
    start: Vec<OsString>,
}

impl TestAgent {
    /// An agent with the default configuration.
    pub fn start() -> Self {
        Self::with("")
    }

    /// An agent with more lines in its configuration file. Its audit log is `audit.jsonl` in its
    /// directory, unless the lines have a table `[audit]`.
    pub fn with(config: &str) -> Self {
        Self::prepared(config, |_| {})
    }

    /// An agent with this policy.
    pub fn with_policy(policy: &str) -> Self {
        Self::begin("", policy, |_, _| {})
    }

    /// An agent with more lines in its configuration file, and this policy.
    pub fn with_both(config: &str, policy: &str) -> Self {
        Self::begin(config, policy, |_, _| {})
    }

    /// An agent that is root, with this policy and the local users of [`users`].
    pub fn with_users(policy: &str) -> Self {
        Self::with_launcher(policy, users::launcher)
    }

    /// An agent that is the local user `deploy`, otherwise as [`TestAgent::with_users`].
    pub fn not_root(policy: &str) -> Self {
        Self::with_launcher(policy, |dir| {
            users::give_to_deploy(dir);
            let mut launcher = users::launcher(dir);
            launcher.args(["setpriv", "--reuid", "deploy", "--regid", "deploy", "--init-groups"]);
            launcher
        })
    }

    fn with_launcher(policy: &str, launcher: impl FnOnce(&Path) -> Command) -> Self {
        Self::begin("", policy, |command, dir| {
            let mut launcher = launcher(dir);
            launcher.arg(command.get_program()).args(command.get_args());
            launcher.stdin(Stdio::null()).stdout(Stdio::null());
            launcher.stderr(File::create(dir.join("log")).unwrap());
            *command = launcher;
        })
    }

    /// An agent whose start command was changed.
    pub fn prepared(config: &str, prepare: impl FnOnce(&mut Command)) -> Self {
        Self::begin(config, &everything(), |command, _| prepare(command))
    }

    /// An agent with the revocation list `authority.crl`, which revokes nobody at first.
    pub fn revoking(config: &str) -> Self {
        Self::begin(config, &everything(), |command, dir| {
            command.arg("--crl").arg(dir.join("authority.crl"));
        })
    }

    fn begin(config: &str, policy: &str, prepare: impl FnOnce(&mut Command, &Path)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let authority = Authority::new();
        fs::write(dir.path().join("authority.crt"), authority.pem()).unwrap();
        write_private(dir.path(), "authority.crl", &authority.list([], time::Duration::days(25)));
        write_private(dir.path(), "agent.pem", &authority.issue_agent());
        write_private(dir.path(), "alice.pem", &authority.issue_user("alice"));
        let path = |name: &str| dir.path().join(name);
        let mut config = config.to_owned();
        if !config.contains("state_dir") {
            config = format!("state_dir = '{}'\n{config}", path("state").display());
        }
        if !config.contains("[audit]") {
            let file = path("audit.jsonl");
            config += &format!("\n[audit]\nfile = '{}'\n", file.display());
        }
        write_private(dir.path(), "agent.toml", &config);
        write_private(dir.path(), "policy.toml", policy);
        let mut command = Command::new(program("rexec-agent"));
        command
            .arg("--config")
            .arg(path("agent.toml"))
            .args(["--listen", "127.0.0.1:0", "--log-level", "debug", "--identity"])
            .arg(path("agent.pem"))
            .arg("--authority")
            .arg(path("authority.crt"))
            .arg("--policy")
            .arg(path("policy.toml"))
            .arg("--policy-folder")
            .arg(path("policy.d"))
            .arg("--ready-file")
            .arg(path("ready"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(path("log")).unwrap());
        prepare(&mut command, dir.path());
        let start = std::iter::once(command.get_program()).chain(command.get_args());
        let start = start.map(OsStr::to_owned).collect();
        let (child, port) = await_ready(command, dir.path());
        Self { dir, authority, port, child, start }
    }

    /// Starts the agent anew, which must have ended: in the same directory, on the same port, with
    /// its log going on. Of what `prepare` has changed, only words count.
    pub fn start_again(&mut self) {
        self.start_again_as(None);
    }

    /// The same with another program in the place of the old one, as after an upgrade.
    pub fn start_again_as(&mut self, program: Option<&Path>) {
        (self.child, _) = await_ready(self.command(program, "ready"), self.dir.path());
    }

    /// A start of the agent, which must have ended, that fails in the end: it cannot say that it is
    /// ready.
    pub fn start_in_vain(&self) -> ExitStatus {
        self.command(None, "missing/ready").status().unwrap()
    }

    /// A start of the agent, which must have ended, that fails for a reason of the caller's.
    pub fn start_that_fails(&self) -> ExitStatus {
        self.command(None, "ready").status().unwrap()
    }

    fn command(&self, program: Option<&Path>, ready: &str) -> Command {
        let listen = OsString::from(format!("127.0.0.1:{}", self.port));
        let (before, now) = (self.path("ready"), self.path(ready).into_os_string());
        let words = self.start.iter().map(|word| match word {
            word if word == "127.0.0.1:0" => &listen,
            word if *word == before => &now,
            word => word,
        });
        let mut words = words.cloned();
        let first = words.next().unwrap();
        let log = File::options().append(true).open(self.path("log")).unwrap();
        let mut command = Command::new(program.map_or(first, |program| program.into()));
        command.args(words).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        command
    }

    /// `kill -9`, without waiting for anything but the process.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// The agent's process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// A path in the agent's directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Alice's credentials.
    pub fn files(&self) -> Files {
        self.files_of("alice")
    }

    /// The credentials in `NAME.pem`.
    pub fn files_of(&self, name: &str) -> Files {
        let identity = self.path(&format!("{name}.pem"));
        Files { identity, key: None, authority: self.path("authority.crt"), revocations: None }
    }

    /// A connection as Alice.
    pub async fn session(&self) -> Session {
        let connector = Connector::new(&self.files()).unwrap();
        connector.connect("127.0.0.1", self.port).await.unwrap()
    }

    /// A connection as somebody of this name.
    pub async fn session_as(&self, name: &str) -> Session {
        let identity = self.authority.issue_user(name);
        write_private(self.dir.path(), &format!("{name}.pem"), &identity);
        let connector = Connector::new(&self.files_of(name)).unwrap();
        connector.connect("127.0.0.1", self.port).await.unwrap()
    }

    /// What the agent has logged so far.
    pub fn log(&self) -> String {
        fs::read_to_string(self.path("log")).unwrap()
    }

    /// Sends the agent a signal.
    pub fn signal(&self, signal: nix::sys::signal::Signal) {
        let pid = nix::unistd::Pid::from_raw(self.pid().try_into().unwrap());
        nix::sys::signal::kill(pid, signal).unwrap();
    }

    /// Waits for the agent to end by itself.
    pub fn wait(&mut self) -> ExitStatus {
        self.child.wait().unwrap()
    }
}

impl Drop for TestAgent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<&str> = log.lines().collect();
            let last = lines.len().saturating_sub(40);
            eprintln!("--- agent log, last lines ---\n{}", lines[last..].join("\n"));
        }
    }
}

/// The name of the user that the tests run as.
pub fn own_user() -> String {
    nix::unistd::User::from_uid(nix::unistd::Uid::effective()).unwrap().unwrap().name
}

/// A policy by which everybody may run everything as that user.
fn everything() -> String {
    let user = own_user();
    format!(
        "[[rule]]\nname = 'everything'\nusers = ['*']\nas = ['{user}']\ncommands = 'any'\nenv = ['*']\nterminal = true\n\
         read = ['/**']\nwrite = ['/**']\n"
    )
}

/// Starts the agent and waits until it says that it is ready, as systemd would.
fn await_ready(mut command: Command, dir: &Path) -> (Child, u16) {
    let notify = dir.join("notify");
    let _ = fs::remove_file(&notify);
    let socket = UnixDatagram::bind(&notify).unwrap();
    // The agent may be another user.
    fs::set_permissions(&notify, Permissions::from_mode(0o777)).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let child = command.env("NOTIFY_SOCKET", &notify).spawn().unwrap();
    let mut message = [0; 64];
    if let Err(error) = socket.recv(&mut message) {
        let log = fs::read_to_string(dir.join("log")).unwrap_or_default();
        panic!("the agent did not become ready: {error}\n{log}");
    }
    let address = fs::read_to_string(dir.join("ready")).unwrap();
    let port = address.trim().rsplit(':').next().unwrap().parse().unwrap();
    (child, port)
}
