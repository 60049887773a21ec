//! What people do who share an agent: join rooms and talk there, tell everybody, ask who is there,
//! watch each other's jobs.

use super::*;
use crate::log::now_ms;
use crate::policy;
use crate::rooms::member::StillMay;
use crate::rooms::room::Departure;
use rexec_protocol::RoomName;
use rexec_protocol::line::line;
use rexec_protocol::message::{
    ConnectionInfo, Directory, HappeningKind, Join, Notice, Present, PresentList, Refusal,
    RoomInfo, RoomList, Said, Say, Unsaid, Walled,
};
use serde::Serialize;

/// A body of a listing has at most about this many bytes; one connection takes less than 64 KiB.
const LISTED: usize = 256 * 1024;

/// Frames of an answer, each of which says whether there are more.
type PartOf<T> = fn(Vec<T>, bool) -> (Message, Vec<u8>);

impl Session {
    pub(super) fn join(
        &mut self,
        stream: StreamId,
        join: &Join,
        standing: &Standing,
    ) -> Result<(), ProtocolError> {
        if join.resume.is_none() {
            requests::demand_window(join.window)?;
        }
        let permitted = standing.permits(&self.agent, SystemTime::now());
        if let Err(message) = permitted.and_then(|()| self.may_use(&join.room, false)) {
            return self.refuse_request(stream, Refusal::Denied, message);
        }
        let limit = self.agent.rooms.per_connection();
        if !holds("rooms.per_connection", self.members.len() < limit) {
            let message = format!(
                "this connection is in {limit} rooms, which is the limit (rooms.rooms_per_connection)"
            );
            return self.refuse_request(stream, Refusal::Busy, message);
        }
        let entered = self.agent.rooms.join(self.identity.name(), self.from, join);
        let (room, seat, cursor, mut joined) = match entered {
            Ok(entered) => entered,
            Err(message) => return self.refuse_request(stream, Refusal::Busy, message),
        };
        joined.post = self.may_use(&join.room, true).is_ok();
        let is_new = join.resume.is_none() || joined.said.is_none();
        if is_new {
            let member = seat.member;
            let event = Event::Joined { room: &join.room, caller: self.caller(), member };
            self.agent.audit.record(&event);
        }
        self.presence.in_room(&join.room);
        let member = Member::new(room, seat, stream, self.outbox.clone(), join.window);
        self.members.insert(stream, Arc::clone(&member));
        let (done, still_may) = (self.done.clone(), self.still_may(&join.room, standing));
        self.senders.spawn(async move {
            if member.run(joined, cursor, still_may).await.is_ok() {
                // A session that is over does not keep books any more.
                let _ = done.send(stream).await;
            }
        });
        Ok(())
    }

    /// A frame for a stream that is no job's.
    pub(super) fn for_member(
        &mut self,
        frame: Frame,
        standing: &Standing,
    ) -> Result<(), ProtocolError> {
        let Some(member) = self.members.get(&frame.stream) else { return Ok(()) };
        match &frame.message {
            Message::Window(window) => member.raise(window.limit),
            Message::Detach(_) | Message::Error(_) => member.leave(),
            Message::Say(say) => {
                let member = Arc::clone(member);
                let body = frame.verified_body()?;
                let id = say.id;
                let answer = match self.say(&member, *say, body.as_bytes(), standing) {
                    Ok(()) => Said { id }.into(),
                    Err((reason, message)) => Unsaid { id, reason, message }.into(),
                };
                if !holds("rooms.one_answer", member.answer(answer)) {
                    return Err(ProtocolError::Flood("lines"));
                }
            }
            other => {
                let verb = other.verb();
                return Err(ProtocolError::WrongState { verb, when: "in a room" });
            }
        }
        Ok(())
    }

    fn say(
        &self,
        member: &Member,
        say: Say,
        body: &[u8],
        standing: &Standing,
    ) -> Result<(), (Refusal, String)> {
        let text = line(body).map_err(|no| (Refusal::Invalid, no.to_string()))?;
        let permitted = standing.permits(&self.agent, SystemTime::now());
        permitted
            .and_then(|()| self.may_use(&member.room.name, true))
            .map_err(|message| (Refusal::Denied, message))?;
        let paced = self.agent.rooms.may_talk(self.identity.name());
        paced.map_err(|message| (Refusal::Busy, message))?;
        if !member.room.say(&member.seat, say.id, text, say.action) {
            return Err((Refusal::Invalid, "a line of this id was said already".to_owned()));
        }
        if let Some(job) = member.room.name.job()
            && self.agent.rooms.may_be_overheard(&job)
        {
            let kind = if say.action { HappeningKind::Action } else { HappeningKind::Said };
            let (user, text) = (self.identity.name().to_owned(), text.to_owned());
            let said = Notice { time_ms: now_ms(), kind, user, job: Some(job), text };
            self.agent.everybody.overhear(&member.room.name, &said);
        }
        Ok(())
    }

