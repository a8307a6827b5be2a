//! One file a subcommand: its options and `run`. `root` is what several of them need.

pub mod check;
pub mod healthcheck;
pub mod import;
pub mod provision;
pub mod root;
pub mod serve;
pub mod tenants;
pub mod up;
