//! The limits that no config changes, each with its reason. Those that an operator may change are fields of
//! [`crate::config`], with their defaults.

use std::time::Duration;

/// Longest token, in bytes. Ours have 39; old tokens of any form are accepted up to this.
pub const TOKEN_BYTES: usize = 512;

/// Longest phext name, in bytes: with `.journal.tmp` appended it stays below the 255 bytes that Linux file systems
/// allow for a file name.
pub const PHEXT_NAME_BYTES: usize = 240;

/// Most keys of one tenant: a worker compares a request's key with each of them. Far more than the programs of one
/// customer, and enough for a rotation each month of eight years before old keys must be taken out.
pub const KEYS_PER_TENANT: usize = 100;

/// Highest `N` of a key `kN` that is given out, and of `last_key`: enough for one key a second over 31 years, and far
/// from an overflow. A higher one, written by hand, is a name and not a number.
pub const KEY_NUMBER: u32 = 999_999_999;

/// Longest tenant name: a letter and 62 more, the length of a DNS label (RFC 1035, 2.3.4).
pub const TENANT_NAME_BYTES: usize = 63;

/// Largest part of a new scroll's coordinate, unless the config has another (`limits.coordinate`). A coordinate is
/// written to disk as breaks, so it costs as many bytes as its parts are large: at most 9 × 99,998.
pub const COORDINATE_PART: u32 = 99_999;

/// Longest text of a coordinate, in bytes: a tenant's name, nine numbers of ten digits and their separators take 163;
/// the rest is for zeros and spaces.
pub const COORDINATE_TEXT_BYTES: usize = 240;

/// Most header fields in one request. nginx and Apache have a similar limit; pingora allows 256.
pub const HEADER_FIELDS: usize = 100;

/// Longest `Idempotency-Key`, in bytes: a UUID and a few words fit, and it is cheap to remember.
pub const IDEMPOTENCY_KEY_BYTES: usize = 128;

/// A body of which less than [`BODY_WINDOW_BYTES`] arrive in this time is too slow (408).
pub const BODY_WINDOW: Duration = Duration::from_secs(10);

/// How much of a body must arrive in a [`BODY_WINDOW`]: 1 KiB a second.
pub const BODY_WINDOW_BYTES: u64 = 10 * 1024;

/// A client that takes less than [`ANSWER_WINDOW_BYTES`] of its answer while the gateway waits for it this long is
/// cut off. Long enough for a train in a tunnel; nginx waits 60 s, but accepts a single byte.
pub const ANSWER_WINDOW: Duration = Duration::from_secs(30);

/// How much a client must take in an [`ANSWER_WINDOW`]: 1 KiB a second, the same rate as for a body. A telephone on
/// GPRS takes three times that, and a plan throttled to 32 kbit/s four times; IIS and Kestrel ask for 240 bytes.
pub const ANSWER_WINDOW_BYTES: u64 = 30 * 1024;

/// How much unsent data of an answer may wait in the kernel for a client (tcp(7), `TCP_NOTSENT_LOWAT`). Without a
/// limit, the kernel buffers megabytes for a client on the same machine, such as nginx, even if it does not read.
/// Data in flight is not counted, so a distant and fast client is not slowed down.
pub const CLIENT_UNSENT_BYTES: u32 = 128 << 10;

/// How long a refused client may take to read its answer and to stop sending.
pub const LINGER_TIME: Duration = Duration::from_secs(2);

/// How many bytes of a refused client's request are still read; after that it is held up, and cut off when its time
/// is over.
pub const LINGER_BYTES: usize = 4 << 20;

/// How long a worker's client, the gateway, may take none of its answer. The gateway reads on when its own client has
/// taken what is buffered between: a piece of 64 KiB and [`CLIENT_UNSENT_BYTES`], which takes 192 s at the lowest
/// rate.
pub const WORKER_WRITE_TIMEOUT: Duration = Duration::from_secs(600);

/// Most bytes of a worker's answer before its body: its head, and interim heads. Our worker's has less than 1 KiB.
pub const ANSWER_HEAD_BYTES: usize = 16 << 10;

/// Most interim answers (1xx) before a worker's answer. The gateway asks for none, and our worker sends none.
pub const INTERIM_ANSWERS: usize = 4;

/// The lowest rate at which a worker must send an answer and take a body while the gateway waits for it: the same as
/// for a client.
pub const WORKER_BYTES_PER_S: u32 = 1024;

/// How long the gateway waits for a TCP connection to a slot, or as long as is left of `timeouts.answer`. The slot's
/// socket is on this host or next to it, and the kernel accepts: only a full backlog makes this wait.
pub const UPSTREAM_CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Longest time the gateway keeps an idle connection to a worker. It is shorter than [`WORKER_KEEPALIVE_TIMEOUT`], so
/// the gateway closes first, and never the worker under a request.
pub const UPSTREAM_IDLE_TIMEOUT: Duration = Duration::from_secs(60);

/// How long a worker keeps a connection that sends no request.
pub const WORKER_KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(90);

/// Longest queue of pending connections of a slot. A worker that starts finds them all waiting; the kernel caps the
/// queue at `net.core.somaxconn` (4096 by default).
pub const SLOT_BACKLOG: i32 = 1024;

/// Longest queue of pending connections of the gateway. Clients wait in it when many connect at once, and at the cap
/// of `limits.connections`; the kernel caps it like a slot's.
pub const CLIENT_BACKLOG: i32 = 4096;
