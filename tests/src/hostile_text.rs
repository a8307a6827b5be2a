//! Texts that a client may write, and that look like the beginnings of records in the journal's old format
//! (`docs/store.md`): a length, no checksum, a sequence, and what is durable.

/// The most that a journal contains besides half of such a text when a worker is killed while it writes.
const OTHERS_BYTES: usize = 4096;

/// Texts of this length, each with a name, which also serve when torn in half.
pub fn all(bytes: usize) -> Vec<(&'static str, String)> {
    vec![
        ("every 24 bytes, to the end", heads(bytes / 2, 24, |rest| rest).repeat(2)),
        ("every 58 bytes, to the end", heads(bytes / 2, 58, |rest| rest).repeat(2)),
        ("every 24 bytes, half of the rest", heads(bytes / 2, 24, |rest| rest / 2).repeat(2)),
        ("every 94 bytes, to the next", heads(bytes, 94, |_| 86)),
        ("every 8 bytes, overlapping", falling_words(bytes)),
    ]
}

/// Heads of records, this many bytes apart, each with the length of the rest of the text.
fn heads(bytes: usize, spacing: usize, length: impl Fn(usize) -> usize) -> String {
    let mut text = vec![b'x'; bytes];
    for at in (0..bytes.saturating_sub(spacing)).step_by(spacing) {
        let length =
            u32::try_from(length((bytes - at).saturating_sub(OTHERS_BYTES))).expect("a length of 32 bits");
        text[at..at + 4].copy_from_slice(&length.to_le_bytes().map(allowed));
        text[at + 4..at + 8].fill(0);
        text[at + 8..at + 16].copy_from_slice(&0x41_u64.to_le_bytes());
        text[at + 16..at + 24].copy_from_slice(&0x40_u64.to_le_bytes());
    }
    String::from_utf8(text).expect("ASCII")
}

/// Words of 8 bytes, each smaller than the previous one: each reads as a length, a sequence, and what is durable.
fn falling_words(bytes: usize) -> String {
    const DIGITS: usize = 95;
    const WORDS: usize = 20 * DIGITS * DIGITS;
    let digit = |number: usize| char::from(b' ' + u8::try_from(number % DIGITS).expect("below 95"));
    let words = (0..WORDS).rev().cycle().take(bytes / 8);
    let letters = words.map(|word| [word, word / DIGITS, word / DIGITS / DIGITS].map(digit));
    letters.flat_map(|letters| letters.into_iter().chain(['\0'; 5])).collect()
}

/// The largest byte up to this one that a text may contain: ASCII, and not a break.
fn allowed(byte: u8) -> u8 {
    match byte {
        0x01 => 0,
        0x17..=0x1a | 0x1c..=0x1f => 0x16,
        0x80.. => 0x7f,
        byte => byte,
    }
}
