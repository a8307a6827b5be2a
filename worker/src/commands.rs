//! One file a subcommand: its options and `run`. `passed_on` is what `serve` is given.

pub mod fsck;
pub mod healthcheck;
pub mod passed_on;
pub mod pool;
pub mod sandbox;
pub mod serve;
