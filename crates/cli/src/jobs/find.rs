//! A job by what the user has typed for it; see [`short_id`].

use super::{Place, local};
use crate::attend::Stop;
use rexec_client::{JobId, JobInfo, short_id};

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
            Some(id) if !short_id::is_cut(name) => id,
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
    let id = short_id::meant(name, jobs.iter().map(|job| &job.job)).map_err(|no| no.to_string())?;
    // If it is not there, the agent says so, or remembers its end.
    let info = jobs.into_iter().find(|job| job.job == id);
    Ok(Found { id, info })
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
            waiting: None,
            terminal: false,
            terminal_size: None,
        }
    }

    #[test]
    fn what_is_meant_comes_with_what_is_known_of_it() {
        let id = "01a204f4-0000-7000-8000-00000000beef";
        let jobs = || vec![info(id), info("deploy-12")];
        let found = choose("beef", jobs()).unwrap();
        assert_eq!((found.id.as_str(), found.info), (id, Some(info(id))));
        let found = choose("deploy-1", jobs()).unwrap();
        assert_eq!((found.id.as_str(), found.info), ("deploy-1", None));
        assert!(choose("../x", jobs()).is_err());
    }
}
