//! Bodies that are valid or invalid UTF-8, weighted towards cases where a validator may err.

use crate::random::Random;

/// The first byte of a sequence: both ends of each row of table 3-7 of the Unicode Standard, and bytes that are in no
/// row.
const LEADS: [u8; 22] = [
    0x00, 0x7f, 0x80, 0xbf, 0xc0, 0xc1, 0xc2, 0xdf, 0xe0, 0xe1, 0xec, 0xed, 0xee, 0xef, 0xf0, 0xf1, 0xf3,
    0xf4, 0xf5, 0xf8, 0xfe, 0xff,
];

/// The following bytes: both ends of each range of the table, and the bytes beside them.
const TRAILS: [u8; 8] = [0x7f, 0x80, 0x8f, 0x90, 0x9f, 0xa0, 0xbf, 0xc0];

/// The first and the last character of each length, and those beside the surrogates.
const CHARACTERS: [char; 10] = [
    '\0',
    '\u{7f}',
    '\u{80}',
    '\u{7ff}',
    '\u{800}',
    '\u{d7ff}',
    '\u{e000}',
    '\u{ffff}',
    '\u{10000}',
    '\u{10ffff}',
];

/// The next body. Half of the bodies are valid. Most are short, some have a few KiB; the invalid ones have a bad
/// sequence anywhere, including the end.
pub fn generate(random: &mut Random) -> Vec<u8> {
    let mut body = Vec::new();
    let parts = random.below(12);
    for _ in 0..parts {
        match random.below(8) {
            0 => body.resize(body.len() + random.below(64), b'a'),
            1 if random.below(16) == 0 => body.resize(body.len() + random.below(4096), b'b'),
            2 => body.extend(
                u32::try_from(random.below(0x11_0000))
                    .ok()
                    .and_then(char::from_u32)
                    .unwrap_or('\u{1f506}')
                    .to_string()
                    .bytes(),
            ),
            _ => body.extend(random.pick(&CHARACTERS).to_string().bytes()),
        }
    }
    match random.below(4) {
        // A valid sequence.
        0 | 1 => {}
        // Truncated, perhaps inside a character.
        2 => body.truncate(body.len().saturating_sub(1 + random.below(4))),
        _ => {
            let at = random.below(body.len() + 1);
            let mut bad = vec![*random.pick(&LEADS)];
            bad.extend((0..random.below(4)).map(|_| *random.pick(&TRAILS)));
            body.splice(at..at, bad);
        }
    }
    body
}
