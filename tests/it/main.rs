//! The integration tests: each module is one promise of the contract, checked on the real binaries. The attacks are in the
//! same program: most of them wait, while other tests have the processor.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "these are tests; a helper beside a test function is one too"
)]

mod admin;
#[path = "../attack/main.rs"]
mod attack;
mod audit;
mod auth;
mod browser;
mod check;
mod cli;
mod client_address;
mod client_habits;
mod clock_before_1970;
mod colours;
mod compat;
mod conditional;
mod config_reference;
mod content;
mod crash;
mod data_root;
mod durability;
mod encodings;
mod errors;
mod exchange;
mod framing;
mod fsck;
mod half_close;
mod head;
mod isolation;
mod keys;
mod last_answers;
mod lifecycle;
mod limits;
mod logs;
mod long_bodies;
mod lost_directories;
mod monitoring;
mod nginx;
mod nginx_customers;
mod observe;
mod old_registries;
mod operations;
mod output;
mod page;
mod passed_on;
mod pool_metrics;
mod pool_upgrade;
mod provision;
mod rate_limit_fields;
mod registry_links;
mod reload_files;
mod reloads;
mod removal;
mod repeats;
mod seed;
mod service;
mod set_up;
mod signals;
mod sq_files;
mod stop;
mod tenant_directories;
mod terminal_closed;
mod tidy;
mod units;
mod upgrade;
mod utf8;
mod worker_fields;
mod wrong_user;
