//! What the script has prepared: programs, keys, servers.

use crate::{Result, bare};
use rexec_client::Files;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

/// Where everything is.
#[derive(Debug, clap::Args)]
pub(crate) struct Lab {
    /// The directory with the programs `rexec` and `rexec-agent`
    #[arg(long)]
    pub(crate) bin: PathBuf,
    /// The scratch directory: ssh_config, user.pem, agent.pem, ca/ca.crt
    #[arg(long)]
    pub(crate) dir: PathBuf,
    /// The agent's port
    #[arg(long)]
    pub(crate) agent_port: u16,
    /// The port of an agent with a policy of one rule and no audit log
    #[arg(long)]
    pub(crate) plain_port: u16,
    /// The agent's process
    #[arg(long)]
    pub(crate) agent_pid: u32,
    /// A file in memory, for bulk transfers
    #[arg(long)]
    pub(crate) payload: PathBuf,
}

/// A process that ends with its handle.
#[derive(Debug)]
pub(crate) struct Helper(pub(crate) Child);

impl Drop for Helper {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Lab {
    /// The user's credentials.
    pub(crate) fn files(&self) -> Files {
        self.credentials("user.pem")
    }

    fn credentials(&self, identity: &str) -> Files {
        let (identity, authority) = (self.dir.join(identity), self.dir.join("ca/ca.crt"));
        Files { identity, key: None, authority, revocations: None }
    }

    /// `rexec 127.0.0.1 LINE`
    pub(crate) fn rexec(&self, line: &str) -> Command {
        self.rexec_at(self.agent_port, line)
    }

    /// The same at another agent.
    pub(crate) fn rexec_at(&self, port: u16, line: &str) -> Command {
        let mut command = self.rexec_words(port);
        command.args(["127.0.0.1", line]);
        command
    }

    /// `rexec`, without its words.
    pub(crate) fn rexec_words(&self, port: u16) -> Command {
        let mut command = self.with_credentials(Command::new(self.bin.join("rexec")));
        command.env("REXEC_PORT", port.to_string());
        command
    }

    /// A command that can, by what it calls, connect as the user.
    pub(crate) fn with_credentials(&self, mut command: Command) -> Command {
        let Files { identity, authority, .. } = self.files();
        command.env("REXEC_IDENTITY", identity).env("REXEC_AUTHORITY", authority);
        command
    }

    /// `ssh HOST LINE`, with one of the hosts in the script's configuration: `cold`, or `master`,
    /// whose connection is shared.
    pub(crate) fn ssh(&self, host: &str, line: &str) -> Command {
        let mut command = Command::new("ssh");
        command.arg("-F").arg(self.dir.join("ssh_config")).args([host, line]);
        command
    }

    /// A connection for `ssh("master", …)`, held open.
    pub(crate) fn master(&self) -> Result<Helper> {
        let mut command = Command::new("ssh");
        command.arg("-F").arg(self.dir.join("ssh_config")).args(["-M", "-N", "master"]);
        command.stdin(Stdio::null()).stdout(Stdio::null());
        let master = Helper(command.spawn()?);
        for _ in 0..100 {
            std::thread::sleep(std::time::Duration::from_millis(50));
            if self.dir.join("master").exists() {
                return Ok(master);
            }
        }
        Err("the ssh ControlMaster did not come up".into())
    }

    /// The server of the bare copy, and its port.
    pub(crate) fn bare(&self) -> Result<(Helper, u16)> {
        let files = self.credentials("agent.pem");
        let mut command = part("bare-serve", &files)?;
        let mut server = Helper(command.stdout(Stdio::piped()).spawn()?);
        let mut line = String::new();
        let stdout = server.0.stdout.take().ok_or("no stdout")?;
        BufReader::new(stdout).read_line(&mut line)?;
        Ok((server, line.trim().parse()?))
    }

    /// The client of the bare copy.
    pub(crate) fn bare_copy(&self, port: u16, command: Option<&str>) -> Result<Command> {
        let mut client = part(bare::COPY, &self.files())?;
        client.args(["--port", &port.to_string()]).args(command);
        Ok(client)
    }

    /// A process with `count` idle connections.
    pub(crate) fn hold(&self, count: usize) -> Result<Command> {
        let mut holder = part("hold", &self.files())?;
        holder.args(["--port", &self.agent_port.to_string(), &count.to_string()]);
        Ok(holder)
    }
}

/// How long a command takes that has nothing to read, and that nobody listens to.
pub(crate) fn seconds(mut command: Command) -> Result<f64> {
    command.stdin(Stdio::null()).stdout(Stdio::null());
    let start = Instant::now();
    let status = command.status()?;
    let took = start.elapsed().as_secs_f64();
    if !status.success() {
        return Err(format!("{command:?}: {status}").into());
    }
    Ok(took)
}

/// This program, as another process.
fn part(name: &str, files: &Files) -> Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    let flag = |command: &mut Command, name: &str, path: &Path| {
        command.arg(name).arg(path);
    };
    command.arg(name);
    flag(&mut command, "--identity", &files.identity);
    flag(&mut command, "--authority", &files.authority);
    Ok(command)
}
