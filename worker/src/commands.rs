//! One file per command: its options and `run`.

pub(crate) mod fsck;
pub(crate) mod healthcheck;
pub(crate) mod pool;
pub(crate) mod sandbox;
pub(crate) mod serve;

// The socket that `serve` inherits.
pub(crate) mod inherited_socket;
