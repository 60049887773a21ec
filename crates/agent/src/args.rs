//! The command line of `rexec-agent`.

use clap::{Parser, Subcommand};
use rexec_agent::config::{self, Config, ConfigError, LogFormat};
use rexec_agent::policy::explain;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// The rexec agent: runs commands for authenticated clients.
///
/// Settings come from the flags, then from the configuration file, then from the defaults that
/// `--check` prints. SIGTERM stops the agent and leaves running commands to the next one; SIGINT
/// lets them finish first, and a second one ends them. SIGHUP reads certificates and policy again.
#[derive(Debug, Parser)]
#[command(name = "rexec-agent", version)]
pub(crate) struct Args {
    /// Configuration file [default: /etc/rexec/agent.toml, if it exists]
    #[arg(long, short, value_name = "FILE", env = "REXEC_AGENT_CONFIG", global = true)]
    pub(crate) config: Option<PathBuf>,
    /// Address and port to listen on, instead of those in the file; may be repeated
    #[arg(long, short, value_name = "ADDR:PORT", global = true)]
    pub(crate) listen: Vec<SocketAddr>,
    /// Certificate chain and private key of this agent, PEM
    #[arg(long, short, value_name = "FILE", global = true)]
    pub(crate) identity: Option<PathBuf>,
    /// Private key, if it is not in the identity file
    #[arg(long, value_name = "FILE", global = true)]
    pub(crate) key: Option<PathBuf>,
    /// Authorities whose user certificates are accepted, PEM
    #[arg(long, short, value_name = "FILE", global = true)]
    pub(crate) authority: Option<PathBuf>,
    /// Who may do what, TOML
    #[arg(long, value_name = "FILE", global = true)]
    pub(crate) policy: Option<PathBuf>,
    /// Folder with more of the policy
    #[arg(long, value_name = "FOLDER", global = true)]
    pub(crate) policy_folder: Option<PathBuf>,
    /// Revocation lists of these authorities, PEM
    #[arg(long, value_name = "FILE", global = true)]
    pub(crate) crl: Option<PathBuf>,
    /// Form of the log lines on stderr
    #[arg(long, value_name = "FORM")]
    pub(crate) log_format: Option<LogFormat>,
    /// Log level (error, warn, info, debug, trace), or directives
    #[arg(long, value_name = "LEVEL", env = "REXEC_LOG")]
    pub(crate) log_level: Option<String>,
    /// Write the address that is listened on to this file once the agent is ready
    #[arg(long, value_name = "FILE")]
    pub(crate) ready_file: Option<PathBuf>,
    /// Check the configuration, the certificates and the policy with its tests, print what is in force, and exit
    #[arg(long)]
    pub(crate) check: bool,
    /// Print the man page
    #[arg(long, hide = true)]
    pub(crate) man: bool,
    #[command(subcommand)]
    pub(crate) tool: Option<Tool>,
}

/// What an administrator does beside running the agent.
#[derive(Debug, Subcommand)]
#[allow(clippy::large_enum_variant, reason = "there is one value")]
pub(crate) enum Tool {
    /// The policy: who may do what
    #[command(subcommand)]
    Policy(PolicyTool),
    /// The audit log: what was done
    #[command(subcommand)]
    Audit(AuditTool),
    /// See what the running agent on this machine does, and tell it what to do
    ///
    /// Without words there is a prompt. Exits with 0 if it was done, with 1 if it was refused, and with 2 if no agent
    /// answers.
    #[command(after_help = rexec_agent::console::action::HELP)]
    Ctl {
        /// Print answers as JSON
        #[arg(long)]
        json: bool,
        /// What to do; 'status' to begin with
        #[arg(value_name = "WORD")]
        words: Vec<String>,
    },
    /// Check the configuration, the files and the machine, and say what to mend
    Doctor {
        /// One JSON object a line
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum AuditTool {
    /// Tells whether the audit log is as it was written, and if not, where it was changed
    ///
    /// Exits with 0 if it is, with 1 if it is not, and with 2 if that could not be found out.
    Verify {
        /// Files, the oldest first [default: that of the configuration, with its rotated ones]
        files: Vec<PathBuf>,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum PolicyTool {
    /// Say what would be decided, and which rule does; exits with 0 if allowed, 1 if denied, 2 on trouble
    Test(explain::Asked),
}

impl Args {
    /// What is in force: the flags over the file over the defaults.
    pub(crate) fn configure(self) -> Result<Config, ConfigError> {
        let mut config = match &self.config {
            Some(path) => Config::read(path)?,
            None if Path::new(config::DEFAULT_PATH).exists() => {
                Config::read(config::DEFAULT_PATH.as_ref())?
            }
            None => Config::default(),
        };
        if !self.listen.is_empty() {
            config.listen = self.listen;
        }
        let set = |value: &mut PathBuf, flag: Option<PathBuf>| {
            *value = flag.unwrap_or_else(|| std::mem::take(value))
        };
        set(&mut config.identity, self.identity);
        set(&mut config.authority, self.authority);
        set(&mut config.policy, self.policy);
        set(&mut config.policy_folder, self.policy_folder);
        config.key = self.key.or(config.key);
        config.crl = self.crl.or(config.crl);
        config.log.format = self.log_format.unwrap_or(config.log.format);
        config.log.level = self.log_level.unwrap_or(config.log.level);
        config.validate()?;
        Ok(config)
    }
}
