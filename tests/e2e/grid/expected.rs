//! Which ends the promises leave open, for each cell. From the design, not from what the program does:
//! where nothing is lost for good, a command ends as if nothing had happened; where something is, that is
//! said, in the word that the table of outcomes has for it.

use super::{Cell, Fault, State, Victim};

impl State {
    /// The client has no session yet, and the agent no request.
    fn is_before_the_request(self) -> bool {
        matches!(self, Self::TcpAccepted | Self::MidTls | Self::FirstFlight)
    }

    /// The state is one of a transfer.
    pub fn is_of_a_transfer(self) -> bool {
        matches!(self, Self::PutMidFile | Self::PutBeforeRename | Self::GetMidFile)
    }
}

/// The outcomes with which the last client may end that was sent for a command; it has asked until it got
/// an answer that is not about the connection.
pub fn last_outcomes(Cell { state, victim, fault }: Cell) -> &'static [&'static str] {
    match (victim, fault, state) {
        // What its output was, the client before has shown; what it had and said so is nobody's to give again.
        (Victim::Client, Fault::Kill, State::Streaming | State::Echoing | State::StdinEnded) => {
            &["exited", "incomplete"]
        }
        // On record that it begins, and then everybody died who could know: never a second run.
        (Victim::Agent, Fault::Kill, State::AcceptedNotSpawned) => &["exited", "lost"],
        // What the agent had read and not passed on died with it.
        (
            Victim::Agent,
            Fault::Kill,
            State::Streaming | State::HalfDone | State::ExitUnacknowledged,
        ) => &["exited", "incomplete"],
        // The same, or it died in the middle of writing to a stdin: then nobody knows how far it came.
        (Victim::Agent, Fault::Kill, State::Echoing) => &["exited", "incomplete", "lost"],
        // Nothing was under way.
        (Victim::Agent, Fault::Kill, _) => &["exited"],
        // Before there is a command, another helper does as well. After its end nobody needs one.
        (Victim::Helper, Fault::Kill, State::AcceptedNotSpawned | State::ExitUnacknowledged) => {
            &["exited"]
        }
        (Victim::Helper, Fault::Kill, state) if state.is_before_the_request() => &["exited"],
        // Nobody else knows how a command ended. Who came to a job for its output is told that it is not all.
        (Victim::Helper, Fault::Kill, State::Detached) => &["incomplete"],
        (Victim::Helper, Fault::Kill, _) => &["lost"],
        _ => &["exited"],
    }
}

/// Whether the audit log may never say how a command ended: an agent that is killed takes with it the last
/// second of what nobody waited for, and the next one knows only the commands that it adopts.
pub fn end_may_be_off_record(cell: Cell) -> bool {
    (cell.victim, cell.fault) == (Victim::Agent, Fault::Kill)
}

/// With what clients may end that came before the last.
pub fn earlier_outcomes(Cell { state, victim, fault }: Cell) -> &'static [&'static str] {
    match (victim, fault, state) {
        (Victim::Client, Fault::Kill, _) => &["none"],
        (Victim::Helper, Fault::Kill, _) => &["lost"],
        // There is nothing to come back to. Who has sent a request does not know that it did not arrive.
        (Victim::Agent, Fault::Kill, State::FirstFlight)
        | (Victim::Helper, Fault::Partition, State::FirstFlight) => &["unreachable", "lost"],
        (Victim::Agent, Fault::Kill, state) | (Victim::Helper, Fault::Partition, state)
            if state.is_before_the_request() =>
        {
            &["unreachable"]
        }
        (Victim::Agent, Fault::Kill, State::AcceptedNotSpawned | State::Echoing) => &["lost"],
        _ => &[],
    }
}

/// Whether a client may end that was not struck, and its file is not where it belongs.
pub fn transfer_may_fail(Cell { victim, fault, .. }: Cell) -> bool {
    // Of what the agent had read from its helper some may be gone.
    matches!((victim, fault), (Victim::Agent | Victim::Helper, Fault::Kill))
}

/// Whether a draft of a file may be left: only of a receiver that was killed.
pub fn draft_may_be_left(Cell { state, victim, fault }: Cell) -> bool {
    let receiver = if state == State::GetMidFile { Victim::Client } else { Victim::Helper };
    fault == Fault::Kill && victim == receiver
}
