//! What the path of a destination means here and now.

use super::folder::{Folder, OPEN_FILE, Slot, Yields};
use crate::open;
use nix::errno::Errno;
use rexec_protocol::files::Target;
use std::sync::Arc;

/// Where things go.
#[derive(Debug)]
pub struct Landing {
    place: Place,
    /// The path of the folder that it is in, as it was named.
    above: Vec<u8>,
}

#[derive(Debug)]
enum Place {
    /// Into this folder, under their own names.
    Into(Arc<Folder>),
    /// Into this folder, under this name, and only one thing.
    As { parent: Arc<Folder>, name: Vec<u8>, taken: bool },
}

impl Landing {
    /// Finds out what `path` is. With `links`, links in it are followed.
    pub fn find(path: &[u8], target: Target, links: bool) -> Result<Self, String> {
        let folder = |path: &[u8]| {
            open::folder(path, links).and_then(|fd| Folder::new(fd, false)).map(Arc::new)
        };
        let split = open::split(path);
        if target != Target::Exact || split.is_none() {
            match (folder(path), target) {
                (Ok(folder), _) => {
                    return Ok(Self { place: Place::Into(folder), above: path.to_vec() });
                }
                (Err(Errno::ENOENT | Errno::ENOTDIR), Target::Either) if split.is_some() => {}
                (Err(Errno::ENOTDIR), _) => {
                    return Err(format!("{}: is not a folder", open::shown(path)));
                }
                (Err(errno), _) => return Err(fault_at(path, links, errno)),
            }
        }
        let Some((parent, name)) = split else {
            return Err("a destination without a name".to_owned());
        };
        let opened = folder(parent).map_err(|errno| fault_at(parent, links, errno))?;
        let place = Place::As { parent: opened, name: name.to_vec(), taken: false };
        Ok(Self { place, above: parent.to_vec() })
    }

    /// The path of something below the destination, as it was named.
    pub(super) fn path_of(&self, path: &[u8]) -> Vec<u8> {
        open::join(&self.above, path)
    }

    /// The place for something that is called `name` where it comes from.
    pub(super) fn slot(&mut self, name: &[u8]) -> Result<Slot, String> {
        let (folder, name) = match &mut self.place {
            Place::Into(folder) => (folder, name.to_vec()),
            Place::As { taken: true, name, .. } => {
                return Err(format!(
                    "{}: is not a folder, so only one thing can go there",
                    open::shown(name)
                ));
            }
            Place::As { parent, name, taken } => {
                *taken = true;
                (parent, name.clone())
            }
        };
        Ok(Slot {
            folder: Some(Arc::clone(folder)),
            path: name.clone(),
            name,
            yields: Yields::Never,
        })
    }

    /// For the contents of a folder: the folder of the destination, or the place where it is to be.
    pub(super) fn itself(&mut self) -> Result<Slot, Arc<Folder>> {
        match &mut self.place {
            Place::Into(folder) => Err(Arc::clone(folder)),
            Place::As { parent, name, taken } => {
                *taken = true;
                self.above = open::join(&self.above, name);
                let folder = Some(Arc::clone(parent));
                Ok(Slot { folder, name: name.clone(), path: Vec::new(), yields: Yields::Never })
            }
        }
    }
}

/// Why a destination could not be opened. Links of /proc, which lead to what a process has open, are never followed.
fn fault_at(path: &[u8], links: bool, errno: Errno) -> String {
    if links && errno == Errno::ELOOP && !open::loops(path) {
        return format!("{}: {OPEN_FILE}", open::shown(path));
    }
    let fault = open::fault_at(path, links, errno);
    match errno {
        Errno::ENOENT => format!("{fault}; make this folder first, as with mkdir -p"),
        _ => fault,
    }
}
