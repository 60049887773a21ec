//! What opens a stream: a submission, a client that comes to a job, questions about jobs.

use super::*;
use crate::jobs::meta::Owner;
use crate::jobs::{Sent, never_ran};
use crate::{policy, stdin};
use rexec_protocol::JobId;
use rexec_protocol::message::{
    Attach, From, JobInfo, JobList, Listing, Offsets, Refusal, Refused, Removed,
};

/// A body of a listing has at most about this many bytes; one job takes less than 3 KiB.
const LISTED: usize = 256 * 1024;

impl Session {
    pub(super) fn exec(
        &mut self,
        exec: Exec,
        frame: Frame,
        standing: &Standing,
    ) -> Result<(), ProtocolError> {
        if exec.age_ms.is_none() {
            demand_window(exec.window)?;
        }
        if self.agent.is_leaving() && exec.job.is_some() {
            // It will be asked again, of the next agent.
            return Ok(());
        }
        let algorithm = exec.digest.unwrap_or_else(|| self.terms.fastest());
        if !self.terms.digests.contains(&algorithm) {
            return Err(ProtocolError::Malformed(
                "an exec with a digest that was not agreed on".to_owned(),
            ));
        }
        let (stream, hash) = (frame.stream, frame.hash);
        let body = frame.verified_body()?;
        let spec: ExecSpec = msgpack::decode(body.as_bytes(), msgpack::BODY)?;
        let body = hash.ok_or(ProtocolError::HashMissing)?;
        if let Err(message) = standing.permits(&self.agent, SystemTime::now()) {
            let denied = Outcome::Denied { message: shorten(message) };
            return self.refuse(stream, algorithm, of_this_sending(denied, exec.age_ms));
        }
        if let Some(outcome) = self.too_many() {
            return self.refuse(stream, algorithm, of_this_sending(outcome, exec.age_ms));
        }
        let submission = Submission {
            resumable: exec.job.is_some(),
            id: exec.job.unwrap_or_else(new_job_id),
            body,
            owner: Owner::from(&*self.identity),
            algorithm,
            durable: exec.durable,
            detach: exec.detach,
        };
        let id = submission.id.clone();
        let sent = match exec.age_ms {
            None => Sent::First,
            Some(Exec::STARTED) => Sent::Started,
            // It made the request that it sends again after this connection was there.
            Some(age) => Sent::Again(self.begun.checked_sub(Duration::from_millis(age))),
        };
        let wish = |joins| Wish {
            place: Place::Have(exec.have),
            output: true,
            follow: true,
            times: false,
            detach: exec.detach,
            joins,
        };
        // Who asks for the first time cannot know whether the job is there already.
        let sends_from = match exec.age_ms {
            None => stdin::From::Start,
            Some(_) => stdin::From::WhereItWas,
        };
        match self.agent.jobs.submit(submission, &spec, sent) {
            Submitted::New(job, controls) => {
                let hold = if exec.detach { Hold::No } else { Hold::Now };
                let attached = self.attached(&job, stream, exec.window, (hold, true), sends_from);
                if exec.detach {
                    // It is kept from the start.
                    attached.leave_kept().cancel();
                }
                let (agent, from, to) = (Arc::clone(&self.agent), self.from, self.to);
                let identity = Arc::clone(&self.identity);
                let request = Request { job, controls, identity, from, to, spec };
                self.agent.jobs.tasks.spawn(async move { request.run(&agent).await });
                self.send(stream, attached, wish(false));
            }
            Submitted::Known(job) => {
                let may = self.may(&job, true).map_err(|denied| denied.message);
                if let Err(message) = may
                    && !holds("policy.join", false)
                {
                    // It is there: that it may not be seen any more does not undo that.
                    let outcome = Outcome::Lost { message: shorten(message) };
                    return self.refuse(stream, algorithm, outcome);
                }
                if exec.detach && job.is_connection {
                    let message = "a connection, or a port, cannot be detached from its client";
                    let (reason, message) = (NeverStarted::Invalid, message.to_owned());
                    return self.refuse(
                        stream,
                        algorithm,
                        Outcome::NeverStarted { reason, message },
                    );
                }
                self.record_attach(&job, true);
                // Who comes back after a cut takes the place that it had. So does a second one that has the
                // rest of a stdin: the first may be gone, and nobody has noticed yet.
                let hold = match exec.age_ms {
                    _ if exec.detach => Hold::No,
                    None if job.is_held() && !job.takes_stdin() => Hold::Next,
                    _ => Hold::Now,
                };
                let attached = self.attached(&job, stream, exec.window, (hold, true), sends_from);
                self.send(stream, Arc::clone(&attached), wish(true));
                if exec.detach {
                    // It may have been started by who did not want it to go on alone.
                    job.keep(attached.leave_kept());
                }
                let is_back = exec.age_ms.is_some();
                self.take_stdin(&attached, is_back);
                if !is_back {
                    self.watch(&attached);
                }
            }
            Submitted::Past(past) => {
                if let Err(denied) = self.may_with(&Owner::from(&*self.identity), true) {
                    let outcome = Outcome::Lost { message: shorten(denied.message) };
                    return self.refuse(stream, algorithm, outcome);
                }
                return self.answer_all(attach::replay(id, *past, exec.have, stream));
            }
            Submitted::Conflict => {
                let message = format!("the id {id} is that of another command, or another's");
                let reason = NeverStarted::Conflict;
                return self.refuse(stream, algorithm, Outcome::NeverStarted { reason, message });
            }
            Submitted::Full(most) => {
                let message = format!(
                    "{most} ids of your own choice are remembered, which is the limit (jobs.ids_per_identity); leave out --id, or wait until older ones are forgotten (jobs.keep_ids)"
                );
                let reason = NeverStarted::Busy;
                return self.refuse(stream, algorithm, Outcome::NeverStarted { reason, message });
            }
            Submitted::Unknown => {
                let message = format!(
                    "this agent knows nothing of job {id}: it was restarted since, or the job ended too long ago; whether the command ran is not known"
                );
                self.record_refusal(&message);
                let exit = Exit::of_nothing(Outcome::Lost { message }, algorithm);
                return self.answer(stream, Exit { unknown: true, ..exit }.into());
            }
        }
        Ok(())
    }

