//! One file a subcommand: its options and `run`. `root`, `keys_file` and
//! `new_tenants` are what several of them write.

pub mod check;
pub mod healthcheck;
pub mod import;
pub mod keys_file;
pub mod new_tenants;
pub mod provision;
pub mod root;
pub mod serve;
pub mod tenants;
pub mod up;
