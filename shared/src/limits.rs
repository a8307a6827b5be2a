//! The limits that no config changes, each with its reason. Those that an operator may change
//! are fields of [`crate::config`], and their defaults stand there.

use std::time::Duration;

/// Longest token, in bytes. Ours have 39; old tokens of any form are accepted up to this.
pub const TOKEN_BYTES: usize = 512;

/// Longest phext name, in bytes: with `.journal.tmp` behind it, it stays under the 255 bytes that
/// Linux file systems allow for a file name.
pub const PHEXT_NAME_BYTES: usize = 240;

/// Most keys of one tenant: a worker compares a request's key with each of them. Far more than the programs of one
/// customer, and enough for a rotation each month of eight years before old keys must be taken out.
pub const KEYS_PER_TENANT: usize = 100;

/// Highest `N` of a key `kN` that is given out, and of `last_key`: enough for one key a second over 31 years, and far
/// from where numbers end. A higher one, written by hand, is a name and no number.
pub const KEY_NUMBER: u32 = 999_999_999;

/// Longest tenant name: a letter and 62 more, the length of a DNS label (RFC 1035, 2.3.4).
pub const TENANT_NAME_BYTES: usize = 63;

/// Largest part of a new scroll's coordinate, unless the config has another (`limits.coordinate`). A coordinate is
/// written to disk as breaks, so it costs as many bytes as its parts are large: at most 9 × 99,998.
pub const COORDINATE_PART: u32 = 99_999;

/// Longest text of a coordinate, in bytes: a tenant's name and nine numbers of ten digits have 163 with what separates
/// them; the rest is for zeros and spaces.
pub const COORDINATE_TEXT_BYTES: usize = 240;

/// Most header fields in one request. nginx and Apache stop at a like number; pingora at 256.
pub const HEADER_FIELDS: usize = 100;

/// Longest `Idempotency-Key`, in bytes: room for a UUID and a few words, and a small thing to remember.
pub const IDEMPOTENCY_KEY_BYTES: usize = 128;

/// A body that brings less than [`BODY_WINDOW_BYTES`] in this time is too slow (408).
pub const BODY_WINDOW: Duration = Duration::from_secs(10);

/// What a body must bring in a [`BODY_WINDOW`]: 1 KiB a second.
pub const BODY_WINDOW_BYTES: u64 = 10 * 1024;

/// A client that takes less than [`ANSWER_WINDOW_BYTES`] of its answer while it makes the gateway wait for so long
/// is cut off. Long enough for a train in a tunnel; nginx waits 60 s, but is content with a byte.
pub const ANSWER_WINDOW: Duration = Duration::from_secs(30);

/// What a client must take in an [`ANSWER_WINDOW`]: 1 KiB a second, as much as it must bring of a body. A telephone on
/// GPRS takes three times that, and a plan throttled to 32 kbit/s four times; IIS and Kestrel ask for 240 bytes.
pub const ANSWER_WINDOW_BYTES: u64 = 30 * 1024;

/// How much of its answer may wait in the kernel for a client, beside what is on its way (tcp(7), `TCP_NOTSENT_LOWAT`).
/// Left to itself, the kernel takes megabytes for a client on the same machine, as is nginx, even if it does not read;
/// and all of them are copied at once. What is on its way is not counted, so a far and fast client is not held back.
pub const CLIENT_UNSENT_BYTES: u32 = 128 << 10;

/// How long a refused client has to take its answer, and to stop sending.
pub const LINGER_TIME: Duration = Duration::from_secs(2);

/// How much of what a refused client still sends is read; then it is held up, and cut off when its time is over.
pub const LINGER_BYTES: usize = 4 << 20;

/// How long a worker's client, which is the gateway, may take nothing of its answer. The gateway reads on when its
/// own client has taken what is in between: a piece of 64 KiB, and [`CLIENT_UNSENT_BYTES`], which at the floor is 192 s.
pub const WORKER_WRITE_TIMEOUT: Duration = Duration::from_secs(600);

/// Most bytes of a worker's answer before its body: its head, and interim heads before that. Ours has less than 1 KiB.
pub const ANSWER_HEAD_BYTES: usize = 16 << 10;

/// Most interim answers (1xx) before a worker's answer. The gateway asks for none, and our worker sends none.
pub const INTERIM_ANSWERS: usize = 4;

/// What a worker must at least send of an answer, and take of a body, while the gateway waits for it: as much as a client
/// must.
pub const WORKER_BYTES_PER_S: u32 = 1024;

/// How long the gateway waits for a TCP connection to a slot; less when less is left of `timeouts.answer`. The slot's
/// socket is on this host or next to it, and its owner accepts in the kernel: only a full backlog makes this wait.
pub const UPSTREAM_CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Longest time the gateway keeps an idle connection to a worker. It is shorter than
/// [`WORKER_KEEPALIVE_TIMEOUT`], so that it is the gateway that closes, never the worker under a request.
pub const UPSTREAM_IDLE_TIMEOUT: Duration = Duration::from_secs(60);

/// How long a worker keeps a connection that sends no request.
pub const WORKER_KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(90);

/// Longest list of pending connections of a slot. A worker that starts has them all waiting; the
/// kernel caps it at `net.core.somaxconn` (4096 by default).
pub const SLOT_BACKLOG: i32 = 1024;

/// Longest list of pending connections of the gateway. Clients wait in it when a crowd comes at once, and at the cap
/// of `limits.connections`; the kernel caps it as it does that of a slot.
pub const CLIENT_BACKLOG: i32 = 4096;
