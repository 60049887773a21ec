//! Local accounts: what the user database says of the user a command runs as.
//!
//! An account is looked up once for a command, and what was found then (numbers, groups, home,
//! shell) is what policy decides on and what the command becomes: a name is not resolved twice, so
//! it cannot change its meaning in between. Commands within a second share a lookup.
//!
//! The user database may be a directory service at the other end of a slow network, and getpwnam(3)
//! cannot be interrupted. So a lookup runs on a thread of its own and is given up after
//! `DEADLINE`; of threads that hang there are never more than `LOOKUPS`.

mod lookup;
mod recent;
mod shadow;

use recent::Recent;
use rexec_protocol::outcome::{printable, shorten};
use rexec_protocol::{NeverStarted, Outcome};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::Semaphore;
use tokio::time::timeout;

/// How long the user database may take to answer.
const DEADLINE: Duration = Duration::from_secs(5);
/// How many questions to the user database may be open at once.
const LOOKUPS: usize = 16;

/// A local user, resolved once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// The login name.
    pub name: String,
    /// The user id.
    pub uid: u32,
    /// The primary group.
    pub gid: u32,
    /// All groups, the primary one among them.
    pub groups: Vec<u32>,
    /// The home directory.
    pub home: PathBuf,
    /// The login shell.
    pub shell: PathBuf,
}

impl Account {
    /// An account of which nothing is known but its name, to be talked about and not to be used.
    pub(crate) fn stranger(name: &str) -> Self {
        let (home, shell) = ("/".into(), "/bin/sh".into());
        Self {
            name: name.to_owned(),
            uid: u32::MAX,
            gid: u32::MAX,
            groups: Vec::new(),
            home,
            shell,
        }
    }

    /// Root gets a `PATH` with the system directories, and is in no policy unless named.
    pub fn is_root(&self) -> bool {
        self.uid == 0
    }
}

/// Why there is no account to run a command as.
#[derive(Debug, thiserror::Error)]
pub enum AccountError {
    /// Not a name that any user could have.
    #[error("'{}' is not a legal user name", printable(.0))]
    Name(String),
    /// The user database does not know it.
    #[error("there is no user '{0}' on the agent's machine")]
    Unknown(String),
    /// The user database answers with another name: it folds case, say, where policy does not.
    #[error("the user database calls '{asked}' '{}'; ask for that name", printable(found))]
    OtherName {
        /// What was asked for.
        asked: String,
        /// What came back.
        found: String,
    },
    /// An id that means "none" or "all" to some system call (CVE-2019-14287, CVE-2024-40635).
    #[error("user '{name}' has the id {id}, which is out of range: nothing is run with it")]
    Range {
        /// The user.
        name: String,
        /// The user or group id.
        id: u32,
    },
    /// The account was disabled: usermod(8) with `--lock` or `--expiredate`.
    #[error("user '{name}' may not log in: {why}")]
    Disabled {
        /// The user.
        name: String,
        /// In what way.
        why: &'static str,
    },
    /// The login shell is one that exists to refuse logins, as nologin(8).
    #[error(
        "user '{name}' may not log in: its shell is {}; its administrator can give it one (usermod --shell /bin/sh), or name another user in the policy",
        shell.display()
    )]
    NoLogin {
        /// The user.
        name: String,
        /// Its shell.
        shell: PathBuf,
    },
    /// The user database could not be asked.
    #[error("the user database cannot be read: {0}")]
    Database(io::Error),
    /// No answer in time.
    #[error(
        "the user database did not say within {} seconds who '{name}' is; see nsswitch.conf(5) for whom it asks",
        DEADLINE.as_secs()
    )]
    TimedOut {
        /// The user.
        name: String,
    },
}

impl AccountError {
    /// The outcome of a command that was to run as this user.
    pub fn outcome(&self) -> Outcome {
        let reason = match self {
            Self::Database(_) | Self::TimedOut { .. } => NeverStarted::Resource,
            _ => NeverStarted::User,
        };
        Outcome::NeverStarted { reason, message: shorten(self.to_string()) }
    }
}

/// Looks up accounts.
#[derive(Debug)]
pub struct Accounts {
    own: Arc<Account>,
    recent: Recent,
    lookups: Arc<Semaphore>,
}

impl Accounts {
    /// Finds out who this process is.
    pub async fn new() -> Result<Self, AccountError> {
        let own = tokio::task::spawn_blocking(Account::own).await;
        let own = own.map_err(|error| AccountError::Database(io::Error::other(error)))??;
        let lookups = Arc::new(Semaphore::new(LOOKUPS));
        Ok(Self { own: Arc::new(own), recent: Recent::default(), lookups })
    }

    /// The account that the agent itself runs as.
    pub fn own(&self) -> &Arc<Account> {
        &self.own
    }

    /// Whether this agent can run commands as `name` at all: only root can become another user.
    pub fn can_become(&self, name: &str) -> bool {
        self.own.is_root() || self.own.name == name
    }

    /// The account of this name, if commands may be run as it.
    pub async fn resolve(&self, name: &str) -> Result<Arc<Account>, AccountError> {
        if !self.own.is_root() && self.own.name == name {
            return Ok(Arc::clone(&self.own));
        }
        let now = Instant::now();
        if let Some(account) = self.recent.get(name, now) {
            return Ok(account);
        }
        let account = Arc::new(self.look_up(name).await?);
        self.recent.put(Arc::clone(&account), now);
        Ok(account)
    }

    async fn look_up(&self, name: &str) -> Result<Account, AccountError> {
        let owned = name.to_owned();
        let answer = async {
            let place = Arc::clone(&self.lookups).acquire_owned().await;
            tokio::task::spawn_blocking(move || {
                // Held until the answer is there, however long after the deadline that is.
                let _place = place;
                Account::find(&owned)
            })
            .await
        };
        match timeout(DEADLINE, answer).await {
            Err(_) => Err(AccountError::TimedOut { name: name.to_owned() }),
            Ok(Err(error)) => Err(AccountError::Database(io::Error::other(error))),
            Ok(Ok(found)) => found,
        }
    }
}
