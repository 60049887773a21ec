//! The last steps of a new process before it is the command.

use super::cgroup::Cgroup;
use super::limits::Controllers;
use super::wire::{Failure, Stage};
use super::{Credentials, LaunchSpec, Limits, Program, sys};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::signal::SigSet;
use nix::sys::stat::{Mode, umask};
use nix::unistd::{chdir, dup2_stderr, dup2_stdin, dup2_stdout, execve, setsid};
use std::ffi::{CStr, CString};
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

/// Where programs are looked for when the environment has no `PATH`; glibc's own choice.
const DEFAULT_PATH: &[u8] = b"/bin:/usr/bin";
/// What this program calls itself when it starts itself.
const OWN_NAME: &[u8] = b"rexec-agent";

/// All that the new process needs, made before it is, so that what is wrong with it is known early.
pub(super) struct Image {
    /// The files to try, in order: one, or the program's name in each directory of `PATH`.
    candidates: Vec<CString>,
    argv: Vec<CString>,
    env: Vec<CString>,
    cwd: CString,
    cwd_or_root: bool,
    credentials: Option<Credentials>,
    umask: Mode,
    limits: Limits,
    /// The file that the command must inherit: the script it consists of, or what it is to do.
    inherited: Option<OwnedFd>,
}

/// Where a job's limits are set.
pub(super) struct Site<'a> {
    pub(super) controllers: &'a Controllers,
    /// The job's cgroup of version 2.
    pub(super) cgroup: Option<PathBuf>,
    /// The job's directories of version 1.
    pub(super) name: String,
}

/// The command's ends of its pipes.
pub(super) struct Stdio {
    pub(super) stdin: OwnedFd,
    pub(super) stdout: OwnedFd,
    pub(super) stderr: OwnedFd,
}

/// Gives this process what every command has: a session, its output, and clean signals.
pub(super) fn become_clean(stdio: &Stdio, joins: Option<&Cgroup>) -> nix::Result<()> {
    setsid()?;
    if let Some(cgroup) = joins {
        cgroup.join();
    }
    dup2_stdout(&stdio.stdout)?;
    dup2_stderr(&stdio.stderr)?;
    // The actions first: a signal that waited for the mask to open must find the default.
    sys::default_signals();
    SigSet::empty().thread_set_mask()?;
    forgo_protection();
    Ok(())
}

/// The agent may be among the last to be killed when memory is short; its commands are not.
fn forgo_protection() {
    const FILE: &str = "/proc/self/oom_score_adj";
    if std::fs::read_to_string(FILE).is_ok_and(|score| score.starts_with('-')) {
        let _ = std::fs::write(FILE, "0");
    }
}

impl Image {
    pub(super) fn new(spec: &LaunchSpec, inherited: Option<OwnedFd>) -> nix::Result<Self> {
        let c = |bytes: &[u8]| CString::new(bytes).map_err(|_| Errno::EINVAL);
        let all = |words: &mut dyn Iterator<Item = &[u8]>| words.map(c).collect::<Result<_, _>>();
        let file = inherited.as_ref().map(|file| format!("/proc/self/fd/{}", file.as_raw_fd()));
        let file = file.map(|path| c(path.as_bytes())).transpose()?;
        let mut argv: Vec<CString> = match &spec.program {
            Program::Argv { words, .. } => all(&mut words.iter().map(|word| word.as_slice()))?,
            Program::Script { args, name, .. } => {
                let words = args.iter().map(|word| word.as_slice());
                all(&mut std::iter::once(name.as_slice()).chain(words))?
            }
            Program::Own { words, .. } => {
                let words = words.iter().map(|word| word.as_slice());
                let mut argv: Vec<_> = all(&mut std::iter::once(OWN_NAME).chain(words))?;
                argv.extend(file.clone());
                argv
            }
        };
        let first = argv.first_mut().ok_or(Errno::EINVAL)?;
        let candidates = match (&spec.program, file) {
            // Also after another build was put in the place of this one.
            (Program::Own { .. }, _) => vec![c(b"/proc/self/exe")?],
            (_, Some(file)) => vec![file],
            (_, None) => candidates(first.as_bytes(), spec),
        };
        if let Program::Argv { argv0: Some(name), .. } = &spec.program {
            *first = c(name)?;
        }
        let env = spec.env.iter().map(|(name, value)| c(&[name, &b"="[..], value].concat()));
        Ok(Self {
            candidates,
            argv,
            env: env.collect::<Result<_, _>>()?,
            cwd: c(&spec.cwd)?,
            cwd_or_root: spec.cwd_or_root,
            credentials: spec.credentials.clone(),
            umask: Mode::from_bits(spec.umask).ok_or(Errno::EINVAL)?,
            limits: spec.limits,
            inherited,
        })
    }

