//! The attacks: each module is one that a client, or a hostile worker, may try against the real binaries.

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
