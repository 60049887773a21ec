//! The daemon `rexec-agent`.

use clap::{CommandFactory, Parser, Subcommand};
use rexec_agent::config::{self, Config, ConfigError, LogFormat};
use rexec_agent::notify::{State, notify};
use rexec_agent::policy::explain;
use rexec_agent::server::{Agent, Server};
use rexec_agent::{audit, check, descriptors, keeper};
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

/// The rexec agent: runs commands for authenticated clients.
///
/// Settings come from the flags, then from the configuration file, then from the defaults that
/// `--check` prints. SIGTERM stops the agent: it takes no new commands and waits for the running
/// ones; a second SIGTERM, or SIGINT, ends them.
#[derive(Debug, Parser)]
#[command(name = "rexec-agent", version)]
struct Args {
    /// Configuration file [default: /etc/rexec/agent.toml, if it exists]
    #[arg(long, short, value_name = "FILE", env = "REXEC_AGENT_CONFIG", global = true)]
    config: Option<PathBuf>,
    /// Address and port to listen on, instead of those in the file; may be repeated
    #[arg(long, short, value_name = "ADDR:PORT")]
    listen: Vec<SocketAddr>,
    /// Certificate chain and private key of this agent, PEM
    #[arg(long, short, value_name = "FILE")]
    identity: Option<PathBuf>,
    /// Private key, if it is not in the identity file
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    /// Authorities whose user certificates are accepted, PEM
    #[arg(long, short, value_name = "FILE")]
    authority: Option<PathBuf>,
    /// Who may do what, TOML
    #[arg(long, value_name = "FILE", global = true)]
    policy: Option<PathBuf>,
    /// Folder with more of the policy
    #[arg(long, value_name = "FOLDER", global = true)]
    policy_folder: Option<PathBuf>,
    /// Form of the log lines on stderr
    #[arg(long, value_name = "FORM")]
    log_format: Option<LogFormat>,
    /// Log level (error, warn, info, debug, trace), or directives
    #[arg(long, value_name = "LEVEL", env = "REXEC_LOG")]
    log_level: Option<String>,
    /// Write the address that is listened on to this file once the agent is ready
    #[arg(long, value_name = "FILE")]
    ready_file: Option<PathBuf>,
    /// Check the configuration, the certificates and the policy with its tests, print what is in force, and exit
    #[arg(long)]
    check: bool,
    /// Print the man page
    #[arg(long, hide = true)]
    man: bool,
    #[command(subcommand)]
    tool: Option<Tool>,
}

/// What an administrator does beside running the agent.
#[derive(Debug, Subcommand)]
enum Tool {
    /// The policy: who may do what
    #[command(subcommand)]
    Policy(PolicyTool),
    /// The audit log: what was done
    #[command(subcommand)]
    Audit(AuditTool),
}

#[derive(Debug, Subcommand)]
enum AuditTool {
    /// Tells whether the audit log is as it was written, and if not, where it was changed
    ///
    /// Exits with 0 if it is, with 1 if it is not, and with 2 if that could not be found out.
    Verify {
        /// Files, the oldest first [default: that of the configuration, with its rotated ones]
        files: Vec<PathBuf>,
    },
}

#[derive(Debug, Subcommand)]
enum PolicyTool {
    /// Say what would be decided, and which rule does; exits with 0 if allowed, 1 if denied, 2 on trouble
    Test(explain::Asked),
}

fn main() -> ExitCode {
    // Before any thread exists: the zygote forks.
    if std::env::args_os().nth(1).is_some_and(|word| word == keeper::ZYGOTE) {
        return keeper::zygote_main();
    }
    rexec_net::memory::keep_freed();
    let mut args = Args::parse();
    if args.man {
        return print_manual();
    }
    let (check, ready_file) = (args.check, args.ready_file.clone());
    let tool = args.tool.take();
    match (configure(args), tool) {
        (Ok(config), Some(tool)) => use_tool(tool, &config),
        (Ok(config), None) if check => check::report(&config, &mut io::stdout()),
        (Ok(config), None) => run(config, ready_file),
        // 1 would be an answer.
        (Err(error), Some(_)) => {
            fail(&error);
            ExitCode::from(explain::TROUBLE)
        }
        (Err(error), None) => fail(&error),
    }
}

