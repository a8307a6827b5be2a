//! What the gateway, the pool and the workers must agree on, and nothing else: names and
//! coordinates, tokens and their digests, the config and the registry, where files lie, the
//! routes of the client API, how an error looks, and [`process`], what each of our programs needs as a process.
//!
//! Every type here that stands for something a client or an operator sends has one fallible
//! constructor. A value that exists has been checked.

// Not forbidden, as in the other crates: what `ctor` makes of a function allows itself a linker section.
#![deny(unsafe_code)]

pub mod access;
pub mod clock;
pub mod config;
pub mod config_source;
pub mod connection_places;
pub mod content;
pub mod coordinate;
pub mod credential;
pub mod data_root;
pub mod file_error;
pub mod file_lock;
pub mod form;
pub mod headers;
pub mod host;
pub mod http_dates;
pub mod idempotency;
pub mod layout;
pub mod limits;
pub mod listen_error;
pub mod loopback;
pub mod mounts;
pub mod operator_port;
pub mod phext_name;
pub mod problem;
pub mod process;
pub mod registry;
pub mod regular_file;
pub mod request_id;
pub mod route;
pub mod secret_file;
pub mod socket_file;
pub mod tenant;
pub mod token;
pub mod toml_reader;
pub mod trace_context;
pub mod visible;
