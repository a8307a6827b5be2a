//! The gateway: the only way from a client to a worker.
//!
//! The modules stand in layers, from top to bottom, and a module imports from its own layer and those below:
//!
//! 1. [`cli`] parses the command line, and [`commands`] implements the subcommands. `server` starts and drains the gateway;
//!    `upgrade` passes its sockets to the next process during an upgrade.
//! 2. `admin` is the operator's API. [`edge`] accepts the clients' connections and reads each request head, and [`proxy`]
//!    takes the request through its checks to its worker.
//! 3. `tenants` changes the registry. `directory` is the current snapshot of config and registry. `audit` logs every
//!    write, and `traces` exports spans.
//! 4. `cors` and `limits` are the rules that a snapshot holds. `metrics` counts requests.
//! 5. `listen` has the listening sockets, `stream` the connections, and `phase` the phases from serving to exit.

#![forbid(unsafe_code)]

pub mod cli;
pub mod commands;

mod server;
mod upgrade;

mod admin;
pub mod edge;
pub mod proxy;
mod tenants;

mod directory;

mod audit;
mod traces;

mod cors;
mod limits;
mod metrics;

mod listen;
mod stream;

mod phase;
