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
