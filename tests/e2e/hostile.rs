//! Peers that break the protocol, or use it against its spirit.
//!
//! The other side must not panic, hang or grow; it says what is wrong, closes, and its other
//! connections do not notice.

pub mod agent_side;
mod client_side;
mod floods;
mod kinds;
pub mod neighbour;
