//! What happens in a room, as lines of text. Nothing that came from elsewhere reaches a terminal as it
//! is.

use rexec_client::{ConnectionInfo, Happening, HappeningKind, RoomEvent, printable};
use std::fmt::Write;
use time::{OffsetDateTime, UtcOffset};

/// How times are shown.
#[derive(Debug, Clone, Copy)]
pub(super) struct Show {
    offset: UtcOffset,
}

impl Show {
    /// In the time zone of this machine, if that can be found out: not once there are threads.
    pub(super) fn new() -> Self {
        Self { offset: UtcOffset::current_local_offset().unwrap_or(UtcOffset::UTC) }
    }

    /// A line for an event; `None` if it is of a kind that this version does not know.
    pub(super) fn event(&self, event: &RoomEvent) -> Option<String> {
        match event {
            RoomEvent::Happened(happening) => self.happening(happening),
            RoomEvent::Missed { lines: 1 } => Some("-- 1 line was missed".to_owned()),
            RoomEvent::Missed { lines } => Some(format!("-- {lines} lines were missed")),
            RoomEvent::OpenedAnew => {
                Some("-- the agent was started again; what was said before is gone".to_owned())
            }
            _ => None,
        }
    }

    /// Who is in the room.
    pub(super) fn members(&self, members: &[ConnectionInfo]) -> String {
        let mut text = match members.len() {
            1 => "-- 1 is here:".to_owned(),
            count => format!("-- {count} are here:"),
        };
        for member in members {
            let (user, since) = (printable(&member.user), self.time(member.since_ms));
            // Who may not know it is told none. Writing to a String cannot fail.
            let _ = match &*member.from {
                "" => write!(text, "\n--   {user} since {since}"),
                from => write!(text, "\n--   {user} since {since}, from {}", printable(from)),
            };
        }
        text
    }

    /// What rexec says itself begins with two dashes and what it is about; what people say, with their
    /// name, which begins with a letter or a digit; what they do, with a star. So none of them passes
    /// for another.
    fn happening(&self, happening: &Happening) -> Option<String> {
        let Happening { time_ms, kind, user, text, .. } = happening;
        let (time, user, text) = (self.time(*time_ms), printable(user), printable(text));
        Some(match kind {
            HappeningKind::Said => format!("{time} {user}: {text}"),
            HappeningKind::Action => format!("{time} * {user} {text}"),
            HappeningKind::Joined => format!("{time} -- joined: {user}"),
            HappeningKind::Returned => format!("{time} -- is back: {user}"),
            HappeningKind::Left => format!("{time} -- left: {user}"),
            HappeningKind::Lost => format!("{time} -- connection lost: {user}"),
            HappeningKind::Wall => format!("{time} {user} to all: {text}"),
            HappeningKind::Watching => format!("{time} -- came to the job: {user}"),
            HappeningKind::Unwatching => format!("{time} -- left the job: {user}"),
            HappeningKind::Feeding => {
                format!("{time} -- sends the job's stdin from now on: {user}")
            }
            HappeningKind::Ending => {
                format!("{time} -- ends the job, as operator of the agent's machine: {user}")
            }
            HappeningKind::Other => return None,
        })
    }

    fn time(&self, ms: u64) -> String {
        let nanos = i128::from(ms) * 1_000_000;
        let time = OffsetDateTime::from_unix_timestamp_nanos(nanos);
        let time = time.ok().and_then(|time| time.checked_to_offset(self.offset));
        let Some(time) = time else { return "?".to_owned() };
        format!("{:02}:{:02}:{:02}", time.hour(), time.minute(), time.second())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_send_cannot_drive_the_terminal() {
        let show = Show { offset: UtcOffset::UTC };
        let evil = Happening {
            time_ms: 1_763_764_805_000,
            kind: HappeningKind::Said,
            user: "mallory\n12:00:00 alice".into(),
            member: 1,
            id: 1,
            text: "\x1b[2Jhi\u{202e}".into(),
        };
        let line = show.event(&RoomEvent::Happened(evil)).unwrap();
        assert_eq!(line, "22:40:05 mallory\\u{a}12:00:00 alice: \\u{1b}[2Jhi\\u{202e}");
        assert_eq!(show.time(u64::MAX), "?");
    }

    #[test]
    fn what_somebody_does_does_not_look_like_what_happens() {
        let show = Show { offset: UtcOffset::UTC };
        let shown = |kind, text: &str| {
            let (user, text) = ("bob".to_owned(), text.to_owned());
            let what = Happening { time_ms: 0, kind, user, member: 1, id: 1, text };
            show.event(&RoomEvent::Happened(what)).unwrap()
        };
        assert_eq!(shown(HappeningKind::Action, "joined"), "00:00:00 * bob joined");
        assert_eq!(shown(HappeningKind::Joined, ""), "00:00:00 -- joined: bob");
    }

    #[test]
    fn what_is_missed_is_counted() {
        let show = Show { offset: UtcOffset::UTC };
        assert_eq!(show.event(&RoomEvent::Missed { lines: 1 }).unwrap(), "-- 1 line was missed");
        assert_eq!(show.event(&RoomEvent::Missed { lines: 7 }).unwrap(), "-- 7 lines were missed");
    }
}
