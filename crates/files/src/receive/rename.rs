//! Many files get their names at once.
//!
//! It takes the kernel a third of the time that a batch takes. It changes one folder at a time, but several
//! folders side by side.

use super::batch::Ready;
use nix::errno::Errno;
use std::collections::HashMap;
use std::ffi::CString;
use std::sync::{Mutex, PoisonError};
use std::thread;

/// Fewer are not worth a thread.
const MANY: usize = 64;
/// More threads would wait for the file system's journal.
const THREADS: usize = 4;

/// A file's name, and what came of giving it; or why it gets none.
pub(super) type Named = Result<(CString, nix::Result<()>), String>;

/// Renames each file that may have its name. Those of one folder come in their order: of two with the same name,
/// the last one stays.
pub(super) fn all(ready: &[Ready], names: Vec<Result<CString, String>>) -> Vec<Named> {
    let mut named: Vec<Named> =
        names.into_iter().map(|name| name.map(|name| (name, Err(Errno::EIO)))).collect();
    let mut folders: HashMap<_, Vec<_>> = HashMap::new();
    for (Ready { scrap, .. }, named) in ready.iter().zip(&mut named) {
        let (folder, named) = (scrap.folder(), named.as_mut().ok());
        let key = (folder.device, folder.inode);
        folders.entry(key).or_default().extend(named.map(|named| (scrap, named)));
    }
    let processors = || thread::available_parallelism().map_or(1, usize::from);
    let threads = if ready.len() < MANY { 1 } else { processors().min(folders.len()).min(THREADS) };
    let folders = Mutex::new(folders.into_values());
    let work = || {
        let next = || folders.lock().unwrap_or_else(PoisonError::into_inner).next();
        while let Some(files) = next() {
            for (scrap, (name, renamed)) in files {
                *renamed = scrap.rename(name);
            }
        }
    };
    thread::scope(|scope| {
        for _ in 1..threads {
            // Without it, the others do its part.
            let _ = thread::Builder::new().spawn_scoped(scope, work);
        }
        work();
    });
    named
}
