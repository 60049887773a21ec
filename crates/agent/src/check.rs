//! `rexec-agent --check`: is this configuration fit to run, and what is in force?

use crate::account::Account;
use crate::config::Config;
use crate::console::columns::counted;
use crate::policy::Policy;
use crate::{audit, console};
use nix::unistd::AccessFlags;
use rexec_net::credentials::Credentials;
use rexec_net::{tls, trusted};
use std::fs;
use std::io::{self, Write};
use std::os::unix::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Writes what is in force, or what is wrong, to `out`; fails if anything is wrong.
pub fn report(config: &Config, out: &mut dyn Write) -> ExitCode {
    match write_report(config, out) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) | Err(_) => ExitCode::FAILURE,
    }
}

fn write_report(config: &Config, out: &mut dyn Write) -> io::Result<bool> {
    // As it could be in the file, defaults included.
    let text = toml::to_string(config).map_err(io::Error::other)?;
    writeln!(out, "{text}")?;
    let mut fit = true;
    let mut verdict = |what: &str, result: Result<String, String>| match result {
        Ok(words) => writeln!(out, "# {what}: ok: {words}"),
        Err(words) => {
            fit = false;
            writeln!(out, "# {what}: WRONG: {words}")
        }
    };
    verdict("account", account())?;
    let credentials = Credentials::load(&config.files())
        .and_then(|credentials| tls::server_config(&credentials))
        .map_err(|error| error.to_string());
    verdict(
        "certificates",
        credentials.map(|_| "key, chain and authority fit together".to_owned()),
    )?;
    if config.crl.is_none() {
        let words = "there is none: 'crl' names no file, so no certificate counts as revoked";
        verdict("revocation", Ok(words.to_owned()))?;
    }
    verdict("state folder", state_folder(&config.state_dir))?;
    verdict("policy", policy(config))?;
    verdict("audit log", audit::check(&config.audit))?;
    Ok(fit)
}

/// Whom commands run as.
pub(crate) fn account() -> Result<String, String> {
    let own = Account::own().map_err(|error| error.to_string())?;
    Ok(if own.is_root() {
        "commands run as the user that the policy permits".to_owned()
    } else {
        format!("not root, so all commands run as {}", own.name)
    })
}

/// Whether an agent could use its private folder; one may be running, and nothing is made.
pub(crate) fn state_folder(state: &Path) -> Result<String, String> {
    let shown = state.display();
    let found = usable(state).map_err(|why| {
        format!(
            "cannot use the folder {shown}: {why}; mend that, or name another with 'state_dir' in the agent's configuration"
        )
    })?;
    Ok(if found { format!("{shown}") } else { format!("{shown}; it will be made") })
}

