//! Completions and man pages, from the definitions that parse the command line.

use crate::args::Cli;
use crate::ssh;
use clap::builder::Resettable;
use clap::{Command, CommandFactory};
use clap_complete::Shell;
use clap_mangen::Man;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

/// Writes the completions for `shell`.
pub fn completions(shell: Shell, to: &mut impl Write) -> io::Result<()> {
    // Made in memory first: the generator panics where it cannot write.
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "rexec", &mut text);
    to.write_all(&text)
}

/// Writes the main page, as roff.
pub fn page(to: &mut impl Write) -> io::Result<()> {
    render(&built(), to)
}

/// Writes the pages of rexec, of all subcommands and of rexec-ssh to `dir`: `rexec.1`, `rexec-ping.1` and
/// so on.
pub fn pages(dir: &Path) -> io::Result<()> {
    fs::create_dir_all(dir)?;
    all(&built(), dir)?;
    let mut page = File::create(dir.join("rexec-ssh.1"))?;
    let title = format!(".TH rexec\\-ssh 1 \"\" \"rexec {}\"\n", env!("CARGO_PKG_VERSION"));
    page.write_all((title + &sections(ssh::help::PAGE)).as_bytes())
}

/// Names of subcommands are known only after this.
fn built() -> Command {
    let mut command = Cli::command();
    command.build();
    command
}

fn all(command: &Command, dir: &Path) -> io::Result<()> {
    let mut file = File::create(dir.join(Man::new(command.clone()).get_filename()))?;
    render(command, &mut file)?;
    command.get_subcommands().try_for_each(|subcommand| all(subcommand, dir))
}

/// As clap_mangen does it, but for the text after the options, which it would flow into one block.
fn render(command: &Command, to: &mut impl Write) -> io::Result<()> {
    let more = command.get_after_long_help().or(command.get_after_help()).map(ToString::to_string);
    let plain = command.clone().after_help(Resettable::Reset).after_long_help(Resettable::Reset);
    let man = Man::new(plain);
    man.render_title(to)?;
    man.render_name_section(to)?;
    man.render_synopsis_section(to)?;
    man.render_description_section(to)?;
    man.render_options_section(to)?;
    if command.has_subcommands() {
        man.render_subcommands_section(to)?;
    }
    to.write_all(sections(&more.unwrap_or_default()).as_bytes())
}

/// Paragraphs become sections if their first line ends with a colon; their lines stay lines.
fn sections(text: &str) -> String {
    let mut roff = String::new();
    for paragraph in text.split("\n\n").filter(|paragraph| !paragraph.is_empty()) {
        let (title, body) = match paragraph.split_once('\n') {
            Some((first, rest)) if first.ends_with(':') => (first.trim_end_matches(':'), rest),
            _ => ("Notes", paragraph),
        };
        roff.push_str(&format!(".SH {}\n.nf\n", title.to_uppercase()));
        for line in body.lines() {
            // \& keeps a leading dot or quote from being a request.
            roff.push_str("\\&");
            roff.push_str(&line.replace('\\', "\\e").replace('-', "\\-").replace('\'', "\\(aq"));
            roff.push('\n');
        }
        roff.push_str(".fi\n");
    }
    roff
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_pages_are_written() {
        let dir = tempfile::tempdir().unwrap();
        pages(dir.path()).unwrap();
        for page in
            ["rexec.1", "rexec-run.1", "rexec-ping.1", "rexec-ca.1", "rexec-man.1", "rexec-ssh.1"]
        {
            let text = fs::read_to_string(dir.path().join(page)).unwrap();
            assert!(text.contains(".TH"), "{page}");
        }
        let main = fs::read_to_string(dir.path().join("rexec.1")).unwrap();
        assert!(main.contains(".SH EXIT STATUS\n.nf\n") && main.contains("status\\-fd"), "{main}");
    }

    #[test]
    fn text_cannot_become_a_request() {
        let roff = sections("Examples:\n.so x\n'a' \\b -c");
        assert_eq!(roff, ".SH EXAMPLES\n.nf\n\\&.so x\n\\&\\(aqa\\(aq \\eb \\-c\n.fi\n");
    }

    #[test]
    fn completions_know_the_options() {
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
            let mut text = Vec::new();
            completions(shell, &mut text).unwrap();
            let text = String::from_utf8(text).unwrap();
            assert!(text.contains("status-fd") && text.contains("ping"), "{shell}");
        }
    }
}
