//! Transfers of files, as futures.
//!
//! A transfer is a job like any other (see [`rexec_protocol::files`]), so it goes on after a lost
//! connection, and ends when its future is dropped. The end of it on this side is plain blocking code,
//! on a thread of its own; what goes between is in `bridge`.

mod bridge;
mod carry;
mod options;
mod overheard;
mod overlap;
mod sources;
mod watched;

pub use options::{Summary, Transfer, TransferError, TransferEvent};

use crate::Session;
use options::Work;
use std::ffi::OsStr;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

impl Session {
    /// Files of this machine, to be put at `to` on the agent's. A relative `to` begins in the remote
    /// user's home.
    ///
    /// ```no_run
    /// # async fn example(session: rexec_client::Session) -> Result<(), rexec_client::TransferError> {
    /// let summary = session.put(["site"], "/srv/www").recursive(true).run().await?;
    /// assert!(summary.is_proven());
    /// # Ok(())
    /// # }
    /// ```
    pub fn put<P: AsRef<Path>>(
        &self,
        files: impl IntoIterator<Item = P>,
        to: impl AsRef<OsStr>,
    ) -> Transfer {
        let files = files.into_iter().map(|path| path.as_ref().to_owned()).collect();
        Transfer::new(self, Work::Put { files, to: to.as_ref().to_owned() })
    }

    /// Files of the agent's machine, to be put at `to` on this one.
    pub fn get<P: AsRef<OsStr>>(
        &self,
        files: impl IntoIterator<Item = P>,
        to: impl Into<PathBuf>,
    ) -> Transfer {
        let files = files.into_iter().map(|path| path.as_ref().to_owned()).collect();
        Transfer::new(self, Work::Get { files, to: to.into() })
    }

    /// What `input` gives until its end, to be put at `to` as a file. `to` is its name, and no folder.
    pub fn put_stream(&self, input: impl Read + Send + 'static, to: impl AsRef<OsStr>) -> Transfer {
        Transfer::new(self, Work::PutStream { input: Box::new(input), to: to.as_ref().to_owned() })
    }

    /// A file of the agent's machine, to be written to `output`. Only the end tells whether what was
    /// written is right.
    pub fn get_stream(
        &self,
        file: impl AsRef<OsStr>,
        output: impl Write + Send + 'static,
    ) -> Transfer {
        let output = Box::new(output);
        Transfer::new(self, Work::GetStream { file: file.as_ref().to_owned(), output })
    }

    /// Files of this session's agent, to be put at `to` on that of another session. They pass through
    /// this process, and touch no disk here.
    pub fn copy_to<P: AsRef<OsStr>>(
        &self,
        files: impl IntoIterator<Item = P>,
        other: &Session,
        to: impl AsRef<OsStr>,
    ) -> Transfer {
        let files = files.into_iter().map(|path| path.as_ref().to_owned()).collect();
        let (other, to) = (other.clone(), to.as_ref().to_owned());
        Transfer::new(self, Work::Relay { files, other, to })
    }
}
