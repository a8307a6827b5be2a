//! The subcommands of `sq-gateway`, each with its options and `run`. `system` finds the config that they work on.

pub mod up;
pub mod serve;
pub mod provision;
pub mod tenants;
pub mod import;
pub mod check;
pub mod healthcheck;
mod system;
