//! `rexec rooms`: the rooms of an agent.

use crate::args::Listing;
use crate::people::{ask, refused};
use crate::status::{VERSION, json_line};
use crate::table::table;
use rexec_client::{RoomInfo, Session};
use serde::Serialize;
use std::io::{self, Write};
use std::process::ExitCode;

#[derive(Debug, Serialize)]
struct Line<'a> {
    v: u8,
    r#type: &'static str,
    room: &'a str,
    members: u64,
    lines: u64,
}

/// Asks, and prints a table, or one JSON object a line.
pub(crate) fn run(rooms: Listing) -> ExitCode {
    let Listing { json: as_json, target, connect } = rooms;
    match ask(&target, connect, async |session: Session| session.rooms().await) {
        Ok(all) if as_json => crate::written(json(&all)),
        Ok(all) => crate::written(io::stdout().write_all(shown(&all).as_bytes())),
        Err(ended) => refused(ended, as_json),
    }
}

fn json(all: &[RoomInfo]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    for RoomInfo { room, members, lines } in all {
        let (room, members, lines) = (room.as_str(), *members, *lines);
        out.write_all(&json_line(&Line { v: VERSION, r#type: "room", room, members, lines }))?;
    }
    Ok(())
}

/// For people.
pub(crate) fn shown(all: &[RoomInfo]) -> String {
    // A name has no characters that could drive a terminal.
    let row = |RoomInfo { room, members, lines }: &RoomInfo| {
        [room.to_string(), members.to_string(), lines.to_string()]
    };
    table(["ROOM", "MEMBERS", "LINES"], all.iter().map(row).collect())
}
