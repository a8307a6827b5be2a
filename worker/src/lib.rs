//! A worker owns one tenant's directory and serves it over HTTP; the pool owns every slot's socket and
//! keeps the workers alive. Both are this program, `sq-worker`.
//!
//! A request's way through a worker: [`server`] accepts and reads it, [`api`] turns it into a command and
//! runs it on the [`store`], and the answer goes back. The store knows no HTTP; the API knows no sockets.
//!
//! The pool's loop is observe, plan, act: [`pool`].

#![forbid(unsafe_code)]

pub mod api;
pub mod cli;
pub mod commands;
pub mod pool;
pub mod sandbox;
pub mod server;
pub mod settings;
pub mod store;
