//! The product as it is deployed: containers on a real engine, nginx with TLS in front, hosts that stop and crash.
//! `tests/deploy/run` starts these tests, one after the other.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod compose;
mod customer;
mod memory;
mod monitoring;
mod page;
mod single;
mod systemd;
