//! A disk that can be full.

use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::process::Command;
use tempfile::TempDir;

/// A small file system, unmounted when dropped.
pub struct SmallDisk(TempDir);

impl SmallDisk {
    /// `None`, with the reason printed, where this user may not mount.
    pub fn mount(size: &str) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let mut mount = Command::new("mount");
        let options = format!("size={size},mode=0700");
        mount.args(["-t", "tmpfs", "-o", &options, "rexec-test"]).arg(dir.path());
        let output = mount.output().unwrap();
        if !output.status.success() {
            eprintln!("skipped: cannot mount: {}", String::from_utf8_lossy(&output.stderr));
            return None;
        }
        Some(Self(dir))
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Leaves no room.
    pub fn fill(&self) {
        let mut file = fs::File::create(self.path("filler")).unwrap();
        let error = loop {
            if let Err(error) = file.write_all(&[0; 4096]) {
                break error;
            }
        };
        assert_eq!(error.kind(), std::io::ErrorKind::StorageFull);
    }

    /// Takes back what [`SmallDisk::fill`] has taken.
    pub fn drain(&self) {
        fs::remove_file(self.path("filler")).unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(self.0.path()).status();
    }
}
