//! Any bytes as a header: what decodes is encoded and decoded to the same frame again.

#![no_main]

use bytes::BytesMut;
use rexec_fuzz::{ALLOWANCE, peak_of};
use rexec_protocol::frame::{MAX_BODY, MAX_HEADER};
use rexec_protocol::{Decoder, Frame};

libfuzzer_sys::fuzz_target!(|header: &[u8]| {
    let bytes = [&(header.len() as u32).to_be_bytes()[..], header].concat();
    let mut decoder = Decoder::new();
    decoder.buffer().extend_from_slice(&bytes);
    let (first, peak) = peak_of(|| decoder.next());
    assert!(peak < 16 * bytes.len() + ALLOWANCE, "a header of {} bytes cost {peak}", bytes.len());
    let frame = match first {
        Err(_) => return,
        Ok(Some(frame)) => frame,
        Ok(None) => {
            let missing = decoder.missing();
            assert!(missing as u64 <= MAX_BODY, "{missing} bytes are missing");
            decoder.buffer().resize(missing, 0x5a);
            decoder.next().expect("the header was legal").expect("the body is here")
        }
    };
    assert!(decoder.is_between_frames(), "a frame took too little");
    let ours = encoded(&frame);
    // A key that may be absent is always written, so a header at the limit may outgrow it.
    if ours.len() > MAX_HEADER as usize {
        return;
    }
    let mut decoder = Decoder::new();
    decoder.buffer().extend_from_slice(&ours);
    let again = decoder.next().expect("our own bytes").expect("a whole frame");
    assert!(again == frame, "{:?} became {:?}", frame.message, again.message);
    assert!(encoded(&again) == ours, "one frame has two encodings: {:?}", frame.message);
});

fn encoded(frame: &Frame) -> BytesMut {
    let mut out = BytesMut::new();
    frame.encode_head(&mut out);
    out.extend_from_slice(&frame.body);
    out
}
