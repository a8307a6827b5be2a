//! What each of our programs needs as a process: its user, signals, logs, output, the service manager, the terminal,
//! and watched files.

pub mod command_line;
pub mod failure;
pub mod healthcheck;
pub mod open_files;
pub mod output;
pub mod service_manager;
pub mod service_user;
pub mod signals;
pub mod telemetry;
mod terminal;
mod terminal_guard;
pub mod upgrade;
pub mod watch;
