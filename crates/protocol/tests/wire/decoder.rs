//! The decoder's three answers: a frame, more, or an error before anything is allocated.

use crate::counting::peak_of;
use crate::samples;
use proptest::prelude::*;
use rexec_protocol::frame::{MAX_BODY, MAX_HEADER};
use rexec_protocol::{Decoder, Frame, ProtocolError};

/// What hostile bytes may cost beyond their own length.
const ALLOWANCE: usize = 64 * 1024;

/// Everything that comes out of a decoder that gets `bytes` in chunks of the given sizes (the last
/// one is repeated), and how it ended.
fn decode_in_chunks(bytes: &[u8], sizes: &[usize]) -> (Vec<Frame>, Result<(), ProtocolError>) {
    let (mut decoder, mut frames, mut rest) = (Decoder::new(), Vec::new(), bytes);
    let last = sizes.last().copied().unwrap_or(1).max(1);
    let mut sizes = sizes.iter().copied().chain(std::iter::repeat(last));
    while !rest.is_empty() {
        let (chunk, after) = rest.split_at(sizes.next().unwrap_or(last).min(rest.len()));
        decoder.buffer().extend_from_slice(chunk);
        rest = after;
        loop {
            match decoder.next() {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => break,
                Err(error) => return (frames, Err(error)),
            }
        }
    }
    (frames, Ok(()))
}

fn connection() -> (Vec<Frame>, Vec<u8>) {
    let frames: Vec<Frame> = samples::golden().into_iter().map(|(_, frame)| frame).collect();
    let bytes = frames.iter().flat_map(samples::bytes_of).collect();
    (frames, bytes)
}

proptest! {
    #[test]
    fn chunks_do_not_matter(sizes in prop::collection::vec(0usize..300, 0..50)) {
        let (frames, bytes) = connection();
        prop_assert_eq!(decode_in_chunks(&bytes, &sizes), (frames, Ok(())));
    }

    /// Nor do they for bytes that are wrong somewhere: the same frames, then the same error.
    #[test]
    fn chunks_do_not_matter_for_errors(
        at in any::<prop::sample::Index>(),
        bit in 0u8..8,
        sizes in prop::collection::vec(1usize..300, 0..20),
    ) {
        let (_, mut bytes) = connection();
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        prop_assert_eq!(decode_in_chunks(&bytes, &sizes), decode_in_chunks(&bytes, &[usize::MAX]));
    }
}

#[test]
fn every_truncation_asks_for_more() {
    for (name, frame) in samples::golden() {
        let bytes = samples::bytes_of(&frame);
        for cut in 0..bytes.len() {
            let mut decoder = Decoder::new();
            decoder.buffer().extend_from_slice(&bytes[..cut]);
            assert_eq!(decoder.next(), Ok(None), "{name} cut at {cut}");
            assert_eq!(decoder.is_between_frames(), cut == 0, "{name} cut at {cut}");
            let missing = decoder.missing();
            assert!((1..=bytes.len() - cut).contains(&missing), "{name} cut at {cut}: {missing}");
            decoder.buffer().extend_from_slice(&bytes[cut..]);
            assert_eq!(decoder.next(), Ok(Some(frame.clone())), "{name} cut at {cut}");
        }
    }
}

#[test]
fn a_header_length_that_lies_is_refused_before_anything_is_allocated() {
    for lie in [0, MAX_HEADER + 1, 0x7fff_ffff, 0xffff_ffff] {
        let bytes = [&lie.to_be_bytes()[..], b"\x80"].concat();
        let ((frames, end), peak) = peak_of(|| decode_in_chunks(&bytes, &[bytes.len()]));
        assert_eq!((frames.len(), end), (0, Err(ProtocolError::HeaderLength(lie))));
        assert!(peak < 1024, "{lie:#x} cost {peak} bytes");
    }
}

