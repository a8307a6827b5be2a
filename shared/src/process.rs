//! What each of our programs needs as a process, whatever it serves: the user it runs as, signals, logs, output, the service
//! manager, the terminal, and the files it watches.

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
