//! What was typed, as one job.

use super::args::{FileArgs, FileOptions};
use super::place::Place;
use crate::config::Env;
use crate::plan::{Endpoint, reach};
use crate::target;
use crate::values::LogLevel;
use rexec_client::Target;
use std::ffi::{OsStr, OsString};
use std::io::{self, IsTerminal};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

/// A transfer to carry out.
#[derive(Debug)]
pub struct Plan {
    /// What.
    pub job: Job,
    /// Where the sources are, if they are remote, and where the destination is, if that is.
    pub ends: Vec<End>,
    /// The hosts, as shown.
    pub host: String,
    /// What the path of the destination means.
    pub target: Target,
    /// How.
    pub options: FileOptions,
    /// It is about whether all is the same.
    pub check: bool,
    /// Show progress on stderr.
    pub progress: bool,
}

/// An agent, and as whom.
#[derive(Debug)]
pub struct End {
    /// How to reach it.
    pub endpoint: Endpoint,
    /// As which local user there.
    pub user: Option<String>,
}

/// From where to where. Remote paths are of the first end, or in [`Job::Between`] of both.
#[derive(Debug)]
#[allow(missing_docs, reason = "the names say it")]
pub enum Job {
    Put { files: Vec<PathBuf>, to: OsString },
    PutStdin { to: OsString },
    Get { files: Vec<OsString>, to: PathBuf },
    GetStdout { file: OsString },
    Between { files: Vec<OsString>, to: OsString },
}

/// Which ways are open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// Any.
    Copy,
    /// From here to there.
    Put,
    /// From there to here.
    Get,
}

impl Plan {
    /// Makes a plan of what was typed. The errors are for the person who typed it.
    pub fn new(args: FileArgs, way: Way, level: LogLevel, env: Env<'_>) -> Result<Self, String> {
        let FileArgs { paths, options, connect } = args;
        let mut places =
            paths.iter().map(|path| Place::parse(path)).collect::<Result<Vec<_>, _>>()?;
        let to = places.pop().filter(|_| !places.is_empty());
        let to = to.ok_or("from where to where? rexec cp SOURCE… DESTINATION")?;
        check_way(way, &places, &to)?;
        let from = one_host(&places)?;
        let (mut ends, mut host) = (Vec::new(), Vec::new());
        for target in from.into_iter().chain(to.target().map(OsStr::to_owned)) {
            let (mut endpoint, user) = reach(&target, connect.clone(), env)?;
            // -P is for both ends, and a port in an address for that one.
            endpoint.port = target::Target::parse(&target)?.port.unwrap_or(endpoint.port);
            host.push(endpoint.host.clone());
            ends.push(End { endpoint, user });
        }
        let several = places.len() > 1;
        let target = target_of(&to, several, &options);
        let job = job(places, to, &options)?;
        let progress = !options.no_progress
            && !options.json
            && level != LogLevel::Quiet
            && io::stderr().is_terminal()
            && !uses_terminal(&job);
        let (host, check) = (host.join(" to "), options.checksum_only);
        Ok(Self { job, ends, host, target, options, check, progress })
    }
}

/// Whether somebody types at a terminal what is put, or reads there what is got. The line would be in the way.
fn uses_terminal(job: &Job) -> bool {
    match job {
        Job::PutStdin { .. } => io::stdin().is_terminal(),
        Job::GetStdout { .. } => io::stdout().is_terminal(),
        _ => false,
    }
}

fn check_way(way: Way, from: &[Place], to: &Place) -> Result<(), String> {
    let is_remote = |place: &Place| place.target().is_some();
    let (sources, destination) = (from.iter().any(is_remote), is_remote(to));
    match (way, sources, destination) {
        (Way::Put, false, true) | (Way::Get, true, false) => Ok(()),
        (Way::Put, ..) => Err("put takes local files to a HOST:PATH, which comes last".to_owned()),
        (Way::Get, ..) => Err("get takes HOST:PATH to a local path, which comes last".to_owned()),
        (Way::Copy, false, false) => {
            Err("no HOST: in any of the paths; for two local ones there is cp".to_owned())
        }
        (Way::Copy, ..) => Ok(()),
    }
}

/// The one host of all sources; `None` if they are local.
fn one_host(from: &[Place]) -> Result<Option<OsString>, String> {
    let first = from.first().and_then(Place::target);
    if from.iter().any(|place| place.target() != first) {
        return Err(
            "the sources are on different machines; copy them one machine at a time".to_owned()
        );
    }
    Ok(first.map(OsStr::to_owned))
}

fn target_of(to: &Place, several: bool, options: &FileOptions) -> Target {
    let path = match to {
        Place::Local(path) => path.as_os_str(),
        Place::Remote { path, .. } => path,
        Place::Stream => return Target::Either,
    };
    if options.no_target_directory {
        Target::Exact
    } else if several || options.glob || path.is_empty() || path.as_bytes().ends_with(b"/") {
        Target::Into
    } else {
        Target::Either
    }
}

const NEEDS_NAME: &str = "what comes from stdin has no name of its own: say how it is to be called there, \
                          as in HOST:NAME";

/// Whether a path can only be that of a folder.
fn is_no_name(path: &OsStr) -> bool {
    path.is_empty() || path.as_bytes().ends_with(b"/")
}

/// Refuses to make the home there a mirror unless it was named. A variable was empty, most often.
fn spare_home(from: &[Place], to: &Place, options: &FileOptions) -> Result<(), String> {
    if !(options.delete && to.is_home()) {
        return Ok(());
    }
    let why = if options.no_target_directory {
        "-T with --delete"
    } else if from.iter().any(Place::is_contents) {
        "--delete with what is in a folder, as SOURCE/. and . are,"
    } else {
        return Ok(());
    };
    Err(format!(
        "{why} would remove all else from the home there: name the folder, as in HOST:DIR; \
         HOST:. means the home itself"
    ))
}

fn job(from: Vec<Place>, to: Place, options: &FileOptions) -> Result<Job, String> {
    if options.no_target_directory && from.len() > 1 {
        return Err("-T is for one source".to_owned());
    }
    spare_home(&from, &to, options)?;
    let needs_ends = "\"-\" goes with one remote path, and without options for folders".to_owned();
    let (mut files, mut remote, mut streams) = (Vec::new(), Vec::new(), 0);
    for place in from {
        match place {
            Place::Local(path) => files.push(path),
            // Nothing after the host: its home, which is what is in it.
            Place::Remote { path, .. } => remote.push(path),
            Place::Stream => streams += 1,
        }
    }
    let is_plain = !options.recursive
        && !options.changes_nothing()
        && options.update().is_none()
        && !options.partial;
    match (files.len(), remote.len(), streams, to) {
        (0, 0, 1, Place::Remote { path, .. }) if is_no_name(&path) => Err(NEEDS_NAME.to_owned()),
        (0, 0, 1, Place::Remote { path, .. }) if is_plain => Ok(Job::PutStdin { to: path }),
        (0, 1, 0, Place::Stream) if is_plain => {
            remote.pop().map(|file| Job::GetStdout { file }).ok_or(needs_ends)
        }
        (1.., 0, 0, Place::Remote { path, .. }) if !options.glob => {
            Ok(Job::Put { files, to: path })
        }
        (1.., 0, 0, Place::Remote { .. }) => {
            Err("--glob is for remote sources; the shell expands local ones".to_owned())
        }
        (0, 1.., 0, Place::Local(to)) => Ok(Job::Get { files: remote, to }),
        (0, 1.., 0, Place::Remote { path, .. }) => Ok(Job::Between { files: remote, to: path }),
        _ => Err(needs_ends),
    }
}
