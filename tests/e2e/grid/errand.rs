//! What a client is sent for: a command under an id, a job that it comes to, or a file.

use super::history::Told;
use crate::support::TestAgent;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long a client may take, whatever happened to it.
const PATIENCE: Duration = Duration::from_secs(60);

/// One errand, and every client that was sent for it.
pub struct Errand {
    /// Also the id of its job.
    pub name: &'static str,
    /// Somewhere in the command line of all that is run for it.
    pub mark: String,
    pub how: How,
    /// What the clients have told, one after the other.
    pub told: Vec<Told>,
    /// The agent's folder, in which all files are.
    dir: PathBuf,
    /// The proxy's port.
    port: u16,
}

/// What kind of errand it is.
pub enum How {
    Command {
        line: String,
        input: PathBuf,
        /// What it writes to stdout.
        output: Vec<u8>,
        /// It was detached before, and the clients come to it.
        detached: bool,
    },
    Transfer {
        verb: &'static str,
        from: PathBuf,
        to: PathBuf,
        old: Vec<u8>,
        new: Vec<u8>,
        /// The content comes through a pipe, which stays open until the file `go` is there.
        through_pipe: bool,
    },
}

impl Errand {
    /// A command that appends to its file of marks, does `script`, and ends with 7.
    pub fn command(
        name: &'static str,
        (agent, port): (&TestAgent, u16),
        script: &str,
        (input, output): (String, String),
        detached: bool,
    ) -> Self {
        let mark = format!("grid-{name}-of-{}-{port}", std::process::id());
        let dir = agent.path("");
        let marks = dir.join(format!("{name}.marks"));
        let wait = format!("until [ -e {} ]; do sleep 0.02; done", dir.join("go").display());
        let script = script.replace("WAIT", &wait);
        let line = format!("echo ran >>{}; {script}; exit 7 # {mark}", marks.display());
        let file = dir.join(format!("{name}.input"));
        fs::write(&file, input).unwrap();
        let how = How::Command { line, input: file, output: output.into(), detached };
        Self { name, mark, how, told: Vec::new(), dir, port }
    }

    /// A transfer of `new` to where `old` is.
    pub fn transfer(
        name: &'static str,
        (agent, port): (&TestAgent, u16),
        verb: &'static str,
        (old, new): (Vec<u8>, Vec<u8>),
        through_pipe: bool,
    ) -> Self {
        let dir = agent.path("");
        let (from, to) = (dir.join("source"), dir.join("there/file"));
        fs::create_dir(dir.join("there")).unwrap();
        fs::write(&from, &new).unwrap();
        fs::write(&to, &old).unwrap();
        let mark = format!("grid-{name}-of-{}-{port}", std::process::id());
        let how = How::Transfer { verb, from, to, old, new, through_pipe };
        Self { name, mark, how, told: Vec::new(), dir, port }
    }

    /// How often the command was begun.
    pub fn ran(&self) -> usize {
        let marks = fs::read_to_string(self.path("marks")).unwrap_or_default();
        marks.lines().count()
    }

    /// How much the client of now has written out.
    pub fn written(&self) -> u64 {
        fs::metadata(self.of_now("out")).map_or(0, |file| file.len())
    }

