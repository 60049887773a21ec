//! The end of a process tree, politely first: the one escalation for cancel, timeout and a lost
//! agent. Only the plan is here, and no clock; the job's loop carries it out.

use rexec_protocol::Signal;
use std::time::{Duration, Instant};

/// The longest grace; more is the same as never, and would overflow.
const MAX_GRACE: Duration = Duration::from_secs(24 * 60 * 60);

/// When what is due.
#[derive(Debug, Clone)]
pub(super) struct Ending {
    /// When the whole tree is asked to end, if the command has not ended before.
    ask_all_at: Instant,
    /// When the patience ends.
    kill_at: Instant,
    /// The whole tree has been asked.
    asked_all: bool,
    /// The command's group has been sent TERM.
    group_termed: bool,
}

/// What to do now.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    Wait(Instant),
    /// Send TERM to the tree, but a second time to nobody: to many programs that means to hurry.
    AskAll {
        group_too: bool,
    },
    KillAll,
}

impl Ending {
    pub(super) fn new(signal: Signal, grace: Duration, now: Instant) -> Self {
        let grace = grace.min(MAX_GRACE);
        Self {
            ask_all_at: now + grace / 2,
            kill_at: now + grace,
            asked_all: false,
            group_termed: signal == Signal::TERM,
        }
    }

    /// Asked to end again: sooner is possible, later is not.
    pub(super) fn again(self, signal: Signal, grace: Duration, now: Instant) -> Self {
        let new = Self::new(signal, grace, now);
        Self {
            ask_all_at: self.ask_all_at.min(new.ask_all_at),
            kill_at: self.kill_at.min(new.kill_at),
            asked_all: self.asked_all,
            group_termed: self.group_termed || new.group_termed,
        }
    }

    /// What is due. What the command left behind when it ended has no one to wait for.
    pub(super) fn step(&mut self, command_ended: bool, now: Instant) -> Step {
        if now >= self.kill_at {
            Step::KillAll
        } else if self.asked_all {
            Step::Wait(self.kill_at)
        } else if command_ended || now >= self.ask_all_at {
            self.asked_all = true;
            Step::AskAll { group_too: !self.group_termed }
        } else {
            Step::Wait(self.ask_all_at)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn the_group_is_asked_then_all_then_all_are_killed() {
        let start = Instant::now();
        let mut ending = Ending::new(Signal::INT, 10 * SECOND, start);
        assert_eq!(ending.step(false, start), Step::Wait(start + 5 * SECOND));
        assert_eq!(ending.step(false, start + 5 * SECOND), Step::AskAll { group_too: true });
        assert_eq!(ending.step(false, start + 5 * SECOND), Step::Wait(start + 10 * SECOND));
        assert_eq!(ending.step(false, start + 10 * SECOND), Step::KillAll);
    }

    #[test]
    fn what_outlives_the_command_is_asked_at_once_and_nobody_twice() {
        let start = Instant::now();
        let mut ending = Ending::new(Signal::TERM, 10 * SECOND, start);
        assert_eq!(ending.step(true, start), Step::AskAll { group_too: false });
        assert_eq!(ending.step(true, start), Step::Wait(start + 10 * SECOND));
    }

    #[test]
    fn a_second_request_can_only_hasten() {
        let start = Instant::now();
        let slow = Ending::new(Signal::INT, Duration::MAX, start);
        let mut fast =
            slow.again(Signal::TERM, SECOND, start).again(Signal::HUP, 5 * SECOND, start);
        assert_eq!(fast.step(false, start), Step::Wait(start + SECOND / 2));
        assert_eq!(fast.step(true, start), Step::AskAll { group_too: false });
        assert_eq!(fast.step(true, start + SECOND), Step::KillAll);
    }
}
