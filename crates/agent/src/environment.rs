//! From a request to what is handed to the kernel: program, environment, directory.
//!
//! The environment is built from nothing, as sshd does it; see environ(7) and sshd(8), "LOGIN
//! PROCESS". What the client sent, and policy let pass, is added last, so a command sees what its caller
//! asked for, except for the variables that say what rexec knows.

use crate::account::Account;
use crate::keeper::{LaunchSpec, Program};
use crate::policy::Permit;
use rexec_net::Identity;
use rexec_protocol::JobId;
use rexec_protocol::message::Command;
use serde_bytes::ByteBuf;
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

const PATH: &str = "/usr/local/bin:/usr/bin:/bin";
const ROOT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Works out what to launch.
pub fn launch_spec(permit: &Permit, identity: &Identity, job: &JobId) -> LaunchSpec {
    let (spec, account) = (permit.spec(), permit.account());
    LaunchSpec {
        program: program(&spec.command, account),
        env: variables(permit, identity, job),
        cwd: spec.cwd.clone().unwrap_or_else(|| bytes(&account.home)),
        stdin: spec.stdin,
    }
}

fn program(command: &Command, account: &Account) -> Program {
    match command {
        Command::Argv(words) => Program::Argv { words: words.clone(), argv0: None },
        Command::Line(line) => Program::Argv {
            words: vec![bytes(&account.shell), ByteBuf::from("-c"), line.clone()],
            argv0: account.shell.file_name().map(bytes),
        },
        Command::Script { text, args } => {
            let (text, args) = (text.clone(), args.clone());
            Program::Script { text, args, name: ByteBuf::from("script") }
        }
    }
}

fn variables(permit: &Permit, identity: &Identity, job: &JobId) -> Vec<(ByteBuf, ByteBuf)> {
    let (spec, account) = (permit.spec(), permit.account());
    let path = if account.is_root { ROOT_PATH } else { PATH };
    let ours: [(&str, &OsStr); 5] = [
        ("HOME", account.home.as_os_str()),
        ("USER", account.name.as_ref()),
        ("LOGNAME", account.name.as_ref()),
        ("SHELL", account.shell.as_os_str()),
        ("PATH", path.as_ref()),
    ];
    let known = [("REXEC_JOB", job.as_str().as_ref()), ("REXEC_CALLER", identity.name().as_ref())];
    let original =
        permit.original().map(|words| ("REXEC_ORIGINAL_COMMAND", OsStr::from_bytes(words)));
    let facts = known.into_iter().chain(original);
    let pair = |(name, value): (&str, &OsStr)| (ByteBuf::from(name), bytes(value));
    let mut variables: BTreeMap<ByteBuf, ByteBuf> = BTreeMap::new();
    let asked = spec.env.iter().cloned();
    for (name, value) in ours.into_iter().map(pair).chain(asked).chain(facts.map(pair)) {
        variables.insert(name, value);
    }
    variables.into_iter().collect()
}

fn bytes(text: impl AsRef<OsStr>) -> ByteBuf {
    ByteBuf::from(text.as_ref().as_bytes())
}
