//! The daemon `rexec-agent`.

use clap::{CommandFactory, Parser, Subcommand};
use rexec_agent::config::{self, Config, ConfigError, LogFormat};
use rexec_agent::notify::{State, notify};
use rexec_agent::server::{Agent, Server};
use rexec_agent::{check, doctor, keeper};
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
    #[arg(long, short, value_name = "FILE", env = "REXEC_AGENT_CONFIG")]
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
    /// Revocation lists of these authorities, PEM
    #[arg(long, value_name = "FILE")]
    crl: Option<PathBuf>,
    /// Form of the log lines on stderr
    #[arg(long, value_name = "FORM")]
    log_format: Option<LogFormat>,
    /// Log level (error, warn, info, debug, trace), or directives
    #[arg(long, value_name = "LEVEL", env = "REXEC_LOG")]
    log_level: Option<String>,
    /// Write the address that is listened on to this file once the agent is ready
    #[arg(long, value_name = "FILE")]
    ready_file: Option<PathBuf>,
    /// Check the configuration and the certificates, print what is in force, and exit
    #[arg(long)]
    check: bool,
    /// Print the man page
    #[arg(long, hide = true)]
    man: bool,
    #[command(subcommand)]
    verb: Option<Verb>,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Check the configuration, the files and the machine, and say what to mend
    Doctor {
        /// One JSON object a line
        #[arg(long)]
        json: bool,
    },
}

fn main() -> ExitCode {
    // Before any thread exists: the zygote forks.
    if std::env::args_os().nth(1).is_some_and(|word| word == keeper::ZYGOTE) {
        return keeper::zygote_main();
    }
    rexec_net::memory::keep_freed();
    let args = Args::parse();
    if args.man {
        return print_manual();
    }
    let (check, ready_file) = (args.check, args.ready_file.clone());
    if let Some(Verb::Doctor { json }) = args.verb {
        return doctor::run(configure(args), json, &mut io::stdout());
    }
    match configure(args) {
        Ok(config) if check => check::report(&config, &mut io::stdout()),
        Ok(config) => run(config, ready_file),
        Err(error) => fail(&error),
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
    config.key = args.key.or(config.key);
    config.crl = args.crl.or(config.crl);
    config.log.format = args.log_format.unwrap_or(config.log.format);
    config.log.level = args.log_level.unwrap_or(config.log.level);
    config.validate()?;
    Ok(config)
}

fn run(config: Config, ready_file: Option<PathBuf>) -> ExitCode {
    if let Err(error) = start_logging(&config) {
        return fail(&error);
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&error),
    };
    match runtime.block_on(serve(config, ready_file)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error),
    }
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
