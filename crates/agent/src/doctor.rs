//! `rexec-agent doctor`: is this machine fit to run an agent, and if not, what is to be mended?
//!
//! [`crate::check`] prints what is in force; this looks at the machine around it, too.

use crate::account::Account;
use crate::config::{Config, ConfigError};
use crate::policy::Policy;
use crate::{audit, check};
use nix::unistd::{AccessFlags, access};
use rexec_net::checkup::{Report, Side, Verdict, credentials};
use rexec_protocol::outcome::printable;
use std::ffi::OsString;
use std::fs;
use std::io::{self, Write};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::SystemTime;

/// Looks at one matter and adds what it finds.
type Look = fn(&Config, &mut Report);

/// Everything that is looked at, in this order. A new check is one line here.
const LOOKS: &[Look] =
    &[account, files, state_folder, policy, users, programs, subsystems, audit_log, ports];

/// Checks everything and writes one line for each finding; fails if anything is wrong.
pub fn run(config: Result<Config, ConfigError>, json: bool, out: &mut dyn Write) -> ExitCode {
    let mut report = Report::default();
    match config {
        Ok(config) => {
            report.add("configuration", Verdict::Ok, "it can be read, and every key is known");
            LOOKS.iter().for_each(|look| look(&config, &mut report));
        }
        Err(error) => report.add("configuration", Verdict::Wrong, error.to_string()),
    }
    match write(&report, json, out) {
        Ok(()) if report.is_healthy() => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    }
}

fn write(report: &Report, json: bool, out: &mut dyn Write) -> io::Result<()> {
    report.checks().iter().try_for_each(|check| {
        if json {
            writeln!(out, "{}", serde_json::to_string(check)?)
        } else {
            writeln!(out, "{check}")
        }
    })
}

fn account(_: &Config, report: &mut Report) {
    report.judge("account", check::account());
}

fn state_folder(config: &Config, report: &mut Report) {
    report.judge("state folder", check::state_folder(&config.state_dir));
}

fn policy(config: &Config, report: &mut Report) {
    report.judge("policy", check::policy(config));
}

/// As whom nothing can run here, whatever the policy says. It is no fault: other machines with the same
/// policy may have them.
fn users(config: &Config, report: &mut Report) {
    // What is wrong with it is told by `policy`.
    let Ok(policy) = Policy::load(&config.policy_paths()) else { return };
    for name in policy.locals() {
        if let Err(error) = Account::find(name) {
            let words =
                format!("{error}; so what the policy allows 'as' that user is refused here");
            report.add("user", Verdict::Note, words);
        }
    }
}

/// What cannot be executed here, whatever the policy says; that is no fault, either.
fn programs(config: &Config, report: &mut Report) {
    let Ok(policy) = Policy::load(&config.policy_paths()) else { return };
    // Where another program is, depends on the user's PATH.
    let programs = policy.programs().into_iter().map(|it| PathBuf::from(OsString::from_vec(it)));
    for program in programs.filter(|program| program.is_absolute() && !is_program(program)) {
        let words = format!(
            "{} cannot be executed here, so that a rule which allows it allows nothing; install it, or mend \
             its path in the policy",
            printable(&program.to_string_lossy())
        );
        report.add("program", Verdict::Note, words);
    }
}

fn is_program(path: &Path) -> bool {
    access(path, AccessFlags::X_OK).is_ok() && path.is_file()
}

fn subsystems(config: &Config, report: &mut Report) {
    for (name, line) in &config.subsystems {
        // Where another program is, its shell finds out.
        let Some(program) = line.split_ascii_whitespace().next().filter(|it| it.starts_with('/'))
        else {
            continue;
        };
        if !is_program(Path::new(program)) {
            let words = format!(
                "'{name}' is {program}, which cannot be executed here, so programs that need it fail \
                 over rexec-ssh (for sftp: `sftp`, `scp`, sshfs); install it, or name another under \
                 [subsystems] in the configuration"
            );
            report.add("subsystem", Verdict::Note, words);
        }
    }
}

fn audit_log(config: &Config, report: &mut Report) {
    report.judge("audit log", audit::check(&config.audit));
}

fn files(config: &Config, report: &mut Report) {
    credentials(report, Side::Agent, &config.files(), SystemTime::now());
}

fn ports(config: &Config, report: &mut Report) {
    for address in &config.listen {
        let (verdict, words) = match TcpListener::bind(address) {
            Ok(_) => (Verdict::Ok, "it is free".to_owned()),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => in_use(*address),
            Err(error) => (
                Verdict::Wrong,
                format!("it cannot be listened on: {error}; see 'listen' in the configuration"),
            ),
        };
        report.add("port", verdict, format!("{address}: {words}"));
    }
}

/// Who has a port that is not free, as far as this process may know.
fn in_use(address: SocketAddr) -> (Verdict, String) {
    match listener(address.port()) {
        Some((pid, name)) if name == "rexec-agent" => {
            (Verdict::Ok, format!("an agent listens on it, process {pid}"))
        }
        Some((pid, name)) => (
            Verdict::Wrong,
            format!(
                "'{}' listens on it, process {pid}; end that, or choose another port with 'listen'",
                printable(&name)
            ),
        ),
        None => (
            Verdict::Note,
            "something listens on it: an agent that runs already, or another program; ask as root, or with `ss -ltnp`".to_owned(),
        ),
    }
}