fn use_tool(tool: Tool, config: &Config) -> ExitCode {
    let out = &mut io::stdout();
    match tool {
        Tool::Policy(PolicyTool::Test(asked)) => explain::run(&asked, &config.policy_paths(), out),
        Tool::Audit(AuditTool::Verify { files }) => {
            audit::verify::report(&config.audit.file, &files, out)
        }
    }
}

fn print_manual() -> ExitCode {
    let page = clap_mangen::Man::new(Args::command()).section("8");
    match page.render(&mut io::stdout()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error),
    }
}

fn configure(args: Args) -> Result<Config, ConfigError> {
    let mut config = match &args.config {
        Some(path) => Config::read(path)?,
        None if Path::new(config::DEFAULT_PATH).exists() => {
            Config::read(config::DEFAULT_PATH.as_ref())?
        }
        None => Config::default(),
    };
    if !args.listen.is_empty() {
        config.listen = args.listen;
    }
    let set = |value: &mut PathBuf, flag: Option<PathBuf>| {
        *value = flag.unwrap_or_else(|| std::mem::take(value))
    };
    set(&mut config.identity, args.identity);
    set(&mut config.authority, args.authority);
    set(&mut config.policy, args.policy);
    set(&mut config.policy_folder, args.policy_folder);
    config.key = args.key.or(config.key);
    config.log.format = args.log_format.unwrap_or(config.log.format);
    config.log.level = args.log_level.unwrap_or(config.log.level);
    config.validate()?;
    Ok(config)
}

fn run(config: Config, ready_file: Option<PathBuf>) -> ExitCode {
    if let Err(error) = start_logging(&config) {
        return fail(&error);
    }
    if let Err(error) = descriptors::raise() {
        tracing::warn!(%error, "cannot raise the limit of descriptors");
    }
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = match runtime.worker_threads(workers()).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&error),
    };
    let served = runtime.block_on(serve(config, ready_file));
    // A question to the user database may hang for ever; nobody waits for the answer any more.
    runtime.shutdown_background();
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error),
    }
}

/// Half of the processors: the commands need some too, and the fewer threads there are, the more of a
/// command's bytes are digested and encrypted where they were read, in that processor's cache.
fn workers() -> usize {
    std::thread::available_parallelism().map_or(1, |processors| processors.get().div_ceil(2))
}

async fn serve(config: Config, ready_file: Option<PathBuf>) -> io::Result<()> {
    let server = Server::start(config, "/proc/self/exe".as_ref()).await?;
    let addresses = server.addresses()?;
    let agent = Arc::clone(server.agent());
    stop_on_signals(agent)?;
    let listening: Vec<String> = addresses.iter().map(ToString::to_string).collect();
    let listening = listening.join(" ");
    if let Some(path) = ready_file {
        write_ready_file(&path, &listening)?;
    }
    tracing::info!(listening, "ready");
    notify(State::Ready);
    server.run().await;
    tracing::info!("stopped");
    Ok(())
}

/// Whole or not at all: whoever waits for the file never sees half an address.
fn write_ready_file(path: &Path, listening: &str) -> io::Result<()> {
    let temporary = path.with_extension("new");
    std::fs::write(&temporary, format!("{listening}\n"))?;
    std::fs::rename(&temporary, path)
}

fn stop_on_signals(agent: Arc<Agent>) -> io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {
                tracing::info!("stopping: running commands may finish");
                notify(State::Stopping);
                agent.stop();
            }
            _ = interrupt.recv() => {}
        }
        if agent.is_stopping() {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        }
        tracing::info!("stopping: running commands are ended");
        notify(State::Stopping);
        agent.abort();
    });
    Ok(())
}

fn start_logging(config: &Config) -> Result<(), ConfigError> {
    let filter = EnvFilter::try_new(&config.log.level)
        .map_err(|error| ConfigError::Value(format!("'log.level': {error}")))?;
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
    match config.log.format {
        LogFormat::Text => log.with_ansi(false).init(),
        LogFormat::Json => log.json().init(),
    }
    Ok(())
}

#[allow(clippy::print_stderr, reason = "the last words, and there may be no log yet")]
fn fail(error: &dyn std::error::Error) -> ExitCode {
    eprintln!("rexec-agent: {error}");
    ExitCode::FAILURE
}