    /// The end of a stay that did not end by itself, or of which the task has reported.
    pub(super) fn member_left(&mut self, stream: StreamId, why: Departure) {
        let Some(member) = self.members.remove(&stream) else { return };
        member.cut();
        self.presence.left_room(&member.room.name);
        self.agent.rooms.leave(&member.room, &member.seat, why);
    }

    /// The connection is over.
    pub(super) fn leave_everybody(&mut self, how: Leave) {
        let why = match how {
            Leave::Closed | Leave::Silent if self.agent.is_ending() => Departure::Replaced,
            Leave::Closed | Leave::Silent => Departure::Lost,
            _ => Departure::Left,
        };
        let streams: Vec<StreamId> = self.members.keys().copied().collect();
        streams.into_iter().for_each(|stream| self.member_left(stream, why));
        let attached: Vec<Arc<Attached>> = self.streams.values().map(Arc::clone).collect();
        attached.iter().for_each(|attached| self.unwatch(attached));
        self.agent.everybody.leave(&self.presence);
    }

    pub(super) fn wall(&self, frame: &Frame, standing: &Standing) -> Result<(), ProtocolError> {
        let stream = frame.stream;
        let body = frame.verified_body()?;
        let refuse = |reason, message| self.refuse_request(stream, reason, message);
        let text = match line(body.as_bytes()) {
            Ok(text) => text,
            Err(no) => return refuse(Refusal::Invalid, no.to_string()),
        };
        let policy = self.agent.policy.current();
        let allowed = standing.permits(&self.agent, SystemTime::now()).and_then(|()| {
            let allowed = policy::may_wall(&policy, &self.identity, self.from.ip());
            allowed.map_err(|denied| denied.message)
        });
        if let Err(message) = allowed {
            return refuse(Refusal::Denied, message);
        }
        if let Err(message) = self.agent.rooms.may_wall(self.identity.name()) {
            return refuse(Refusal::Busy, message);
        }
        let user = self.identity.name();
        let rooms = self.agent.rooms.wall(user, text);
        let connections = self.agent.everybody.wall(user, text);
        let event = Event::Wall { caller: self.caller(), text: Text::of(text), rooms, connections };
        self.agent.audit.record(&event);
        self.answer(stream, Walled { rooms, connections }.into())
    }

    pub(super) fn who(
        &mut self,
        stream: StreamId,
        room: Option<&RoomName>,
        standing: &Standing,
    ) -> Result<(), ProtocolError> {
        let permitted = standing.permits(&self.agent, SystemTime::now());
        match permitted.and_then(|()| self.who_is_there(room)) {
            Ok(all) => {
                let looked_at = all.len();
                self.answer_list(parts(stream, all, present), looked_at)
            }
            Err(message) => self.refuse_request(stream, Refusal::Denied, message),
        }
    }

    /// Which rooms are open, of those that this client may be in.
    pub(super) fn rooms(
        &mut self,
        stream: StreamId,
        standing: &Standing,
    ) -> Result<(), ProtocolError> {
        if let Err(message) = standing.permits(&self.agent, SystemTime::now()) {
            return self.refuse_request(stream, Refusal::Denied, message);
        }
        let mut all = self.agent.rooms.list();
        let looked_at = all.len();
        all.retain(|info| holds("rooms.listed", self.may_use(&info.room, false).is_ok()));
        self.answer_list(parts(stream, all, directory), looked_at)
    }

    /// Whoever is in a room sees who else is; from where they are, and who is elsewhere, is a
    /// permission of its own.
    fn who_is_there(&self, room: Option<&RoomName>) -> Result<Vec<ConnectionInfo>, String> {
        let policy = self.agent.policy.current();
        let asked = policy::may_ask_who(&policy, &self.identity, self.from.ip());
        let allowed = asked.map_err(|denied| denied.message);
        let Some(room) = room else { return allowed.map(|()| self.agent.everybody.list()) };
        self.may_use(room, false)?;
        let is_member = self.members.values().any(|member| member.room.name == *room);
        if let Err(message) = &allowed
            && !holds("rooms.who_is_there", is_member)
        {
            return Err(message.clone());
        }
        let mut all = self.agent.rooms.find(room).map(|room| room.members()).unwrap_or_default();
        if !holds("rooms.addresses", allowed.is_ok()) {
            all.iter_mut().for_each(|member| member.from.clear());
        }
        Ok(all)
    }

