//! Bytes that look like requests, and less and less so.

use sq_tests::random::Random;

/// Pieces that parsers stumble over.
const PIECES: [&[u8]; 16] = [
    b"\r\n",
    b"\n",
    b"\r",
    b"\0",
    b"\xff",
    b"\xed\xa0\x80",
    b" ",
    b":",
    b"%",
    b"%ff",
    b"Transfer-Encoding: chunked\r\n",
    b"Content-Length: 99999999999999999999\r\n",
    b"Content-Length: 3\r\n",
    b"Expect: 100-continue\r\n",
    b"Upgrade: h2c\r\nConnection: upgrade\r\n",
    b"0\r\n\r\n",
];

/// How long a piece of random bytes is at most.
const RANDOM_BYTES: usize = 2048;

/// How many changes one message gets at most.
const CHANGES: usize = 6;

/// The next message: one in eight is random bytes, the others are changed from valid ones.
pub(super) fn message(random: &mut Random, valid: &[Vec<u8>]) -> Vec<u8> {
    if random.below(8) == 0 {
        return bytes(random);
    }
    let mut message = random.pick(valid).clone();
    for _ in 0..=random.below(CHANGES) {
        change(random, &mut message, valid);
    }
    message
}

fn bytes(random: &mut Random) -> Vec<u8> {
    let length = 1 + random.below(RANDOM_BYTES);
    (0..length).map(|_| random.next_u64().to_le_bytes()[0]).collect()
}

fn change(random: &mut Random, message: &mut Vec<u8>, valid: &[Vec<u8>]) {
    let (start, end) = range(random, message.len());
    match random.below(9) {
        0 => flip(random, message),
        1 => _ = message.drain(start..end),
        2 => {
            let twice = message[start..end].to_vec();
            _ = message.splice(start..start, twice);
        }
        3 => message.truncate(end),
        4 => _ = message.splice(start..start, random.pick(&PIECES).iter().copied()),
        5 => _ = message.splice(start..end, bytes(random)),
        6 => {
            let other = random.pick(valid);
            let (from, _) = range(random, other.len());
            message.truncate(end);
            message.extend(&other[from..]);
        }
        7 => shuffle_lines(random, message),
        _ => message.extend(random.pick(valid)),
    }
}

/// A short stretch, as most mistakes are; sometimes any.
fn range(random: &mut Random, length: usize) -> (usize, usize) {
    let start = random.below(length + 1);
    let longest = if random.below(4) == 0 { length } else { 16 };
    (start, (start + random.below(longest + 1)).min(length))
}

fn flip(random: &mut Random, message: &mut [u8]) {
    if !message.is_empty() {
        let at = random.below(message.len());
        message[at] ^= 1 << random.below(8);
    }
}

/// Puts the lines of the head in another order.
fn shuffle_lines(random: &mut Random, message: &mut Vec<u8>) {
    let mut lines: Vec<Vec<u8>> =
        message.split_inclusive(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect();
    for last in (2..lines.len()).rev() {
        lines.swap(last, 1 + random.below(last));
    }
    *message = lines.concat();
}
