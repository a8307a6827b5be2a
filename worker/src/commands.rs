//! One file a subcommand: its options and `run`.

pub mod fsck;
pub mod healthcheck;
pub mod pool;
pub mod sandbox;
pub mod serve;