/// A caller may make room for what is missing before it asks for the next frame.
#[test]
fn a_header_length_that_lies_is_not_reported_as_missing() {
    for lie in [MAX_HEADER + 1, 0x7fff_ffff, 0xffff_ffff] {
        let mut decoder = Decoder::new();
        decoder.buffer().extend_from_slice(&lie.to_be_bytes());
        assert!(decoder.missing() <= MAX_HEADER as usize, "{lie:#x}: {}", decoder.missing());
    }
}

#[test]
fn the_longest_header_is_waited_for() {
    let mut decoder = Decoder::new();
    decoder.buffer().extend_from_slice(&MAX_HEADER.to_be_bytes());
    assert_eq!(decoder.next(), Ok(None));
    assert_eq!(decoder.missing(), MAX_HEADER as usize);
}

fn header(size: u64) -> Vec<u8> {
    let mut header = b"\x84\xa4verb\xa4data\xa6stream\x01\xa4size\xcf".to_vec();
    header.extend(size.to_be_bytes());
    header.extend(b"\xa4args\x82\xa7channel\xa3out\xa6offset\0");
    framed(&header)
}

/// A frame of this header, without a body.
pub(crate) fn framed(header: &[u8]) -> Vec<u8> {
    [&(header.len() as u32).to_be_bytes()[..], header].concat()
}

#[test]
fn a_body_length_that_lies_is_refused_before_anything_is_allocated() {
    for lie in [MAX_BODY + 1, 0x7fff_ffff, 0xffff_ffff, u64::MAX] {
        let bytes = header(lie);
        let ((_, end), peak) = peak_of(|| decode_in_chunks(&bytes, &[bytes.len()]));
        assert_eq!(end, Err(ProtocolError::BodyLength(lie)));
        assert!(peak < 4096, "{lie:#x} cost {peak} bytes");
    }
    let bytes = header(MAX_BODY);
    let (end, peak) = peak_of(|| decode_in_chunks(&bytes, &[bytes.len()]));
    assert_eq!(end, (Vec::new(), Ok(())), "the longest body is waited for");
    assert!(peak < 4096, "a body that has not come cost {peak} bytes");
}

/// The kinds that cost rmp-serde alone up to 524 MB.
#[test]
fn hostile_headers_cost_little_more_than_their_bytes() {
    let hello = |value: &[u8]| {
        let mut header =
            b"\x83\xa4verb\xa5hello\xa6stream\0\xa4args\x84\xa3min\x01\xa3max\x01".to_vec();
        header.extend(b"\xa8software\xa1x\xa7digests");
        header.extend(value);
        header
    };
    let lies = [&b"\xdd\xff\xff\xff\xff"[..], b"\xdf\xff\xff\xff\xff", b"\xdc\xff\xff"];
    let texts = [&b"\xdb\xff\xff\xff\xff"[..], b"\xc6\xff\xff\xff\xff", b"\xc9\xff\xff\xff\xff\0"];
    let mut headers: Vec<Vec<u8>> = lies.iter().chain(&texts).map(|lie| lie.to_vec()).collect();
    headers.extend(lies.iter().chain(&texts).map(|lie| hello(lie)));
    for n in [100u16, 480, 3_000, 60_000] {
        let array = [&b"\xdc"[..], &n.to_be_bytes()].concat();
        headers.push(hello(&[&array[..], &vec![0xa0; n.into()]].concat()));
        headers.push(hello(&[&array[..], &vec![0x90; n.into()]].concat()));
        headers.push(hello(&vec![0x91; n.into()]));
        headers.push(hello(&b"\x81\xa0".repeat(n as usize / 2)));
        headers.push(hello(&b"\xdd\0\0\x08\0".repeat(n as usize / 5)));
    }
    for header in headers.iter().filter(|header| header.len() <= MAX_HEADER as usize) {
        let bytes = framed(header);
        let (_, peak) = peak_of(|| decode_in_chunks(&bytes, &[bytes.len()]));
        let start = &header[..header.len().min(80)];
        // The buffer that the bytes are put into counts as well, and doubles as it grows.
        assert!(
            peak < 2 * bytes.len() + ALLOWANCE,
            "{} bytes cost {peak}: {start:x?}",
            bytes.len()
        );
    }
}
