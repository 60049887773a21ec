//! A job by what the user has typed for it.
//!
//! Ids that rexec made are long, and may be cut: 4 or more characters from the start, or from the end,
//! which is the part that differs between jobs of the same minute. Ids that people chose are taken as
//! they are, or `kill deploy-1` might end `deploy-12` once `deploy-1` is forgotten.

use super::{Place, local};
use crate::attend::Stop;
use rexec_client::{JobId, JobInfo};

/// The fewest characters that stand for more.
const SHORTEST: usize = 4;
/// The length of an id that rexec made: a UUID.
const UUID: usize = 36;

/// A job that was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Found {
    pub id: JobId,
    /// What is known of it; `None` if the agent may only remember its end.
    pub info: Option<JobInfo>,
}

impl Place {
    /// The job of this name, without asking the agent if the name is whole.
    pub(super) async fn find(&mut self, name: &str) -> Result<JobId, Stop> {
        let id = match JobId::new(name) {
            Some(id) if !is_cut(name) => id,
            _ => self.find_with_info(name).await?.id,
        };
        Ok(self.job.insert(id).clone())
    }

    /// The job of this name, and what the agent knows of it.
    pub(super) async fn find_with_info(&mut self, name: &str) -> Result<Found, Stop> {
        let session = self.session.clone();
        let jobs = self.visit.ask(session.jobs()).await?;
        let found = choose(name, jobs).map_err(local)?;
        self.job = Some(found.id.clone());
        Ok(found)
    }
}

/// The one of `jobs` that `name` means.
pub(super) fn choose(name: &str, jobs: Vec<JobInfo>) -> Result<Found, String> {
    let Some(id) = JobId::new(name) else {
        return Err(format!("'{}' is no job id", name.escape_debug()));
    };
    let is_it = |job: &JobInfo| job.job == id;
    if !is_cut(name) || jobs.iter().any(is_it) {
        let info = jobs.into_iter().find(is_it);
        return Ok(Found { id, info });
    }
    let short = name.to_ascii_lowercase();
    let fits = |job: &JobInfo| {
        let id = job.job.as_str();
        is_uuid(id) && (id.starts_with(&short) || id.ends_with(&short))
    };
    let mut fitting: Vec<JobInfo> = jobs.into_iter().filter(fits).collect();
    match fitting.pop() {
        Some(info) if fitting.is_empty() => Ok(Found { id: info.job.clone(), info: Some(info) }),
        // The agent says that there is none, or remembers its end.
        None => Ok(Found { id, info: None }),
        Some(last) => {
            let ids: Vec<&str> =
                fitting.iter().chain([&last]).map(|job| job.job.as_str()).collect();
            Err(format!("'{name}' may be any of {}: write more of it", ids.join(", ")))
        }
    }
}

/// Whether this may be a part of an id that rexec made.
fn is_cut(name: &str) -> bool {
    (SHORTEST..UUID).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-')
}

fn is_uuid(id: &str) -> bool {
    id.len() == UUID && id.split('-').map(str::len).eq([8, 4, 4, 4, 12])
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use rexec_client::Offsets;

    pub(in crate::jobs) fn info(id: &str) -> JobInfo {
        JobInfo {
            job: JobId::new(id).unwrap(),
            owner: "alice".to_owned(),
            user: "deploy".to_owned(),
            command: "sleep 60".to_owned(),
            outcome: None,
            pid: 7,
            started_ms: 1_000_000,
            ended_ms: None,
            size: Offsets { out: 10, err: 2 },
            kept_from: Offsets::default(),
            attached: 1,
            detached: false,
            terminal: false,
            terminal_size: None,
        }
    }

    const ONE: &str = "01a204f4-0000-7000-8000-00000000beef";
    const TWO: &str = "01a204f4-0000-7000-8000-0000000cafe1";

    fn choose_id(name: &str) -> Result<String, String> {
        let jobs = vec![info(ONE), info(TWO), info("deploy-12"), info("abcd")];
        choose(name, jobs).map(|found| found.id.as_str().to_owned())
    }

    #[test]
    fn an_id_that_rexec_made_may_be_cut_at_either_end() {
        assert_eq!(choose_id("beef"), Ok(ONE.to_owned()));
        assert_eq!(choose_id("CAFE1"), Ok(TWO.to_owned()));
        assert_eq!(choose_id("01a204f4-0000-7000-8000-00000000be"), Ok(ONE.to_owned()));
        assert_eq!(choose_id(TWO), Ok(TWO.to_owned()));
        let error = choose_id("01a204f4").unwrap_err();
        assert!(error.contains(ONE) && error.contains(TWO), "{error}");
    }

    #[test]
    fn an_id_of_the_users_own_is_what_it_is() {
        assert_eq!(choose_id("deploy-1"), Ok("deploy-1".to_owned()), "not deploy-12");
        assert_eq!(choose_id("abcd"), Ok("abcd".to_owned()));
        assert_eq!(choose_id("eef"), Ok("eef".to_owned()), "too short");
        assert!(choose_id("-x\u{1b}").unwrap_err().contains("\\u{1b}"));
    }
}
