//! The options of a transfer. The letters are those of `cp` and `scp`.

use crate::args::ConnectOptions;
use clap::{Args, ValueHint};
use rexec_client::Update;
use std::ffi::OsString;

/// What `cp`, `put` and `get` take.
#[derive(Debug, Args)]
#[command(mut_arg("port", |port| port.short('P')))]
pub struct FileArgs {
    /// From where to where: a local path, HOST:PATH, rexec://HOST:PORT/PATH, or "-" for stdin or
    /// stdout. The last one is the destination. HOST: alone is the home there; a local name with a
    /// colon is written ./NAME
    #[arg(value_name = "PATH", required = true, value_hint = ValueHint::AnyPath)]
    pub paths: Vec<OsString>,
    /// What is done, and how.
    #[command(flatten)]
    pub options: FileOptions,
    /// How to connect.
    #[command(flatten)]
    pub connect: ConnectOptions,
}

/// How files are transferred.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Transfer")]
pub struct FileOptions {
    /// Folders too, with all that is in them; links in them stay links
    #[arg(short, long)]
    pub recursive: bool,
    /// Keep modes and times
    #[arg(short = 'p', long)]
    pub preserve: bool,
    /// Keep set-user-id, set-group-id and sticky bits too
    #[arg(long)]
    pub special_modes: bool,
    /// Transfer only what differs in size or time; times are kept then
    #[arg(short, long)]
    pub update: bool,
    /// Transfer only what differs in its digest
    #[arg(short, long)]
    pub checksum: bool,
    /// Transfer nothing: compare each file by its digest, and end with 1 if not all are the same
    #[arg(long, conflicts_with_all = ["update", "partial"])]
    pub checksum_only: bool,
    /// Remove from folders at the destination what those at the source do not have
    #[arg(long, requires = "recursive")]
    pub delete: bool,
    /// Change nothing, and say what would be done
    #[arg(short = 'n', long)]
    pub dry_run: bool,
    /// Keep what came of a large file when it fails, and go on from there the next time
    #[arg(long)]
    pub partial: bool,
    /// Remote paths are patterns: *, ?, […], {…,…}, and ** for any depth; quote them
    #[arg(long)]
    pub glob: bool,
    /// The destination is the new name, even if a folder of that name is there
    #[arg(short = 'T', long)]
    pub no_target_directory: bool,
    /// Print each file with what became of it, its size and its SHA-256
    #[arg(long, conflicts_with = "json")]
    pub report: bool,
    /// Print the same as JSON Lines, and a summary
    #[arg(long)]
    pub json: bool,
    /// Show no progress, even on a terminal
    #[arg(long)]
    pub no_progress: bool,
}

impl FileOptions {
    /// When a file counts as the same.
    pub fn update(&self) -> Option<Update> {
        match self {
            Self { checksum: true, .. } | Self { checksum_only: true, .. } => Some(Update::Digest),
            Self { update: true, .. } => Some(Update::Times),
            _ => None,
        }
    }

    /// Whether nothing is changed.
    pub fn changes_nothing(&self) -> bool {
        self.dry_run || self.checksum_only
    }
}
