//! What the gateway, the pool and the workers must agree on: names and coordinates, tokens and their digests, the config and
//! the registry, where files lie, the routes of the client API, what an error looks like; and [`process`], what each of our
//! programs needs as a process.
//!
//! Every type here that stands for something a client or an operator sends has one fallible constructor. A value that
//! exists has been checked.
//!
//! The modules stand in layers, from top to bottom. A module imports from its own layer and those below, without circles.

// Not `forbid`, as in the other crates: the code that `ctor` generates needs to set a linker section.
#![deny(unsafe_code)]

// Processes, and the ports that they listen on.
pub mod connections;
pub mod http_dates;
pub mod listen_error;
pub mod operator_port;
pub mod process;

// What is in the files of a system.
pub mod config;
pub mod config_source;
pub mod data_root;
pub mod registry;
pub mod toml_reader;

// Files: where they lie, whose they are, and how they are read, written and locked.
pub mod access;
pub mod file_error;
pub mod file_id;
pub mod file_lock;
pub mod file_owner;
pub mod layout;
pub mod mounts;
pub mod regular_file;
pub mod secret_file;
pub mod socket_file;

// Values that clients and operators send, and what all requests and answers have in common.
pub mod byte_set;
pub mod clock;
pub mod content;
pub mod coordinate;
pub mod credential;
pub mod form;
pub mod headers;
pub mod host;
pub mod idempotency;
pub mod limits;
pub mod loopback;
pub mod phext_name;
pub mod problem;
pub mod request_id;
pub mod route;
pub mod tenant;
mod text_enum;
pub mod token;
pub mod trace_context;
pub mod visible;
