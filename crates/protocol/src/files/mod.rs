//! File transfer: what can be asked for, and what the two ends of a transfer say to each other.
//!
//! A transfer is a job. Its command is a [`FilesRequest`], for which the agent runs a program of its
//! own as the target user; that program's stdin and stdout carry the messages of this module. So
//! whatever holds for a job holds for a transfer: policy, audit, digests, credit, resumption.
//!
//! One end is the [sender](ToReceiver), the other the [receiver](ToSender); which one is on the
//! agent's machine depends on the request. Neither trusts the other.

mod framing;
mod message;
mod request;

pub use framing::{LENGTH, MAX_BODY, MAX_HEADER, decode, encode, header_length};
pub use message::{
    Begin, Compare, Compared, Data, Done, End, Entry, Fail, Failed, File, Finished, Leave, Link,
    Meta, Skipped, Stored, ToReceiver, ToSender, Want,
};
pub use request::{FilesRequest, Get, Put, Store, Target, Update};

/// The longest name of a file, in bytes; see pathname(7).
pub const MAX_NAME: usize = 255;
/// How deep folders may lie in folders. Each level costs the two ends a descriptor or two.
pub const MAX_DEPTH: usize = 256;
/// How many files a sender may have announced with `ask` before it has an answer.
pub const MAX_ASKED: usize = 512;
/// A file of at most this many bytes may travel in its announcement.
pub const SMALL: usize = 128 * 1024;

/// Whether `name` is one that a file in a folder can have, and does not lead out of that folder:
/// not empty, at most [`MAX_NAME`] bytes, neither `.` nor `..`, without slash and NUL.
pub fn is_name(name: &[u8]) -> bool {
    !matches!(name, b"" | b"." | b"..")
        && name.len() <= MAX_NAME
        && !name.iter().any(|byte| matches!(byte, b'/' | 0))
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_in_their_folder() {
        for good in [&b"a"[..], b" ", b"\n", b"-rf", b"...", b".profile", b"\xff", &[b'x'; 255]] {
            assert!(is_name(good), "{good:?}");
        }
        for bad in [&b""[..], b".", b"..", b"/", b"a/b", b"../x", b"/etc", b"a\0", &[b'x'; 256]] {
            assert!(!is_name(bad), "{bad:?}");
        }
    }
}
