//! Places between two records of a log.

use rexec_protocol::Frame;
use rexec_protocol::message::{Channel, Message, Offsets};
use serde::{Deserialize, Serialize};

/// A place between two records: what came before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Mark {
    /// How many records.
    pub number: u64,
    /// How much of each channel.
    pub at: Offsets,
    /// Which ends.
    pub ended: Ended,
}

/// Which channels have ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Ended {
    /// Stdout.
    pub out: bool,
    /// Stderr.
    pub err: bool,
}

impl Mark {
    /// The place after a record at this place.
    pub fn pass(&mut self, frame: &Frame) {
        match &frame.message {
            Message::Data(data) => {
                *self.at.of_mut(data.channel) = data.offset + frame.body.len() as u64;
            }
            Message::Eof(eof) => self.ended.set(eof.channel),
            _ => {}
        }
        self.number += 1;
    }
}

impl Ended {
    /// Whether this one has.
    pub fn has(self, channel: Channel) -> bool {
        if channel == Channel::Err { self.err } else { self.out }
    }

    /// This one has.
    pub fn set(&mut self, channel: Channel) {
        *(if channel == Channel::Err { &mut self.err } else { &mut self.out }) = true;
    }
}