/// The process that listens on a TCP port, and its name; see proc_net(5) and proc_pid_fd(5).
fn listener(port: u16) -> Option<(u32, String)> {
    const LISTEN: &str = "0A";
    let tables = ["/proc/net/tcp", "/proc/net/tcp6"].map(|path| fs::read_to_string(path).ok());
    let lines = tables.iter().flatten().flat_map(|table| table.lines().skip(1));
    let sockets: Vec<String> = lines
        .filter_map(|line| {
            let mut columns = line.split_ascii_whitespace();
            let (local, state, inode) = (columns.nth(1)?, columns.nth(1)?, columns.nth(5)?);
            let (_, number) = local.rsplit_once(':')?;
            let listens = state == LISTEN && u16::from_str_radix(number, 16) == Ok(port);
            listens.then(|| format!("socket:[{inode}]"))
        })
        .collect();
    let is_one = |link: &Path| sockets.iter().any(|socket| link.as_os_str() == socket.as_str());
    fs::read_dir("/proc").ok()?.flatten().find_map(|process| {
        let pid = process.file_name().to_str()?.parse().ok()?;
        let mut open = fs::read_dir(process.path().join("fd")).ok()?.flatten();
        open.any(|fd| fs::read_link(fd.path()).is_ok_and(|link| is_one(&link))).then_some(())?;
        let name = fs::read_to_string(process.path().join("comm")).ok()?;
        Some((pid, name.trim_end().to_owned()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn lines(config: Result<Config, ConfigError>) -> Vec<serde_json::Value> {
        let mut out = Vec::new();
        run(config, true, &mut out);
        let text = String::from_utf8(out).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    #[test]
    fn a_port_that_is_taken_is_told_with_its_owner() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap();
        let found = lines(Ok(Config { listen: vec![address], ..Config::default() }));
        let port = found.iter().find(|line| line["check"] == "port").unwrap();
        let words = port["message"].as_str().unwrap();
        assert_eq!(port["verdict"], "wrong", "{words}");
        assert!(words.contains(&format!("process {}", std::process::id())), "{words}");
        drop(taken);
        let found = lines(Ok(Config { listen: vec![address], ..Config::default() }));
        let port = found.iter().find(|line| line["check"] == "port").unwrap();
        assert_eq!(port["verdict"], "ok");
    }

    #[test]
    fn a_state_folder_that_others_may_write_is_a_finding() {
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o777)).unwrap();
        let state_dir = dir.path().to_owned();
        let found = lines(Ok(Config { state_dir, listen: Vec::new(), ..Config::default() }));
        let state = found.iter().find(|line| line["check"] == "state folder").unwrap();
        assert_eq!(state["verdict"], "wrong", "{state}");
    }

    #[test]
    fn users_and_subsystems_that_are_not_here_are_told() {
        let dir = tempfile::tempdir().unwrap();
        let policy = dir.path().join("policy.toml");
        let rule = "[[rule]]\nname = 'a'\nusers = ['alice']\nas = ['no-such-user', '@self', '*']\n\
                    commands = 'any'\n";
        fs::write(&policy, rule).unwrap();
        fs::set_permissions(&policy, fs::Permissions::from_mode(0o600)).unwrap();
        let subsystem = |name: &str, line: &str| (name.to_owned(), line.to_owned());
        let missing = subsystem("sftp", "/no/such/sftp-server -e");
        let (here, by_name) = (subsystem("here", "/bin/sh -c x"), subsystem("name", "no-such x"));
        let folder = subsystem("up", "/usr");
        let config = Config {
            policy,
            policy_folder: dir.path().join("d"),
            subsystems: [missing, here, by_name, folder].into(),
            listen: Vec::new(),
            ..Config::default()
        };
        let found = lines(Ok(config));
        let of = |check: &str| -> Vec<_> {
            found.iter().filter(|line| line["check"] == check).collect()
        };
        let [user] = of("user")[..] else { panic!("{found:?}") };
        assert_eq!(user["verdict"], "note");
        assert!(user["message"].as_str().unwrap().contains("no user 'no-such-user'"), "{user}");
        let [sftp, up] = of("subsystem")[..] else { panic!("{found:?}") };
        assert!(
            sftp["message"].as_str().unwrap().contains("/no/such/sftp-server, which"),
            "{sftp}"
        );
        assert!(up["message"].as_str().unwrap().contains("'up' is /usr, which"), "{up}");
    }

    #[test]
    fn a_configuration_that_cannot_be_read_is_a_finding() {
        let found = lines(Err(ConfigError::Value("'listen' names no address".to_owned())));
        assert_eq!(found.len(), 1);
        assert_eq!(
            (&found[0]["check"], &found[0]["verdict"]),
            (&"configuration".into(), &"wrong".into())
        );
    }
}
