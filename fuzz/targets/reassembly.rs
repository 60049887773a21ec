//! Any bytes, cut anywhere: the same frames and the same end as in one piece, in bounded memory.

#![no_main]

use rexec_fuzz::{ALLOWANCE, peak_of};
use rexec_protocol::frame::{MAX_BODY, MAX_HEADER};
use rexec_protocol::message::Gate;
use rexec_protocol::{Decoder, Frame, ProtocolError, Role};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    // The sizes of the pieces come from the end of the input, so that seeds are plain frames.
    let small = bytes.iter().rev().map(|byte| usize::from(*byte % 32));
    let (pieces, peak) = peak_of(|| decode(bytes, small));
    assert!(peak < 32 * bytes.len() + ALLOWANCE, "{} bytes cost {peak}", bytes.len());
    let one = decode(bytes, [bytes.len()].into_iter());
    assert!(pieces == one, "in pieces {pieces:?}, in one {one:?}");

    for role in [Role::Client, Role::Agent] {
        let mut gate = Gate::new(role);
        let _ = one.0.iter().try_for_each(|frame| gate.check(frame));
    }
});

type End = Result<bool, ProtocolError>;

fn decode(bytes: &[u8], sizes: impl Iterator<Item = usize>) -> (Vec<Frame>, End) {
    let (mut decoder, mut frames, mut rest) = (Decoder::new(), Vec::new(), bytes);
    let mut sizes = sizes.chain(std::iter::repeat(7));
    while !rest.is_empty() {
        let (piece, after) = rest.split_at(sizes.next().unwrap_or(1).min(rest.len()));
        decoder.buffer().extend_from_slice(piece);
        rest = after;
        loop {
            match decoder.next() {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => break,
                Err(error) => return (frames, Err(error)),
            }
        }
        let missing = decoder.missing() as u64;
        assert!((1..=MAX_BODY.max(4 + u64::from(MAX_HEADER))).contains(&missing), "{missing}");
    }
    (frames, Ok(decoder.is_between_frames()))
}
