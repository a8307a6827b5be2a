//! One file a subcommand: its options and `run`.

pub mod healthcheck;
pub mod pool;
pub mod serve;
