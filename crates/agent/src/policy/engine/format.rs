//! A policy file as it is written. What is not known is an error: a condition with a typing mistake
//! in its name must not be a condition that is not there.

use super::rule::Effect;
use super::rules::Source;
use serde::Deserialize;
use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use toml::Spanned;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct File {
    #[serde(default)]
    pub rule: Vec<Spanned<Rule>>,
    #[serde(default)]
    pub test: Vec<Spanned<Test>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Rule {
    pub name: String,
    #[serde(default)]
    pub effect: Effect,
    pub users: Option<Vec<String>>,
    pub groups: Option<Vec<String>>,
    pub from: Option<Vec<String>>,
    #[serde(rename = "as")]
    pub locals: Option<Vec<String>>,
    pub commands: Option<Commands>,
    pub terminal: Option<bool>,
    pub env: Option<Vec<String>>,
    pub force: Option<Vec<String>>,
    pub umask: Option<String>,
    pub read: Option<Vec<String>>,
    pub write: Option<Vec<String>>,
    pub forward: Option<Vec<String>>,
    pub listen: Option<Vec<String>>,
    pub attach: Option<Vec<String>>,
    pub control: Option<Vec<String>>,
    pub rooms: Option<Vec<String>>,
    pub say: Option<Vec<String>>,
    pub wall: Option<bool>,
    pub who: Option<bool>,
    pub ctl: Option<Vec<String>>,
    #[serde(default)]
    pub limits: Limits,
}

#[derive(Debug, Deserialize)]
#[serde(
    untagged,
    expecting = "expected \"any\" or a list of commands, each a list of words: [[\"systemctl\", \"status\", \"*\"]]"
)]
pub(super) enum Commands {
    Word(String),
    Listed(Vec<Vec<String>>),
}

#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Limits {
    pub timeout: Option<String>,
    pub commands: Option<u32>,
    pub memory: Option<String>,
    pub processes: Option<u64>,
    pub cpus: Option<f64>,
    pub open_files: Option<u64>,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Test {
    pub user: String,
    #[serde(default)]
    pub groups: Vec<String>,
    pub from: Option<IpAddr>,
    #[serde(rename = "as")]
    pub local: Option<String>,
    #[serde(default = "default_shell")]
    pub shell: String,
    pub run: Option<Run>,
    #[serde(default)]
    pub terminal: bool,
    #[serde(default)]
    pub env: Vec<String>,
    pub read: Option<String>,
    pub write: Option<String>,
    #[serde(default)]
    pub tree: bool,
    pub forward: Option<String>,
    pub listen: Option<String>,
    pub attach: Option<String>,
    pub control: Option<String>,
    #[serde(default)]
    pub owner_groups: Vec<String>,
    pub room: Option<String>,
    pub say: Option<String>,
    pub wall: Option<bool>,
    pub who: Option<bool>,
    pub ctl: Option<String>,
    pub expect: Effect,
    pub rule: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(untagged, expecting = "expected a list of words, or a string that is a shell line")]
pub(super) enum Run {
    Line(String),
    Words(Vec<String>),
}

fn default_shell() -> String {
    "/bin/sh".to_owned()
}

/// What is wrong with a policy, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct PolicyError {
    /// The file, or the folder.
    pub file: PathBuf,
    /// Line and column, from 1.
    pub place: Option<(usize, usize)>,
    /// The name of the rule.
    pub rule: Option<String>,
    /// What is wrong, and what to do.
    pub message: String,
}

impl fmt::Display for PolicyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        if let Some((line, column)) = self.place {
            write!(f, ":{line}:{column}")?;
        }
        f.write_str(": ")?;
        if let Some(rule) = &self.rule {
            write!(f, "rule '{rule}': ")?;
        }
        f.write_str(&self.message)
    }
}

/// Reads one file.
pub(super) fn read(source: &Source) -> Result<File, PolicyError> {
    toml::from_str(&source.text).map_err(|error| PolicyError {
        file: source.path.clone(),
        place: error.span().map(|span| place(&source.text, span.start)),
        rule: None,
        message: error.message().trim_end().replace('\n', "; "),
    })
}

/// Line and column of a byte.
pub(super) fn place(text: &str, at: usize) -> (usize, usize) {
    let before = text.get(..at).unwrap_or(text);
    let line = before.bytes().filter(|byte| *byte == b'\n').count() + 1;
    let column = before.chars().rev().take_while(|c| *c != '\n').count() + 1;
    (line, column)
}
