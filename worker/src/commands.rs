//! One file per command: its options and `run`.

pub mod fsck;
pub mod healthcheck;
pub mod pool;
pub mod sandbox;
pub mod serve;

// The socket that `serve` inherits.
pub mod inherited_socket;