    /// Whether the program is there, when exec says that something is not.
    fn exists(&self) -> bool {
        self.candidates.iter().any(|file| nix::sys::stat::stat(file.as_c_str()).is_ok())
    }

    /// Turns this process into the command, or says why not. Without `stdin` the command reads
    /// `/dev/null`, as its keeper does; a terminal takes the place of its outputs.
    pub(super) fn become_command(
        &self,
        stdin: Option<&OwnedFd>,
        terminal: Option<&OwnedFd>,
        site: &Site<'_>,
    ) -> Failure {
        match self.prepare(stdin, terminal, site) {
            Err(failure) => failure,
            Ok(()) => {
                let failure = Failure::new(Stage::Exec, self.exec());
                Failure { found: self.exists(), ..failure }
            }
        }
    }

    /// What needs root comes before giving it up; what the user may not see, after.
    fn prepare(
        &self,
        stdin: Option<&OwnedFd>,
        terminal: Option<&OwnedFd>,
        site: &Site<'_>,
    ) -> Result<(), Failure> {
        let at = |stage| move |errno| Failure::new(stage, errno);
        self.take_descriptors(stdin, terminal).map_err(at(Stage::Resources))?;
        site.controllers
            .apply(&self.limits, site.cgroup.as_deref(), &site.name)
            .map_err(|(controller, errno)| Failure::new(Stage::Limit(controller), errno))?;
        self.limits.apply_to_process().map_err(at(Stage::Resources))?;
        umask(self.umask);
        if let Some(credentials) = &self.credentials {
            credentials.assume().map_err(at(Stage::Credentials))?;
        }
        // As the user, whose keys are to be its own.
        sys::own_session_keyring().map_err(at(Stage::Resources))?;
        let entered = chdir(self.cwd.as_c_str());
        let entered = if self.cwd_or_root { entered.or_else(|_| chdir("/")) } else { entered };
        entered.map_err(at(Stage::Cwd))
    }

    fn take_descriptors(
        &self,
        stdin: Option<&OwnedFd>,
        terminal: Option<&OwnedFd>,
    ) -> nix::Result<()> {
        if let Some(stdin) = stdin {
            dup2_stdin(stdin)?;
        }
        if let Some(terminal) = terminal {
            dup2_stdout(terminal)?;
            dup2_stderr(terminal)?;
        }
        // Every descriptor here is close-on-exec already; this is for the one that some day is not.
        sys::close_on_exec_from(3);
        if let Some(inherited) = &self.inherited {
            fcntl(inherited, FcntlArg::F_SETFD(FdFlag::empty()))?;
        }
        Ok(())
    }

    /// As execvp(3): tries each candidate, and runs a text without `#!` line by `/bin/sh`.
    fn exec(&self) -> Errno {
        if let [file] = self.candidates.as_slice() {
            return self.exec_file(file);
        }
        let mut verdict = Errno::ENOENT;
        for file in &self.candidates {
            match self.exec_file(file) {
                // Other directories are worth a try, and a program that may not be run is worth
                // more in the end than one that is not there.
                Errno::EACCES => verdict = Errno::EACCES,
                Errno::ENOENT
                | Errno::ENOTDIR
                | Errno::ESTALE
                | Errno::ENODEV
                | Errno::ETIMEDOUT => {}
                errno => return errno,
            }
        }
        verdict
    }

    fn exec_file(&self, file: &CStr) -> Errno {
        let Err(errno) = execve(file, &self.argv, &self.env);
        if errno != Errno::ENOEXEC || is_binary(file) {
            return errno;
        }
        let mut argv = vec![c"/bin/sh", file];
        argv.extend(self.argv.iter().skip(1).map(CString::as_c_str));
        let Err(errno) = execve(c"/bin/sh", &argv, &self.env);
        errno
    }
}

/// The files that `program` may mean.
fn candidates(program: &[u8], spec: &LaunchSpec) -> Vec<CString> {
    if program.contains(&b'/') {
        return CString::new(program).into_iter().collect();
    }
    let path = spec.path().unwrap_or(DEFAULT_PATH);
    let join = |directory: &[u8]| match directory {
        // An empty element is the working directory.
        [] => CString::new(program).ok(),
        _ => CString::new([directory, b"/", program].concat()).ok(),
    };
    path.split(|byte| *byte == b':').filter_map(join).collect()
}

/// A NUL in the first line: a program for another kind of machine, say, on which a shell would only
/// choke. The same test as bash's.
fn is_binary(file: &CStr) -> bool {
    use std::os::unix::ffi::OsStrExt;
    let mut head = [0; 128];
    let path = Path::new(std::ffi::OsStr::from_bytes(file.to_bytes()));
    let n = File::open(path).and_then(|mut file| file.read(&mut head)).unwrap_or(0);
    let line = head.get(..n).unwrap_or_default().split(|byte| *byte == b'\n').next();
    line.is_some_and(|line| line.contains(&0))
}
