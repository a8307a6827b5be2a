//! The worker's two programs in one, `sq-worker`: a worker, which owns one tenant's directory and serves it over HTTP, and
//! the pool, which owns every slot's socket and starts the workers.
//!
//! In a worker, [`server`] reads a request, [`api`] parses it into a command and runs that on the [`store`], and the answer
//! goes back. The store knows no HTTP; the API knows no sockets.
//!
//! The pool observes, plans and acts in one loop: `pool`.

#![forbid(unsafe_code)]

// In layers, from top to bottom: a module imports from its own layer and those below.
pub mod cli;
mod commands;

mod pool;
pub mod server;

pub mod api;
pub mod store;

pub mod sandbox;
mod settings;
