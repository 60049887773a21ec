//! What happens in a room, as lines of text. Nothing that came from elsewhere reaches a terminal as it
//! is.

use crate::table::table;
use crate::zone::Zone;
use rexec_client::{ConnectionInfo, Happening, HappeningKind, RoomEvent, RoomInfo, printable};
use std::cell::Cell;
use time::Date;

/// How times are shown.
#[derive(Debug)]
pub(super) struct Show {
    zone: Zone,
    /// The day of the last line: a line of another one comes after its date.
    day: Cell<Date>,
}

impl Show {
    /// In the time zone of this machine, so not once there are threads.
    pub(super) fn new() -> Self {
        let zone = Zone::here();
        Self { zone, day: Cell::new(zone.today()) }
    }

    /// A line for an event, with one before it if that was on another day than the last; `None` if it is of
    /// a kind that this version does not know.
    pub(super) fn event(&self, event: &RoomEvent) -> Option<String> {
        let line = self.line(event)?;
        let day = match event {
            RoomEvent::Happened(happening) => self.zone.day(happening.time_ms),
            _ => None,
        };
        match day.filter(|day| self.day.replace(*day) != *day) {
            Some(day) => Some(format!("-- {day}\n{line}")),
            None => Some(line),
        }
    }

    fn line(&self, event: &RoomEvent) -> Option<String> {
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

    /// Who is in the room, in the words and the order of `rexec who`.
    pub(super) fn members(&self, members: &[ConnectionInfo]) -> String {
        let title = match members.len() {
            1 => "1 is here:".to_owned(),
            count => format!("{count} are here:"),
        };
        let rows = members.iter().map(|member| {
            // Who may not know it is told none.
            let from = if member.from.is_empty() { "-" } else { &member.from };
            [printable(&member.user), printable(from), self.zone.day_and_time(member.since_ms)]
        });
        told(&title, &table(["USER", "FROM", "SINCE"], rows.collect()))
    }

    /// What rexec says itself begins with two dashes and what it is about; what people say, with their
    /// name, which begins with a letter or a digit; what they do, with a star. So none of them passes
    /// for another.
    fn happening(&self, happening: &Happening) -> Option<String> {
        let Happening { time_ms, kind, user, text, .. } = happening;
        let (time, user, text) = (self.zone.time(*time_ms), printable(user), printable(text));
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
            HappeningKind::Waiting | HappeningKind::Other => return None,
        })
    }
}

/// Which rooms there are, as `rexec rooms` shows them.
pub(super) fn rooms(rooms: &[RoomInfo]) -> String {
    let title = match rooms.len() {
        1 => "1 room is open:".to_owned(),
        count => format!("{count} rooms are open:"),
    };
    told(&title, &crate::rooms::shown(rooms))
}

/// A table, as what rexec says itself.
fn told(title: &str, table: &str) -> String {
    let lines = table.lines().map(|line| format!("--   {line}"));
    std::iter::once(format!("-- {title}")).chain(lines).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// On the day that the events of these tests have.
    fn show(ms: u64) -> Show {
        let zone = Zone::utc();
        Show { zone, day: Cell::new(zone.day(ms).unwrap()) }
    }

    fn said(time_ms: u64) -> RoomEvent {
        let (kind, user, text) = (HappeningKind::Said, "bob".to_owned(), "hi".to_owned());
        RoomEvent::Happened(Happening { time_ms, kind, user, member: 1, id: 1, text })
    }

    #[test]
    fn lines_of_another_day_come_after_its_date() {
        const DAY: u64 = 24 * 3600 * 1000;
        let show = show(3 * DAY);
        let lines: Vec<String> =
            [1, 2, DAY, DAY + 1, 3 * DAY].map(|ms| show.event(&said(ms)).unwrap()).to_vec();
        let expected = [
            "-- 1970-01-01\n00:00:00 bob: hi",
            "00:00:00 bob: hi",
            "-- 1970-01-02\n00:00:00 bob: hi",
            "00:00:00 bob: hi",
            "-- 1970-01-04\n00:00:00 bob: hi",
        ];
        assert_eq!(lines, expected);
        assert_eq!(show.event(&said(u64::MAX)).unwrap(), "? bob: hi");
    }

    #[test]
    fn members_are_shown_as_rexec_who_shows_them() {
        let info = |user: &str, from: &str| ConnectionInfo {
            id: 1,
            user: user.into(),
            from: from.into(),
            since_ms: 1_763_764_805_000,
            rooms: Vec::new(),
            jobs: Vec::new(),
            received: 0,
            sent: 0,
        };
        let shown = show(0).members(&[info("al\x1bice", "192.0.2.7:40000"), info("bob", "")]);
        let expected = "\
-- 2 are here:
--   USER         FROM             SINCE
--   al\\u{1b}ice  192.0.2.7:40000  2025-11-21 22:40:05
--   bob          -                2025-11-21 22:40:05";
        assert_eq!(shown, expected);
    }

    #[test]
    fn what_others_send_cannot_drive_the_terminal() {
        let show = show(1_763_764_805_000);
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
    }

    #[test]
    fn what_somebody_does_does_not_look_like_what_happens() {
        let show = show(0);
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
        let show = show(0);
        assert_eq!(show.event(&RoomEvent::Missed { lines: 1 }).unwrap(), "-- 1 line was missed");
        assert_eq!(show.event(&RoomEvent::Missed { lines: 7 }).unwrap(), "-- 7 lines were missed");
    }
}
