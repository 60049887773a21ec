//! What all tests share.

pub mod agent;
pub mod certs;
pub mod chaos;
pub mod cli;
pub mod dial;
pub mod disk;
pub mod proc;
pub mod raw;
pub mod tmux;
pub mod users;

pub use agent::TestAgent;
pub use certs::Authority;
pub use disk::SmallDisk;

use std::path::PathBuf;

/// How much a test does, unless the environment says something else.
pub fn size_from_environment(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |n| n.parse().unwrap())
}

/// Bytes that no compressor and no lucky offset can stand in for, others for each seed.
pub fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut x = seed | 1;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        bytes.extend_from_slice(&x.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

/// A program of this workspace. `scripts/test` builds them all before the tests run.
pub fn program(name: &str) -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let path = test.ancestors().nth(2).unwrap().join(name);
    assert!(
        path.exists(),
        "{} is missing: run scripts/test, or cargo build --bins",
        path.display()
    );
    path
}
