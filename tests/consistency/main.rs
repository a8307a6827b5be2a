//! Whether the system is consistent under faults: clients and a nemesis at work on the real programs, and a judge of
//! what the clients were told.

#![expect(
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "these are tests; a helper beside a test function is one too"
)]

mod checker;
mod clients;
mod disk;
mod history;
mod model;
mod nemesis;
mod planted;
mod programs;
mod register;
mod run;
mod shortest;
mod system;
