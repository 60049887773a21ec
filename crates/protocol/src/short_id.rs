//! A job by what somebody has typed for it, the same for clients and on the agent's console.
//!
//! Ids that rexec made are long, and may be cut: 4 or more characters from the start, or from the end,
//! which is the part that differs between jobs of the same minute. Ids that people chose are taken as
//! they are, or `kill deploy-1` might end `deploy-12` once `deploy-1` is forgotten.

use crate::ids::JobId;
use crate::printable::printable;

/// The fewest characters that stand for more.
const SHORTEST: usize = 4;
/// The length of an id that rexec made: a UUID.
const UUID: usize = 36;

/// What was typed stands for no one job.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoJob {
    /// No id looks like that.
    #[error("'{}' is no job id", printable(.0))]
    NoId(String),
    /// It is a part of several.
    #[error("'{short}' may be any of {}: write more of it", list(.all))]
    Several {
        /// What was typed.
        short: String,
        /// What it may mean.
        all: Vec<JobId>,
    },
}

/// The one of `jobs` that `name` means, or `name` itself, if that may be a job that is not among them.
///
/// # Errors
/// [`NoJob`].
pub fn meant<'a>(name: &str, jobs: impl IntoIterator<Item = &'a JobId>) -> Result<JobId, NoJob> {
    let id = JobId::new(name).ok_or_else(|| NoJob::NoId(name.to_owned()))?;
    if !is_cut(name) {
        return Ok(id);
    }
    let jobs: Vec<&JobId> = jobs.into_iter().collect();
    let short = name.to_ascii_lowercase();
    let fits = |id: &str| is_uuid(id) && (id.starts_with(&short) || id.ends_with(&short));
    let fitting: Vec<&JobId> = jobs.iter().copied().filter(|job| fits(job.as_str())).collect();
    match fitting.as_slice() {
        _ if jobs.contains(&&id) => Ok(id),
        [] => Ok(id),
        [one] => Ok((*one).clone()),
        several => {
            let all = several.iter().copied().cloned().collect();
            Err(NoJob::Several { short: name.to_owned(), all })
        }
    }
}

/// Whether this may be a part of an id that rexec made.
pub fn is_cut(name: &str) -> bool {
    (SHORTEST..UUID).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-')
}

fn is_uuid(id: &str) -> bool {
    id.len() == UUID && id.split('-').map(str::len).eq([8, 4, 4, 4, 12])
}

fn list(all: &[JobId]) -> String {
    all.iter().map(JobId::as_str).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &str = "01a204f4-0000-7000-8000-00000000beef";
    const TWO: &str = "01a204f4-0000-7000-8000-0000000cafe1";

    fn choose(name: &str) -> Result<String, String> {
        let jobs = [ONE, TWO, "deploy-12", "abcd"].map(|id| JobId::new(id).unwrap());
        let meant = meant(name, &jobs);
        meant.map(|id| id.as_str().to_owned()).map_err(|error| error.to_string())
    }

    #[test]
    fn an_id_that_rexec_made_may_be_cut_at_either_end() {
        assert_eq!(choose("beef"), Ok(ONE.to_owned()));
        assert_eq!(choose("CAFE1"), Ok(TWO.to_owned()));
        assert_eq!(choose("01a204f4-0000-7000-8000-00000000be"), Ok(ONE.to_owned()));
        assert_eq!(choose(TWO), Ok(TWO.to_owned()));
        let error = choose("01a204f4").unwrap_err();
        assert!(error.contains(ONE) && error.contains(TWO), "{error}");
    }

    #[test]
    fn an_id_of_the_users_own_is_what_it_is() {
        assert_eq!(choose("deploy-1"), Ok("deploy-1".to_owned()), "not deploy-12");
        assert_eq!(choose("abcd"), Ok("abcd".to_owned()));
        assert_eq!(choose("eef"), Ok("eef".to_owned()), "too short");
        assert!(choose("-x\u{1b}").unwrap_err().contains("\\u{1b}"));
    }
}
