//! What is known of a job at the end of a visit.

use super::Stop;
use crate::event::Parting;
use rexec_client::{ExitStatus, Outcome, Signal};

/// How it ended, as far as this client was told.
pub struct Told {
    /// In any case.
    pub outcome: Outcome,
    /// If the agent reported it.
    pub status: Option<ExitStatus>,
    /// The agent knows nothing of the job.
    pub is_unknown: bool,
}

impl Told {
    /// `Err`: this client has left, and if that was because of a signal, of which.
    pub fn of(end: Result<ExitStatus, Stop>) -> Result<Self, Option<Signal>> {
        Ok(match end {
            Ok(status) => {
                let (outcome, is_unknown) = (status.outcome().clone(), status.is_unknown_job());
                Self { outcome, status: Some(status), is_unknown }
            }
            Err(Stop::Outcome(outcome) | Stop::Refused(outcome)) => outcome.into(),
            Err(Stop::Unknown(outcome)) => Self { is_unknown: true, ..outcome.into() },
            Err(Stop::Left(signal)) => return Err(signal),
        })
    }

    /// Whether how it ended is not known.
    pub fn is_lost(&self) -> bool {
        matches!(self.outcome, Outcome::Lost { .. })
    }

    /// Whether there may be something to come back to.
    pub fn may_be_there(&self, left: Option<Parting>) -> bool {
        self.is_lost() && !self.is_unknown && left.is_none_or(Parting::may_be_there)
    }
}

impl From<Outcome> for Told {
    fn from(outcome: Outcome) -> Self {
        Self { outcome, status: None, is_unknown: false }
    }
}