    /// The draft of the file that is transferred, with its length.
    pub fn draft(&self) -> Option<u64> {
        let entries = fs::read_dir(self.dir.join("there")).unwrap().flatten();
        let draft =
            entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(".rexec-"));
        draft.filter_map(|entry| Some(entry.metadata().ok()?.len())).next()
    }

    /// Starts the command and leaves.
    pub fn detach(&self, agent: &TestAgent) {
        let How::Command { line, .. } = &self.how else { unreachable!("only commands") };
        let mut client = self.rexec(agent, &[]);
        client.arg("-d").args(["--id", self.name, "127.0.0.1", line]);
        let output = client.output().unwrap();
        assert_eq!(output.stdout, format!("{}\n", self.name).as_bytes(), "{output:?}");
    }

    /// Sends a client, with its record in a file of its own.
    pub fn send(&self, agent: &TestAgent) -> Child {
        let rexec = match &self.how {
            How::Command { line, detached: false, .. } => {
                let mut rexec = self.rexec(agent, &[]);
                rexec.args(["--status-fd", "3", "--id", self.name, "127.0.0.1", line]);
                rexec
            }
            How::Command { .. } => {
                let mut rexec = self.rexec(agent, &["attach"]);
                rexec.args(["--status-fd", "3", "127.0.0.1", self.name]);
                rexec
            }
            How::Transfer { verb, from, to, through_pipe, .. } => {
                let mut rexec = self.rexec(agent, &[verb]);
                let there = |path: &Path| format!("127.0.0.1:{}", path.display());
                match (*verb, through_pipe) {
                    ("get", _) => rexec.arg(there(from)).arg(to),
                    (_, true) => rexec.arg("-").arg(there(to)),
                    (_, false) => rexec.arg(from).arg(there(to)),
                };
                rexec
            }
        };
        let mut command = Command::new("sh");
        command.args(["-c", "exec \"$@\" 3>\"$0\""]).arg(self.of_now("record"));
        command.arg(rexec.get_program()).args(rexec.get_args()).env_clear();
        for (name, value) in rexec.get_envs() {
            command.env(name, value.unwrap());
        }
        command
            .stdin(self.input())
            .stdout(File::create(self.of_now("out")).unwrap())
            .stderr(File::create(self.of_now("words")).unwrap());
        command.spawn().unwrap()
    }

    fn rexec(&self, agent: &TestAgent, verb: &[&str]) -> Command {
        let mut rexec = agent.rexec();
        let port = if verb.iter().any(|verb| ["put", "get"].contains(verb)) { "-P" } else { "-p" };
        rexec.args(verb).args([port, &self.port.to_string()]);
        rexec.args(["--reconnect-for", "20s", "--connect-timeout", "5s"]);
        rexec
    }

    fn input(&self) -> Stdio {
        match &self.how {
            How::Command { input, .. } => File::open(input).unwrap().into(),
            How::Transfer { through_pipe: false, .. } => Stdio::null(),
            How::Transfer { from, .. } => {
                // Ends when the file is there, or when its cell is gone without it.
                let script = "cat \"$0\"; \
                              until [ -e \"$1\" ] || [ ! -e \"$0\" ]; do sleep 0.02; done";
                let mut feeder = Command::new("sh");
                feeder.args(["-c", script]).arg(from).arg(self.dir.join("go"));
                let feeder = feeder.stdin(Stdio::null()).stdout(Stdio::piped()).spawn();
                feeder.unwrap().stdout.unwrap().into()
            }
        }
    }

    /// Waits for a client to end, and notes down what it has told.
    pub fn hear(&mut self, mut client: Child, agent: &TestAgent) -> &Told {
        let begin = Instant::now();
        while client.try_wait().unwrap().is_none() {
            if begin.elapsed() > PATIENCE {
                client.kill().unwrap();
                client.wait().unwrap();
                let words = fs::read_to_string(self.of_now("words")).unwrap();
                panic!("a client never ends; it said: {words:?}");
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        let read = |what| fs::read(self.of_now(what)).unwrap();
        let told = Told {
            code: client.wait().unwrap().code(),
            record: serde_json::from_slice(&read("record")).ok(),
            output: read("out"),
            words: String::from_utf8_lossy(&read("words")).into_owned(),
            ran: self.ran(),
            requested: agent.log().contains("command requested"),
        };
        self.told.push(told);
        self.told.last().unwrap()
    }

    /// Whether whoever is told this asks again: because nothing ran, because it is not known how it ended,
    /// or because the file is not where it belongs.
    pub fn is_to_be_sent_again(&self) -> bool {
        let Some(last) = self.told.last() else { return true };
        match &self.how {
            How::Command { .. } => {
                last.code.is_none() || matches!(last.outcome(), "unreachable" | "lost")
            }
            How::Transfer { .. } => last.code != Some(0),
        }
    }

    fn path(&self, what: &str) -> PathBuf {
        self.dir.join(format!("{}.{what}", self.name))
    }

    /// A file of the client that is there now, or comes next.
    fn of_now(&self, what: &str) -> PathBuf {
        self.path(&format!("{what}.{}", self.told.len()))
    }
}
