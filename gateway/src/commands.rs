//! One file a subcommand: its options and `run`. `root` and `keys_file` are what several of them write.

pub mod check;
pub mod healthcheck;
pub mod import;
pub mod keys_file;
pub mod provision;
pub mod root;
pub mod serve;
pub mod tenants;
pub mod up;