    /// Tells those who are at a job, and the job's room, who came to it; unless they know that this identity
    /// is there, and were told of it often enough.
    pub(super) fn watch(&self, attached: &Attached) {
        self.presence.shown(attached.attachment);
        let (who, job, control) = (self.identity.name(), &attached.job, attached.control);
        let may_tell = || self.agent.admission.may_tell(who, &job.id, control);
        if job.shows(who, control, may_tell) {
            self.tell_of(attached, HappeningKind::Watching);
        }
    }

    /// The opposite of [`Session::watch`].
    pub(super) fn unwatch(&self, attached: &Attached) {
        if !self.presence.left_job(attached.attachment) {
            return;
        }
        let (who, job, control) = (self.identity.name(), &attached.job, attached.control);
        let may_return = || self.agent.admission.could_tell(who, &job.id, control);
        if job.hides(who, control, may_return) {
            self.tell_of(attached, HappeningKind::Unwatching);
        }
    }

    /// Tells the one whose stdin the job does not get any more, since this one came, who it is; and the job's
    /// room, if it did not come back to a place of its own.
    pub(super) fn take_stdin(&self, attached: &Attached, is_back: bool) {
        let (who, job) = (self.identity.name(), &attached.job.id);
        let Some(former) = attached.former else { return };
        if self.agent.admission.may_tell_of_stdin(who, job) {
            self.agent.everybody.tell_one(former, HappeningKind::Feeding, who, job);
            if !is_back {
                self.agent.rooms.tell(job, HappeningKind::Feeding, who);
            }
        }
    }

    fn tell_of(&self, attached: &Attached, kind: HappeningKind) {
        let (job, user) = (&attached.job, self.identity.name());
        self.agent.everybody.tell_others(attached.attachment, kind, user, &job.id);
        self.agent.rooms.tell(&job.id, kind, user);
    }

    /// Whether this client may be in a room, or say something there.
    fn may_use(&self, room: &RoomName, say: bool) -> Result<(), String> {
        may_use(&self.agent, &self.identity, self.from, room, say)
    }

    /// Asks again whenever there is another policy, and whether the certificate has expired: for a
    /// command that is running this connection may last longer.
    fn still_may(&self, room: &RoomName, standing: &Standing) -> StillMay {
        let (agent, identity) = (Arc::clone(&self.agent), Arc::clone(&self.identity));
        let (from, room) = (self.from, room.clone());
        let (validity, mut judged_by) = (standing.validity(), agent.policy.current());
        Box::new(move || {
            validity.lasts(SystemTime::now())?;
            let policy = agent.policy.current();
            if Arc::ptr_eq(&policy, &judged_by) {
                return Ok(());
            }
            judged_by = policy;
            let allowed = may_use(&agent, &identity, from, &room, false);
            if holds("rooms.judged_again", allowed.is_ok()) { Ok(()) } else { allowed }
        })
    }
}

fn may_use(
    agent: &Agent,
    identity: &Identity,
    from: SocketAddr,
    room: &RoomName,
    say: bool,
) -> Result<(), String> {
    let policy = agent.policy.current();
    let allowed = match room.job() {
        None => policy::may_join(&policy, identity, from.ip(), room.as_str(), say),
        // Whoever may watch the job may talk about it.
        Some(id) => {
            let unknown = || format!("this agent has no job {id}, or no longer");
            let job = agent.jobs.find(&id).ok_or_else(unknown)?;
            let owner = (job.owner.name.as_str(), job.owner.groups.as_slice());
            let may = policy::may_attach(&policy, identity, from.ip(), owner, false);
            // Who may not know of it learns nothing.
            return may.map_err(|_| unknown());
        }
    };
    allowed.map_err(|denied| denied.message)
}

fn present(connections: Vec<ConnectionInfo>, more: bool) -> (Message, Vec<u8>) {
    (Present { more }.into(), msgpack::encode(&PresentList { connections }))
}

fn directory(rooms: Vec<RoomInfo>, more: bool) -> (Message, Vec<u8>) {
    (Directory { more }.into(), msgpack::encode(&RoomList { rooms }))
}

/// The frames of an answer; at least one.
fn parts<T: Serialize>(stream: StreamId, all: Vec<T>, part: PartOf<T>) -> Vec<Frame> {
    let mut frames = Vec::new();
    let mut rest = all.into_iter().peekable();
    loop {
        let (mut some, mut size) = (Vec::new(), 0);
        while size < LISTED
            && let Some(info) = rest.next()
        {
            size += msgpack::encode(&info).len();
            some.push(info);
        }
        let more = rest.peek().is_some();
        let (message, body) = part(some, more);
        frames.push(Frame::with_body(stream, message, body));
        if !more {
            return frames;
        }
    }
}
