//! The attacks: each module is one that a client, or a worker that was taken over, may try against the real binaries.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "these are tests; a helper beside a test function is one too"
)]

mod addresses;
mod escape;
mod hostile_worker;
mod isolation;
mod links;
mod many_phexts;
mod noise;
mod operator_ports;
mod slot_ports;
mod slow_readers;
mod smuggling;
mod terminal;
mod utf8;
