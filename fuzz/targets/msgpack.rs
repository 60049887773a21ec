//! Any bytes: the check never panics, costs next to nothing, and what passes it is one map that
//! decodes, cheaply, as whatever we ask it to be.

#![no_main]

use rexec_fuzz::{ALLOWANCE, peak_of};
use rexec_protocol::message::{ExecSpec, Exit, Hello};
use rexec_protocol::msgpack::{BODY, HEADER, check, decode, encode};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let (verdict, peak) = peak_of(|| check(bytes, BODY).is_ok());
    assert!(peak < 16 * bytes.len() + ALLOWANCE, "a check of {} bytes cost {peak}", bytes.len());
    assert!(verdict || check(bytes, HEADER).is_err(), "more is allowed in a header than in a body");

    let (spec, peak) = peak_of(|| decode::<ExecSpec>(bytes, BODY));
    // An empty word takes two bytes on the wire, and 24 and more in memory.
    assert!(peak < 128 * bytes.len() + ALLOWANCE, "a spec of {} bytes cost {peak}", bytes.len());
    if let Ok(spec) = spec {
        assert!(verdict);
        let _ = spec.fault();
        assert_eq!(decode::<ExecSpec>(&encode(&spec), BODY), Ok(spec));
    }
    if let Ok(exit) = decode::<Exit>(bytes, HEADER) {
        let _ = (exit.outcome.to_string(), exit.outcome.exit_code());
        assert_eq!(decode::<Exit>(&encode(&exit), HEADER), Ok(exit));
    }
    if let Ok(hello) = decode::<Hello>(bytes, HEADER) {
        assert_eq!(decode::<Hello>(&encode(&hello), HEADER), Ok(hello));
    }
});
