//! The gateway: the only door to the workers.
//!
//! A request's way, and where each step lives:
//!
//! 1. [`edge`] accepts the connection, reads the whole head against one deadline, and refuses what is
//!    malformed before pingora sees it.
//! 2. [`proxy`] takes it through its phases: `client_ip`, `cors`, `credential`, `authenticate`, `limit`,
//!    `utf8`, `route`, then `forward`; `refuse` turns any step's error into an answer, and `access`
//!    writes the line.
//! 3. [`directory`] is what the steps look things up in: an immutable snapshot of config and registry,
//!    swapped whole when a file changes.
//!
//! Beside them, [`audit`] keeps a line of every write.
//!
//! [`server`] starts and drains all this; [`commands`] are the subcommands of `sq-gateway`.

#![forbid(unsafe_code)]

pub mod audit;
pub mod cli;
pub mod commands;
pub mod directory;
pub mod edge;
pub mod proxy;
pub mod server;