    pub(super) fn attach(
        &mut self,
        stream: StreamId,
        attach: Attach,
        standing: &Standing,
    ) -> Result<(), ProtocolError> {
        if !matches!(attach.from, From::Offsets(_)) {
            demand_window(attach.window)?;
        }
        let Attach { window, job: id, from, output, follow, control, times } = attach;
        if let Err(message) = standing.permits(&self.agent, SystemTime::now()) {
            return self.refuse_request(stream, Refusal::Denied, message);
        }
        if self.too_many().is_some() {
            let message = "too many commands on this connection".to_owned();
            return self.refuse_request(stream, Refusal::Busy, message);
        }
        if let Some(past) = self.agent.jobs.past(&id)
            && past.owner == self.identity.name()
        {
            if let Err(denied) = self.may_with(&Owner::from(&*self.identity), control) {
                return self.refuse_request(stream, Refusal::Denied, denied.message);
            }
            let have = if let From::Offsets(have) = from { have } else { Offsets::default() };
            if !never_ran(&past.exit) {
                self.record_visit(&id, control, false);
            }
            return self.answer_all(attach::replay(id, past, have, stream));
        }
        let job = match self.may_reach(&id, control) {
            Ok(job) => job,
            Err((reason, message)) => return self.refuse_request(stream, reason, message),
        };
        let place = match from {
            From::Start {} => Place::Have(Offsets::default()),
            From::Live {} => Place::Live,
            From::Offsets(have) => Place::Have(have),
            From::Time { ms } => Place::Time(ms),
        };
        let hold = if control && output && follow { Hold::Now } else { Hold::No };
        self.record_attach(&job, control);
        let rights = (hold, control);
        let attached = self.attached(&job, stream, window, rights, stdin::From::Anew);
        let wish = Wish { place, output, follow, times, detach: false, joins: true };
        self.send(stream, Arc::clone(&attached), wish);
        self.take_stdin(&attached, false);
        if output || control {
            self.watch(&attached);
        }
        Ok(())
    }

    /// Puts on record that this client comes to a job: always if it may do more there than is on record, and
    /// otherwise if it does not come too often for that.
    fn record_attach(&self, job: &Job, control: bool) {
        let who = self.identity.name();
        // There is nothing to see or to do, and nobody else's.
        if job.never_ran() && job.owner.name == who {
            return;
        }
        self.record_visit(&job.id, control, job.gains(who, control));
    }

    fn record_visit(&self, job: &JobId, control: bool, gains: bool) {
        let (agent, who) = (&self.agent, self.identity.name());
        if let Some(left_out) = agent.admission.may_record_attach(who, job, control, gains) {
            agent.audit.record(&Event::Attached { job, caller: self.caller(), control, left_out });
        }
    }

    pub(super) fn list(
        &mut self,
        stream: StreamId,
        standing: &Standing,
    ) -> Result<(), ProtocolError> {
        if let Err(message) = standing.permits(&self.agent, SystemTime::now()) {
            return self.refuse_request(stream, Refusal::Denied, message);
        }
        // Thousands of jobs have a few owners.
        let mut judged: HashMap<Owner, bool> = HashMap::new();
        let mut looked_at = 0;
        let jobs = self.agent.jobs.list(|job| {
            looked_at += 1;
            if let Some(may) = judged.get(&job.owner) {
                return *may;
            }
            let may = self.may(job, false).is_ok();
            judged.insert(job.owner.clone(), may);
            may
        });
        self.answer_list(listing(stream, jobs), looked_at)
    }

