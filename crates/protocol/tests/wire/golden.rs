//! Golden bytes. The files were made by another encoder than ours, and are never made anew: what
//! they hold is what old peers send and expect.

use crate::samples;
use rexec_protocol::message::{ExecSpec, Message};
use rexec_protocol::{Decoder, Frame, msgpack};
use std::collections::BTreeSet;
use std::path::PathBuf;

/// Bytes from hexadecimal text; `#` starts a comment that ends with its line.
pub(crate) fn from_hex(text: &str) -> Vec<u8> {
    let code = text.lines().map(|line| line.split('#').next().unwrap_or_default());
    let digits: Vec<u32> = code
        .flat_map(str::chars)
        .filter(|c| !c.is_whitespace())
        .map(|c| c.to_digit(16).unwrap_or_else(|| panic!("{c:?} is no hexadecimal digit")))
        .collect();
    assert!(digits.len().is_multiple_of(2), "half a byte");
    digits.chunks(2).map(|pair| (pair[0] << 4 | pair[1]) as u8).collect()
}

fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x} ")).collect()
}

fn testdata() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("testdata")
}

/// All frames of `bytes`, which must end with a frame.
pub(crate) fn frames_of(bytes: &[u8]) -> Vec<Frame> {
    let mut decoder = Decoder::new();
    decoder.buffer().extend_from_slice(bytes);
    let frames = std::iter::from_fn(|| decoder.next().expect("legal frames")).collect();
    assert!(decoder.is_between_frames(), "the last frame is cut");
    frames
}

#[test]
fn every_frame_has_its_golden_bytes() {
    for (name, frame) in samples::golden() {
        let ours = samples::bytes_of(&frame);
        let text = std::fs::read_to_string(testdata().join(name).with_extension("hex"));
        let text = text.unwrap_or_else(|e| panic!("testdata/{name}.hex: {e}; {}", to_hex(&ours)));
        let golden = from_hex(&text);
        assert_eq!(to_hex(&ours), to_hex(&golden), "{name} is encoded differently");
        assert_eq!(frames_of(&golden), [frame], "{name} is decoded differently");
    }
}

#[test]
fn no_verb_and_no_file_is_forgotten() {
    let samples = samples::golden();
    let sampled: BTreeSet<&str> = samples.iter().map(|(_, frame)| frame.message.verb()).collect();
    assert_eq!(sampled, Message::VERBS.iter().copied().collect(), "verbs without a sample");
    for (name, frame) in &samples {
        assert_eq!(name.split('-').next(), Some(frame.message.verb()), "misnamed");
    }
    let names: BTreeSet<String> = samples.iter().map(|(name, _)| format!("{name}.hex")).collect();
    let files = std::fs::read_dir(testdata()).expect("testdata").filter(is_file);
    let files: BTreeSet<String> =
        files.map(|f| f.expect("entry").file_name().to_string_lossy().into_owned()).collect();
    assert_eq!(names, files);
}

/// Those of transfers are in a folder of their own.
fn is_file(entry: &std::io::Result<std::fs::DirEntry>) -> bool {
    entry.as_ref().is_ok_and(|entry| entry.path().is_file())
}

#[test]
fn the_bodies_of_exec_are_verified_specs() {
    for (name, spec) in [
        ("exec", samples::full_spec()),
        ("exec-first-sent", samples::first_spec()),
        ("exec-terminal", samples::terminal()),
        ("exec-login", samples::login()),
        ("exec-connect", samples::connect()),
        ("exec-listen", samples::listen()),
        ("exec-accept", samples::accept()),
        ("exec-subsystem", samples::subsystem()),
        ("exec-line", samples::line()),
        ("exec-script", samples::script()),
        ("exec-files-get", samples::get()),
        ("exec-files-put", samples::put()),
    ] {
        let text = std::fs::read_to_string(testdata().join(name).with_extension("hex"));
        let frames = frames_of(&from_hex(&text.expect(name)));
        let body = frames[0].verified_body().expect("its hash matches");
        let decoded: ExecSpec = msgpack::decode(body.as_bytes(), msgpack::BODY).expect("a spec");
        assert_eq!(decoded, spec);
        assert_eq!(decoded.fault(), None);
    }
}

/// Frames that this build made and frames that it read are the same, whatever they follow.
#[test]
fn all_frames_in_one_connection() {
    let frames: Vec<Frame> = samples::golden().into_iter().map(|(_, frame)| frame).collect();
    let bytes: Vec<u8> = frames.iter().flat_map(samples::bytes_of).collect();
    assert_eq!(frames_of(&bytes), frames);
}