/// Whether it is there.
fn usable(state: &Path) -> Result<bool, String> {
    // As the agent will listen there; how long a path may be is the kernel's matter.
    SocketAddr::from_pathname(console::place(state))
        .map_err(|_| "its path is too long for a socket in it".to_owned())?;
    let is_there = match fs::metadata(state) {
        Ok(metadata) if !metadata.is_dir() => return Err("it is no folder".to_owned()),
        Ok(metadata) => {
            trusted::demand_unchangeable(state, &metadata)?;
            true
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => false,
        Err(error) => return Err(error.to_string()),
    };
    let jobs = state.join("jobs");
    if let Ok(metadata) = fs::symlink_metadata(&jobs) {
        trusted::demand_unchangeable(&jobs, &metadata)?;
    }
    let nearest = state.ancestors().find(|folder| folder.exists()).unwrap_or(Path::new("."));
    let access = AccessFlags::W_OK | AccessFlags::X_OK;
    nix::unistd::access(nearest, access)
        .map_err(|error| format!("{} may not be written: {error}", nearest.display()))?;
    Ok(is_there)
}

/// That there is no policy is no fault, unless one was named: then it is more likely that the name is wrong.
///
/// # Errors
/// Which file is not there.
pub fn named_policy(config: &Config) -> Result<(), String> {
    let file = &config.policy;
    if *file == Config::default().policy || file.exists() {
        return Ok(());
    }
    Err(format!(
        "'policy' names {}, and there is no such file, so nothing in it counts; mend the name, or write the policy there",
        whole(file).display()
    ))
}

/// Loads the policy and runs the tests that it carries.
pub(crate) fn policy(config: &Config) -> Result<String, String> {
    let policy = Policy::load(&config.policy_paths()).map_err(|error| error.to_string())?;
    named_policy(config)?;
    let (rules, files, tests) = (policy.rules().len(), policy.files().len(), policy.tests());
    let failures: Vec<String> = policy.failures().iter().map(ToString::to_string).collect();
    if !failures.is_empty() {
        let count = failures.len();
        let tests = counted(tests, "test");
        return Err(format!("{count} of {tests} fail:\n#   {}", failures.join("\n#   ")));
    }
    if rules == 0 {
        return Ok(format!("there is none, so everything is denied; {}", policy.how_to_begin()));
    }
    let (rules, files, tests) =
        (counted(rules, "rule"), counted(files, "file"), counted(tests, "test"));
    let words = format!("{rules} in {files}; {tests}, none fails");
    Ok(match policy.idle_at_console().as_slice() {
        [] => words,
        idle => format!(
            "{words}; note: 'ctl' allows nobody anything in {}: only root and the agent's own user get to the console, as \"local:NAME\", and they need no rule",
            idle.join(", ")
        ),
    })
}

/// A path that can be found from wherever it is read.
fn whole(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    /// A name that is wrong by a letter looks like a policy that allows nothing.
    #[test]
    fn a_policy_that_was_named_and_is_not_there_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        let named =
            Config { policy: path("polcy.toml"), policy_folder: path("d"), ..Config::default() };
        let why = policy(&named).unwrap_err();
        assert!(why.contains("no such file") && why.contains("/polcy.toml"), "{why}");
        // Where the name counts from, nobody has to guess.
        let relative = Config { policy: "no-such/polcy.toml".into(), ..named.clone() };
        let here = std::env::current_dir().unwrap().join("no-such/polcy.toml");
        assert!(policy(&relative).unwrap_err().contains(here.to_str().unwrap()));
        let rule = "[[rule]]\nname = 'a'\nusers = ['alice']\n";
        let write = |text: &str| {
            fs::write(path("polcy.toml"), text).unwrap();
            fs::set_permissions(path("polcy.toml"), fs::Permissions::from_mode(0o600)).unwrap();
        };
        write("");
        assert!(policy(&named).unwrap().contains("everything is denied"));
        write(&format!("{rule}who = true\n"));
        assert_eq!(policy(&named).unwrap(), "1 rule in 1 file; 0 tests, none fails");
        write(&format!("{rule}ctl = ['status']\n"));
        let words = policy(&named).unwrap();
        assert!(words.contains("'ctl' allows nobody anything in a: "), "{words}");
    }

    /// It is what a start does: an agent that passed `--check` must not fail for it.
    #[test]
    fn a_state_folder_that_no_agent_would_use_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let state = dir.path().join("state");
        let told = state_folder(&state).unwrap();
        assert!(told.ends_with("it will be made") && !state.exists(), "{told}");
        fs::create_dir(&state).unwrap();
        for (mode, fits) in [(0o700, true), (0o755, true), (0o777, false), (0o770, false)] {
            fs::set_permissions(&state, fs::Permissions::from_mode(mode)).unwrap();
            let told = state_folder(&state);
            assert_eq!(told.is_ok(), fits, "{mode:o}: {told:?}");
            assert!(told.err().is_none_or(|why| why.contains("chmod go-w")));
        }
        fs::set_permissions(&state, fs::Permissions::from_mode(0o700)).unwrap();
        fs::create_dir(state.join("jobs")).unwrap();
        fs::set_permissions(state.join("jobs"), fs::Permissions::from_mode(0o777)).unwrap();
        assert!(state_folder(&state).unwrap_err().contains("jobs"));
        fs::write(dir.path().join("file"), "").unwrap();
        assert!(state_folder(&dir.path().join("file")).unwrap_err().contains("no folder"));
        assert!(state_folder(&dir.path().join("x".repeat(120))).unwrap_err().contains("too long"));
    }

    /// It was to be given to root, and then that agent could not have used it any more.
    #[test]
    fn root_is_told_to_check_an_agent_that_is_not_root_as_its_user() {
        if !nix::unistd::Uid::effective().is_root() {
            eprintln!("skipped: only root can give a folder away");
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        std::os::unix::fs::chown(dir.path(), Some(65534), None).unwrap();
        let why = state_folder(dir.path()).unwrap_err();
        let both = why.contains("belongs to uid 65534") && why.contains("this runs as uid 0");
        assert!(both && why.contains("run it as the file's user"), "{why}");
        assert!(!why.contains("chown"), "{why}");
    }
}
