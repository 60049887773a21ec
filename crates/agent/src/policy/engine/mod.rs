//! The policy as a value: text becomes rules, and rules answer questions.
//!
//! Nothing in here knows of files, accounts, connections or time, and nothing outside this folder
//! is used but how the protocol shows text, and what it takes for all addresses: what is decided can be
//! tried with plain values. The fuzz target compiles this folder by itself.
//!
//! **First match wins; what nothing matches is denied.** A policy reads top down, as a firewall and
//! ssh_config(5) do, so the reader of a file can stop at the first rule that fits. It follows that
//! a deny rule placed first is final, and that forced command, umask and limits come from the one
//! rule that decided: nothing is merged, so nothing is granted that is not written in one place.
//!
//! A rule *matches* when each of its conditions holds: who asks, from where, as whom, what, with
//! which variables, with a terminal or not. Conditions that are left out are read for the safe
//! side: an allow rule then allows less (no terminal, no variable, no path), a deny rule denies
//! more.
//!
//! | module | what it holds |
//! |---|---|
//! | [`format`] | the TOML as it is written; `compile` checks it and makes rules |
//! | `pattern`, `network`, `destination`, `variable` | what words, paths, addresses, hosts with ports and variables match |
//! | `question` | what can be asked |
//! | `rule` | one rule, and why it does not match |
//! | `rules` | all rules, in order: the decision |
//! | `reason` | a refusal, in words for the one who is refused |
//! | `case` | the `[[test]]`s that a policy carries |

mod case;
mod compile;
mod destination;
mod format;
mod network;
mod pattern;
mod question;
pub(crate) mod reason;
mod rule;
mod rules;
mod variable;

pub use case::{Case, Failure};
pub(crate) use destination::{host_and_any_port, host_and_port};
pub use format::PolicyError;
pub use network::Network;
pub use question::{AT_CONSOLE, Action, CONSOLE, Caller, Local, Question, console_action};
pub use rule::{Effect, Limits, Mismatch, Rule};
pub use rules::{Answer, Policy, Source, Verdict};

#[cfg(test)]
mod naive;
#[cfg(test)]
mod tests;
