//! A terminal for tests: a tmux server of its own with one window, in which a shell runs as a person
//! would have it.

use super::TestAgent;
use super::proc::eventually;
use std::process::Command;
use tempfile::TempDir;

/// A window, and the person at it.
pub struct Terminal {
    dir: TempDir,
}

/// Whether this machine has tmux; says so if not.
pub fn available() -> bool {
    let available = Command::new("tmux").arg("-V").output().is_ok();
    if !available {
        eprintln!("skipped: tmux is missing (apt-get install tmux)");
    }
    available
}

impl Terminal {
    /// Opens a window of this size, with `rexec` set up as Alice has it. Its prompt is `here$ `.
    pub fn open(agent: &TestAgent, columns: u16, rows: u16) -> Self {
        let terminal = Self { dir: tempfile::tempdir().unwrap() };
        let rexec = agent.rexec();
        let variables = rexec.get_envs().filter_map(|(name, value)| Some((name, value?)));
        let (columns, rows) = (columns.to_string(), rows.to_string());
        let mut tmux = terminal.tmux();
        tmux.args(["new-session", "-d", "-x", &columns, "-y", &rows, "--"]);
        tmux.args(["env", "PS1=here$ ", "LANG=C.UTF-8"]);
        for (name, value) in variables {
            tmux.arg([name, "=".as_ref(), value].join("".as_ref()));
        }
        tmux.args(["bash", "--norc", "--noprofile"]).env_remove("TMUX");
        assert!(tmux.status().unwrap().success());
        terminal.shows("here$");
        let program = rexec.get_program().to_str().unwrap();
        terminal.enter(&format!("rexec() {{ {program} \"$@\"; }}; clear"));
        terminal
    }

    /// Types a text, as it is.
    pub fn types(&self, text: &str) {
        self.tell(&["send-keys", "-l", "--", text]);
    }

    /// Pastes a text, and marks it as pasted if the program has asked for that.
    pub fn pastes(&self, text: &str) {
        self.tell(&["set-buffer", "--", text]);
        self.tell(&["paste-buffer", "-p"]);
    }

    /// Presses keys by their names: `Enter`, `C-c`.
    pub fn press(&self, keys: &[&str]) {
        self.tell(&[&["send-keys"], keys].concat());
    }

    /// Types a line.
    pub fn enter(&self, line: &str) {
        self.types(line);
        self.press(&["Enter"]);
    }

    /// Gives the window another size.
    pub fn resize(&self, columns: u16, rows: u16) {
        let (columns, rows) = (columns.to_string(), rows.to_string());
        self.tell(&["resize-window", "-x", &columns, "-y", &rows]);
    }

    /// What can be seen now.
    pub fn screen(&self) -> String {
        let output = self.tmux().args(["capture-pane", "-p"]).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    }

    /// Waits until `part` can be seen.
    pub fn shows(&self, part: &str) {
        self.becomes(&format!("'{part}' is shown"), |screen| screen.contains(part));
    }

    /// Waits until the screen is so.
    pub fn becomes(&self, what: &str, is_so: impl Fn(&str) -> bool) {
        let mut last = String::new();
        let waited = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            eventually(what, || {
                last = self.screen();
                is_so(&last)
            });
        }));
        assert!(waited.is_ok(), "{what}, but on the screen is:\n{last}");
    }

    /// Waits until a line of the screen is this, without blanks at its end.
    pub fn shows_line(&self, line: &str) {
        let is_there = |screen: &str| screen.lines().any(|shown| shown.trim_end() == line);
        self.becomes(&format!("a line '{line}' is shown"), is_there);
    }

    /// Waits for the prompt of the shell here: what is typed before it goes elsewhere.
    pub fn is_back(&self) {
        self.becomes("it is back at its prompt", |screen| {
            screen.trim_end().ends_with("\nhere$") || screen.trim_end() == "here$"
        });
    }

    /// How the terminal is set just now, as stty shows it.
    pub fn modes(&self) -> String {
        let output = self.tmux().args(["display-message", "-p", "#{pane_tty}"]).output().unwrap();
        let tty = String::from_utf8(output.stdout).unwrap();
        let output = Command::new("stty").args(["-a", "-F", tty.trim()]).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    }

    /// A program has the whole screen, and what was there before is kept for later.
    pub fn is_filled(&self) -> bool {
        let output = self.tmux().args(["display-message", "-p", "#{alternate_on}"]).output();
        output.unwrap().stdout == b"1\n"
    }

    fn tell(&self, words: &[&str]) {
        assert!(self.tmux().args(words).status().unwrap().success(), "{words:?}");
    }

    fn tmux(&self) -> Command {
        let mut tmux = Command::new("tmux");
        tmux.arg("-S").arg(self.dir.path().join("tmux")).args(["-f", "/dev/null"]);
        tmux
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.tmux().arg("kill-server").output();
    }
}
