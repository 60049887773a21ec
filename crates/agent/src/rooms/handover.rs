//! What an agent that ends in good order leaves of its rooms to the next one: a file in the state
//! folder, `rooms`.
//!
//! It is gone before the rooms are open again. Otherwise an agent that was killed later would leave
//! an old one, and numbers of events would be given twice.

use super::room::LeftRoom;
use crate::state_file;
use std::io;
use std::path::Path;

const FILE: &str = "rooms";

/// What is there; nothing, if the agent before was killed.
pub fn read(state: &Path) -> io::Result<Vec<LeftRoom>> {
    let Some(text) = state_file::read(state, FILE)? else { return Ok(Vec::new()) };
    Ok(serde_json::from_slice(&text)?)
}

/// Removes it: this agent has it now.
pub fn remove(state: &Path) -> io::Result<()> {
    state_file::remove(state, FILE).map_err(|error| {
        let path = state.join(FILE);
        io::Error::new(error.kind(), format!("cannot remove {}: {error}", path.display()))
    })
}

/// Leaves it.
pub fn put(state: &Path, rooms: &[LeftRoom]) -> io::Result<()> {
    state_file::write(state, FILE, &serde_json::to_vec(rooms)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rooms::Rooms;
    use crate::rooms::Settings;
    use crate::rooms::room::Departure;
    use rexec_protocol::RoomName;
    use rexec_protocol::message::Join;
    use std::net::SocketAddr;

    #[test]
    fn rooms_are_left_once() {
        let state = tempfile::tempdir().unwrap();
        assert!(read(state.path()).unwrap().is_empty());
        let rooms = Rooms::new(Settings::default(), Vec::new());
        let (name, from) = (RoomName::new("ops").unwrap(), SocketAddr::from(([127, 0, 0, 1], 1)));
        let join = Join { window: 0, room: name.clone(), history: 0, resume: None };
        let (room, seat, ..) = rooms.join("alice", from, &join).unwrap();
        assert!(room.say(&seat, 1, "hi", false));
        rooms.leave(&room, &seat, Departure::Replaced);
        put(state.path(), &rooms.leave_behind()).unwrap();
        // Also if the first that reads it does not come to its start.
        for _ in 0..2 {
            let next = Rooms::new(Settings::default(), read(state.path()).unwrap());
            assert!(next.find(&name).is_some());
        }
        // The one after that finds nothing, unless this one leaves something.
        remove(state.path()).unwrap();
        assert!(read(state.path()).unwrap().is_empty());
        state_file::write(state.path(), FILE, b"[{").unwrap();
        assert!(read(state.path()).is_err());
        remove(state.path()).unwrap();
        remove(state.path()).unwrap();
        assert!(read(state.path()).unwrap().is_empty(), "what cannot be read is gone as well");
    }
}
