//! The wire as a stranger sees it: golden bytes, hostile bytes, the table of legality, and whether
//! `PROTOCOL.md` says the same as the code.

#[cfg(test)]
#[path = "wire/counting.rs"]
mod counting;
#[cfg(test)]
#[path = "wire/decoder.rs"]
mod decoder;
#[cfg(test)]
#[path = "wire/files.rs"]
mod files;
#[cfg(test)]
#[path = "wire/gate.rs"]
mod gate;
#[cfg(test)]
#[path = "wire/golden.rs"]
mod golden;
#[cfg(test)]
#[path = "wire/hostile.rs"]
mod hostile;
#[cfg(test)]
#[path = "wire/samples.rs"]
mod samples;
#[cfg(test)]
#[path = "wire/samples_of_rooms.rs"]
mod samples_of_rooms;
#[cfg(test)]
#[path = "wire/specification.rs"]
mod specification;
