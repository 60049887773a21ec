//! How messages follow each other on a byte stream: `u32` header length, header, body.
//!
//! The same as the frames of a connection, with the header `{size, message}`: the stream below has a
//! digest already, so there is none here.

use crate::error::ProtocolError;
use crate::{frame, msgpack};
use rexec_guard::holds;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// How many bytes the length of a header takes.
pub const LENGTH: usize = size_of::<u32>();
/// The longest header, in bytes.
pub const MAX_HEADER: usize = frame::MAX_HEADER as usize;
/// The longest body, in bytes.
pub const MAX_BODY: usize = frame::MAX_DATA;

#[derive(Serialize)]
struct Outgoing<'a, M> {
    #[serde(skip_serializing_if = "is_zero")]
    size: usize,
    message: &'a M,
}

#[derive(Deserialize)]
struct Incoming<M> {
    #[serde(default)]
    size: u64,
    message: M,
}

fn is_zero(size: &usize) -> bool {
    *size == 0
}

/// Length and header of a message whose body is `size` bytes long; the body follows them.
pub fn encode(message: &impl Serialize, size: usize) -> Vec<u8> {
    let header = msgpack::encode(&Outgoing { size, message });
    [&(header.len() as u32).to_be_bytes()[..], &header].concat()
}

/// The length of the header that follows, if it is legal.
pub fn header_length(prefix: [u8; LENGTH]) -> Result<usize, ProtocolError> {
    let length = u32::from_be_bytes(prefix);
    if holds("files.header_length", (1..=frame::MAX_HEADER).contains(&length)) {
        Ok(length as usize)
    } else {
        Err(ProtocolError::HeaderLength(length))
    }
}

/// A header: the message, and how many bytes of body follow.
pub fn decode<M: DeserializeOwned>(header: &[u8]) -> Result<(M, usize), ProtocolError> {
    let Incoming { size, message } = msgpack::decode(header, msgpack::HEADER)?;
    if holds("files.body_length", size <= MAX_BODY as u64) {
        Ok((message, size as usize))
    } else {
        Err(ProtocolError::BodyLength(size))
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Data, End, Entry, Meta, ToReceiver, ToSender, Want};
    use super::*;
    use crate::digest::{Algorithm, Digest};
    use proptest::prelude::*;
    use serde_bytes::ByteBuf;

    #[test]
    fn a_message_comes_back_as_it_was() {
        let name = ByteBuf::from(&b"a\xff\n"[..]);
        let meta = Meta { mode: 0o644, mtime: -1, nsec: 999_999_999 };
        let hash = Digest::of(Algorithm::Sha256, b"");
        for (message, size) in [
            (ToReceiver::Dir(Entry { name, meta }), 0),
            (ToReceiver::Data(Data { offset: u64::MAX }), 17),
            (ToReceiver::End(End { size: 0, hash }), 0),
        ] {
            let bytes = encode(&message, size);
            let (prefix, header) = bytes.split_first_chunk().unwrap();
            assert_eq!(header_length(*prefix), Ok(header.len()));
            assert_eq!(decode(header), Ok((message, size)));
        }
    }

    #[test]
    fn lengths_have_limits() {
        assert!(header_length([0; 4]).is_err());
        assert!(header_length([0, 1, 0, 0]).is_ok());
        assert_eq!(header_length([0, 1, 0, 1]), Err(ProtocolError::HeaderLength(65_537)));
        let long = encode(&ToSender::Want(Want::default()), MAX_BODY + 1);
        let error = ProtocolError::BodyLength(MAX_BODY as u64 + 1);
        assert_eq!(decode::<ToSender>(&long[LENGTH..]), Err(error));
    }

    proptest! {
        #[test]
        fn no_header_panics(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode::<ToReceiver>(&bytes);
            let _ = decode::<ToSender>(&bytes);
        }
    }
}
