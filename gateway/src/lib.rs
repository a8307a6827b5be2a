//! The gateway: the only door to the workers.
//!
//! A request's way, and where each step lives:
//!
//! 1. [`edge`] accepts the connection, reads the whole head against one deadline, and refuses what is
//!    malformed before pingora's session reads it.
//! 2. [`proxy`] takes it through its phases: `client_ip`, `cors`, `credential`, `authenticate`, `limit`,
//!    `utf8`, `route`, then `forward` and `exchange`, on a connection of the `upstream_pool`; `refuse` turns any step's
//!    error into an answer, and `access` writes the line.
//! 3. [`directory`] is what the steps look things up in: an immutable snapshot of config and registry,
//!    swapped whole when a file changes.
//!
//! Beside them, [`audit`] keeps a line of every write, [`metrics`] counts, [`traces`] exports spans where that is built
//! in, and [`admin`] is the operator's door.
//! [`tenants`] changes the registry, for the admin API and for the commands.
//!
//! [`server`] starts and drains all this, on the sockets of [`listen`], in the phases of [`phase`]; [`upgrade`] hands
//! the sockets to the next process; [`commands`] are the subcommands of `sq-gateway`.

#![forbid(unsafe_code)]

pub mod admin;
pub mod audit;
pub mod cli;
pub mod commands;
pub mod directory;
pub mod edge;
pub mod listen;
pub mod metrics;
pub mod phase;
pub mod proxy;
pub mod server;
pub mod stream;
pub mod tenants;
pub mod traces;
pub mod upgrade;
