//! A loopback address per deployment, so all of them can use the default ports at the same time.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::sync::atomic::{AtomicU32, Ordering};

/// Ports that must be free on an address before a deployment takes it: the three of the gateway and its pool, a
/// spare, and the first and the last slot.
const PROBED_PORTS: [u16; 6] = [1337, 1338, 1339, 1340, 1341, 1840];

/// An address of 127.0.0.0/8 without listeners, which no other call in this process returns.
///
/// # Panics
/// None of the next addresses is free.
pub fn unused() -> Ipv4Addr {
    static COUNTER: AtomicU32 = AtomicU32::new(0);
    let candidates = (0..250).map(|_| candidate(std::process::id(), COUNTER.fetch_add(1, Ordering::Relaxed)));
    candidates.into_iter().find(|address| is_free(*address)).expect("no loopback address is free")
}

/// The addresses of a process: 254 of a network that its id names, then those of networks far from its neighbours'.
/// 127.0.0.x is left to programs with fixed addresses.
fn candidate(process: u32, count: u32) -> Ipv4Addr {
    const ADDRESSES: u32 = 254;
    const DISTANCE: u32 = 4099;
    let octet = |value: u32| u8::try_from(value).unwrap_or(u8::MAX);
    let network = process.wrapping_add(count / ADDRESSES * DISTANCE);
    let (high, low) = (1 + (network >> 8) % 254, network % 256);
    Ipv4Addr::new(127, octet(high), octet(low), octet(1 + count % ADDRESSES))
}

fn is_free(address: Ipv4Addr) -> bool {
    PROBED_PORTS.iter().all(|port| TcpListener::bind((address, *port)).is_ok())
}

/// A port that was free a moment ago, for a program that cannot choose one.
///
/// # Panics
/// The system has no free port.
pub fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).expect("a free port");
    listener.local_addr().expect("its number").port()
}

/// An address with its port.
pub fn at(address: Ipv4Addr, port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(address), port)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_process_gets_no_address_twice() {
        let addresses: BTreeSet<Ipv4Addr> = (0..2000).map(|count| candidate(4711, count)).collect();
        assert_eq!(addresses.len(), 2000);
    }
}
