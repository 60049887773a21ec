//! The options of a run, in the groups that others share.

use crate::config;
use crate::values::{self, EscapeKey, SshOption, Variable};
use clap::builder::{OsStringValueParser, TypedValueParser};
use clap::{Args, ValueHint};
use rexec_client::{Algorithm, JobId, OnDisconnect, OnFull};
use std::path::PathBuf;
use std::time::Duration;

/// How to reach an agent, and who to be.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Connection")]
pub struct ConnectOptions {
    /// Port of the agent [default: 8512]
    #[arg(short, long, value_name = "PORT", value_parser = values::port)]
    pub port: Option<u16>,
    /// Certificate and private key to show, PEM [default: identity.pem in ~/.config/rexec]
    #[arg(short, long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub identity: Option<PathBuf>,
    /// Private key, if it is not in the identity file
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub key: Option<PathBuf>,
    /// Authorities that sign agents, PEM [default: authority.crt in ~/.config/rexec]
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub authority: Option<PathBuf>,
    /// Revocation lists of these authorities, PEM [default: authority.crl in ~/.config/rexec, if it
    /// exists]
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub crl: Option<PathBuf>,
    /// Give up connecting after this long [default: 10s]
    #[arg(long, value_name = "DURATION", value_parser = values::duration)]
    pub connect_timeout: Option<Duration>,
    /// Try this long to make a connection again that was lost while a command runs; 0 for never
    /// [default: 5m]
    #[arg(long, value_name = "DURATION", value_parser = values::duration_or_zero)]
    pub reconnect_for: Option<Duration>,
    /// Ask a silent agent for a sign of life after this long; after three times as long the connection is lost
    /// [default: 15s]
    #[arg(long, value_name = "DURATION", value_parser = values::duration)]
    pub keepalive: Option<Duration>,
    /// Configuration file, instead of the user's and the system's
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub config: Option<PathBuf>,
    /// An option as ssh takes it: User, Port, ConnectTimeout, ConnectionAttempts, ServerAliveInterval,
    /// HostKeyAlias (the name that the agent's certificate must have), IdentityFile, SetEnv or LogLevel;
    /// User is for commands, and for cp, put and get; SetEnv is for commands
    #[arg(short = 'o', long = "option", value_name = "KEY=VALUE", value_parser = SshOption::parse)]
    pub ssh: Vec<SshOption>,
    /// Say nothing but errors
    #[arg(short, long)]
    pub quiet: bool,
    /// Say on stderr what happens when; more with -vv and -vvv
    #[arg(short, long, action = clap::ArgAction::Count)]
    pub verbose: u8,
}

impl ConnectOptions {
    /// What has to be typed again to reach the same agent as the same person.
    pub fn retyped(&self) -> Vec<String> {
        let files = [
            ("-i", &self.identity),
            ("--key", &self.key),
            ("--authority", &self.authority),
            ("--crl", &self.crl),
            ("--config", &self.config),
        ];
        let port = self.port.map(|port| ["-p".to_owned(), port.to_string()]);
        let files = files.into_iter().filter_map(|(option, file)| {
            Some([option.to_owned(), values::quoted(&file.as_ref()?.display().to_string())])
        });
        let typed = self.ssh.iter().filter_map(|option| {
            let value = match option {
                SshOption::Port(port) => format!("Port={port}"),
                SshOption::IdentityFile(file) => format!("IdentityFile={}", file.display()),
                SshOption::HostKeyAlias(name) => format!("HostKeyAlias={name}"),
                _ => return None,
            };
            Some(["-o".to_owned(), values::quoted(&value)])
        });
        port.into_iter().chain(files).chain(typed).flatten().collect()
    }
}

/// All options of a run.
#[derive(Debug, Default, Args)]
pub struct RunOptions {
    /// How to connect.
    #[command(flatten)]
    pub connect: ConnectOptions,
    /// What to run, and where in the remote system.
    #[command(flatten)]
    pub command: CommandOptions,
    /// What becomes of it without this client.
    #[command(flatten)]
    pub job: JobOptions,
    /// What to say about it.
    #[command(flatten)]
    pub output: OutputOptions,
}

/// How the command runs.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Command")]
pub struct CommandOptions {
    /// Run as this user of the remote machine
    #[arg(short = 'l', long, value_name = "USER")]
    pub user: Option<String>,
    /// Give the command no stdin
    #[arg(short = 'n', long)]
    pub no_stdin: bool,
    /// Run it on a terminal if stdin is one, and with -tt in any case
    #[arg(short = 't', action = clap::ArgAction::Count, overrides_with = "no_terminal")]
    pub terminal: u8,
    /// Run it without a terminal, a login shell too
    #[arg(short = 'T', overrides_with_all = ["no_terminal", "terminal"])]
    pub no_terminal: bool,
    /// On a terminal, what begins an escape: a character, ^X for Ctrl-X, or none [default: ~]
    #[arg(short = 'e', long, value_name = "KEY", value_parser = values::escape)]
    pub escape: Option<EscapeKey>,
    /// Set a variable for the command; NAME alone takes its value here
    #[arg(long, value_name = "NAME=VALUE")]
    #[arg(value_parser = OsStringValueParser::new().try_map(Variable::parse))]
    pub env: Vec<Variable>,
    /// Run in this folder, an absolute path [default: the user's home]
    #[arg(long, value_name = "DIR")]
    pub cwd: Option<PathBuf>,
    /// End the command, with all it started, after this long: 30s, 5m, 1h30m, or seconds
    #[arg(long, value_name = "DURATION", value_parser = values::duration)]
    pub timeout: Option<Duration>,
    /// Send this local file along and run it; the words after the host are its arguments; "-" reads
    /// it from stdin
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    #[arg(conflicts_with_all = ["shell", "argv"])]
    pub script: Option<PathBuf>,
    /// Join the words with blanks to a line for the login shell, as ssh does
    #[arg(long, conflicts_with = "argv")]
    pub shell: bool,
    /// Take even a single word as a program's name
    #[arg(long)]
    pub argv: bool,
}

/// What becomes of the command when this client is not there.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Job")]
pub struct JobOptions {
    /// Print the id of the job, and leave as soon as it runs; it goes on without a client
    #[arg(short, long)]
    pub detach: bool,
    /// Name the job; the same command under the same id runs once, however often it is sent
    #[arg(long, value_name = "ID", value_parser = values::job_id)]
    pub id: Option<JobId>,
    /// When this client is gone: kill, lease=DURATION or keep [default: a lease of 1m, or of 10s if
    /// its system closed the connection]
    #[arg(long, value_name = "WHAT", value_parser = values::on_disconnect)]
    pub on_disconnect: Option<OnDisconnect>,
    /// When the agent can keep no more of the output: block or discard-oldest [default: block]
    #[arg(long, value_name = "WHAT", value_parser = values::on_full)]
    pub on_full: Option<OnFull>,
    /// Try up to N times more if the agent cannot be reached or the connection is lost; the command
    /// runs at most once
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    pub retry: u32,
}

/// What rexec says beside the command's own output.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Output")]
pub struct OutputOptions {
    /// Print events as JSON Lines; the command's output is in them only
    #[arg(long)]
    pub json: bool,
    /// At the end, write the outcome as one line of JSON to this descriptor
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(0..))]
    pub status_fd: Option<i32>,
    /// At the end, print size and digest of each stream to stderr
    #[arg(long)]
    pub digest: bool,
    /// Digest of the streams: sha256 or blake3 [default: sha256 where it is shown, else the fastest]
    #[arg(long, value_name = "NAME", value_parser = config::hash)]
    pub hash: Option<Algorithm>,
}