    pub(super) fn remove(
        &mut self,
        stream: StreamId,
        id: &JobId,
        standing: &Standing,
    ) -> Result<(), ProtocolError> {
        if let Err(message) = standing.permits(&self.agent, SystemTime::now()) {
            return self.refuse_request(stream, Refusal::Denied, message);
        }
        match self.may_reach(id, true) {
            Err((reason, message)) => self.refuse_request(stream, reason, message),
            Ok(_) if !self.agent.jobs.remove(id) => {
                let message = format!("job {id} still runs; end it first");
                self.refuse_request(stream, Refusal::Running, message)
            }
            Ok(_) => {
                self.agent.audit.record(&Event::Removed { job: id, caller: self.caller() });
                self.answer(stream, Removed {}.into())
            }
        }
    }

    /// The job of this id, if this client may have to do with it. Who may not learns nothing.
    fn may_reach(&self, id: &JobId, control: bool) -> Result<Arc<Job>, (Refusal, String)> {
        let unknown = || {
            let message = format!("this agent has no job {id}, or no longer");
            (Refusal::UnknownJob, message)
        };
        let job = self.agent.jobs.find(id).ok_or_else(unknown)?;
        self.may(&job, false).map_err(|_| unknown())?;
        match self.may(&job, control) {
            Ok(()) => Ok(job),
            Err(denied) => Err((Refusal::Denied, denied.message)),
        }
    }

    fn may(&self, job: &Job, control: bool) -> Result<(), policy::Denied> {
        self.may_with(&job.owner, control)
    }

    /// Whether it may have to do with a job of this owner's.
    fn may_with(&self, owner: &Owner, control: bool) -> Result<(), policy::Denied> {
        let owner = (owner.name.as_str(), owner.groups.as_slice());
        let policy = self.agent.policy.current();
        policy::may_attach(&policy, &self.identity, self.from.ip(), owner, control)
    }

    fn attached(
        &self,
        job: &Arc<Job>,
        stream: StreamId,
        window: u64,
        rights: (Hold, bool),
        from: stdin::From,
    ) -> Arc<Attached> {
        Attached::new(Arc::clone(job), stream, self.outbox.clone(), window, rights, from)
    }

    fn too_many(&self) -> Option<Outcome> {
        let limit = self.agent.config.limits.commands_per_connection;
        (self.streams.len() >= limit).then(|| {
            let message =
                format!("{limit} commands are running on this connection, which is its limit");
            Outcome::NeverStarted { reason: NeverStarted::Busy, message }
        })
    }

    pub(super) fn caller(&self) -> Caller<'_> {
        Caller::new(&self.identity, self.from)
    }

    /// Nothing is started, and the client knows.
    fn refuse(
        &self,
        stream: StreamId,
        digest: Algorithm,
        outcome: Outcome,
    ) -> Result<(), ProtocolError> {
        self.record_refusal(&outcome.to_string());
        self.answer(stream, Exit::of_nothing(outcome, digest).into())
    }

    pub(super) fn refuse_request(
        &self,
        stream: StreamId,
        reason: Refusal,
        message: String,
    ) -> Result<(), ProtocolError> {
        self.record_refusal(&message);
        self.answer(stream, Refused { reason, message: shorten(message) }.into())
    }

    fn record_refusal(&self, words: &str) {
        if let Some(left_out) = self.agent.admission.may_record_denial(&self.identity) {
            let reason = Text::of(with_left_out(words.to_owned(), left_out));
            let event = Event::Rejected { job: None, caller: self.caller(), reason };
            self.agent.audit.record(&event);
        }
    }
}

/// What a refusal means to who sent the same before: it says nothing about the first time.
fn of_this_sending(outcome: Outcome, age_ms: Option<u64>) -> Outcome {
    match outcome {
        Outcome::Denied { message } | Outcome::NeverStarted { message, .. } if age_ms.is_some() => {
            Outcome::Lost { message }
        }
        outcome => outcome,
    }
}

pub(super) fn demand_window(window: u64) -> Result<(), ProtocolError> {
    if window >= MAX_DATA as u64 {
        return Ok(());
    }
    Err(ProtocolError::Malformed("a window below one body".to_owned()))
}

/// The frames of a listing; at least one.
fn listing(stream: StreamId, jobs: Vec<JobInfo>) -> Vec<Frame> {
    let mut frames: Vec<Frame> = Vec::new();
    let mut rest = jobs.into_iter().peekable();
    loop {
        let mut list = JobList { jobs: Vec::new() };
        let mut size = 0;
        while size < LISTED
            && let Some(job) = rest.next()
        {
            size += msgpack::encode(&job).len();
            list.jobs.push(job);
        }
        let more = rest.peek().is_some();
        frames.push(Frame::with_body(stream, Listing { more }.into(), msgpack::encode(&list)));
        if !more {
            return frames;
        }
    }
}
