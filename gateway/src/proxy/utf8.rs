//! Checks that requests are UTF-8: path and query as they decode, and the body as it streams, however it is cut into chunks
//! (Unicode 16, table 3-7).

use percent_encoding::percent_decode;
use sq_shared::problem::{Code, Problem};

/// The part of a request that is not UTF-8.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{part} is not UTF-8 at byte {offset}")]
pub struct InvalidUtf8 {
    /// `path`, `query` or `body`.
    pub part: &'static str,
    /// Where the first invalid sequence begins, in the decoded part.
    pub offset: u64,
}

impl InvalidUtf8 {
    /// What the client is told.
    pub fn problem(self) -> Problem {
        let Self { part, offset } = self;
        let detail = format!("The {part} is not UTF-8 at byte {offset}. Send UTF-8.");
        Problem::new(Code::InvalidUtf8, detail).with("offset", offset).with("part", part)
    }
}

/// Checks a path and a query, each percent-decoded.
///
/// # Errors
/// One of them is not UTF-8.
pub fn check_target(path: &[u8], query: &[u8]) -> Result<(), InvalidUtf8> {
    check_part("path", path)?;
    check_part("query", query)
}

fn check_part(part: &'static str, encoded: &[u8]) -> Result<(), InvalidUtf8> {
    let plain = !encoded.contains(&b'%');
    let result = if plain {
        simdutf8::compat::from_utf8(encoded).map(|_| ())
    } else {
        let decoded: Vec<u8> = percent_decode(encoded).collect();
        simdutf8::compat::from_utf8(&decoded).map(|_| ())
    };
    result.map_err(|error| InvalidUtf8 { part, offset: error.valid_up_to() as u64 })
}

/// Checks a body chunk by chunk. Up to three bytes wait for the rest of their character.
#[derive(Debug, Default)]
pub struct BodyValidator {
    waiting: [u8; 3],
    waiting_len: usize,
    /// The number of bytes known to be valid, and so the offset of the waiting ones.
    valid_bytes: u64,
}

impl BodyValidator {
    /// Checks the next chunk.
    ///
    /// # Errors
    /// The body is not UTF-8.
    pub fn push(&mut self, chunk: &[u8]) -> Result<(), InvalidUtf8> {
        let rest = if self.waiting_len == 0 { chunk } else { self.finish_waiting(chunk)? };
        match simdutf8::compat::from_utf8(rest) {
            Ok(_) => self.valid_bytes += rest.len() as u64,
            Err(error) => {
                self.valid_bytes += error.valid_up_to() as u64;
                if error.error_len().is_some() {
                    return Err(self.error());
                }
                self.wait_for_more(rest.get(error.valid_up_to()..).unwrap_or_default());
            }
        }
        Ok(())
    }

    /// Checks the body's end.
    ///
    /// # Errors
    /// The body ends in the middle of a character.
    pub fn finish(&self) -> Result<(), InvalidUtf8> {
        if self.waiting_len == 0 { Ok(()) } else { Err(self.error()) }
    }

    /// Completes the waiting character with the chunk's first bytes. Returns the rest of the chunk.
    fn finish_waiting<'c>(&mut self, mut chunk: &'c [u8]) -> Result<&'c [u8], InvalidUtf8> {
        while let Some((first, rest)) = chunk.split_first() {
            let mut character = [0; 4];
            let length = self.waiting_len + 1;
            let bytes = self.waiting.iter().take(self.waiting_len).chain([first]);
            character.iter_mut().zip(bytes).for_each(|(target, byte)| *target = *byte);
            let character = character.get(..length).unwrap_or_default();
            chunk = rest;
            match std::str::from_utf8(character) {
                Ok(_) => {
                    self.valid_bytes += length as u64;
                    self.waiting_len = 0;
                    break;
                }
                Err(error) if error.error_len().is_some() => return Err(self.error()),
                Err(_) => self.wait_for_more(character),
            }
        }
        Ok(chunk)
    }

    fn wait_for_more(&mut self, bytes: &[u8]) {
        self.waiting_len = bytes.len().min(self.waiting.len());
        for (target, byte) in self.waiting.iter_mut().zip(bytes) {
            *target = *byte;
        }
    }

    fn error(&self) -> InvalidUtf8 {
        InvalidUtf8 { part: "body", offset: self.valid_bytes }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use sq_tests::random::Random;
    use sq_tests::utf8_body;

    fn verdict<'a>(chunks: impl IntoIterator<Item = &'a [u8]>) -> Result<(), u64> {
        let mut validator = BodyValidator::default();
        for chunk in chunks {
            validator.push(chunk).map_err(|error| error.offset)?;
        }
        validator.finish().map_err(|error| error.offset)
    }

    fn expected(body: &[u8]) -> Result<(), u64> {
        std::str::from_utf8(body).map(|_| ()).map_err(|error| error.valid_up_to() as u64)
    }

    /// Bytes that are often the start, the middle or the end of a character.
    fn tricky_byte() -> impl Strategy<Value = u8> {
        prop_oneof![
            Just(b'a'),
            Just(0x80),
            Just(0xbf),
            Just(0xc1),
            Just(0xc3),
            Just(0xe0),
            Just(0xa0),
            Just(0xed),
            Just(0x9f),
            Just(0xef),
            Just(0xf0),
            Just(0x9f),
            Just(0x94),
            Just(0x86),
            Just(0xf4),
            Just(0x8f),
            any::<u8>(),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(20_000))]
        #[test]
        fn any_cut_gives_the_verdict_of_the_whole(
            body in prop::collection::vec(tricky_byte(), 0..24),
            cuts in prop::collection::vec(1usize..5, 24),
        ) {
            let mut rest = body.as_slice();
            let mut chunks = Vec::new();
            for cut in cuts {
                let (chunk, after) = rest.split_at(cut.min(rest.len()));
                chunks.push(chunk);
                rest = after;
            }
            chunks.push(rest);
            prop_assert_eq!(verdict(chunks), expected(&body));
        }

        #[test]
        fn valid_text_passes_in_any_cut(text in "\\PC{0,40}", cut in 1usize..7) {
            prop_assert_eq!(verdict(text.as_bytes().chunks(cut)), Ok(()));
        }
    }

    /// The same generator sends bodies through the real gateway, fewer of them, in `tests/attack/utf8.rs`.
    #[test]
    fn a_million_bodies_in_random_pieces_have_the_verdict_of_the_standard_library() {
        let mut random = Random::new(1);
        let mut invalid = 0;
        for _ in 0..1_000_000 {
            let body = utf8_body::generate(&mut random);
            let (mut rest, mut chunks) = (body.as_slice(), Vec::new());
            while !rest.is_empty() {
                let longest = *random.pick(&[1, 2, 3, 4, 7, 64, 4096]);
                let (chunk, behind) = rest.split_at((1 + random.below(longest)).min(rest.len()));
                chunks.push(chunk);
                rest = behind;
            }
            let expected = expected(&body);
            assert_eq!(verdict(chunks.iter().copied()), expected, "{chunks:x?}");
            invalid += u32::from(expected.is_err());
        }
        assert!((200_000..800_000).contains(&invalid), "{invalid} of a million are not UTF-8");
    }

    #[test]
    fn path_and_query_are_checked_as_they_decode() {
        assert!(check_target(b"/a%C3%A4", b"s=%F0%9F%94%86").is_ok());
        assert!(check_target("/ä".as_bytes(), b"s=100%").is_ok());
        assert_eq!(check_target(b"/%ff", b""), Err(InvalidUtf8 { part: "path", offset: 1 }));
        assert_eq!(check_target(b"/", b"s=a%C3&c=1"), Err(InvalidUtf8 { part: "query", offset: 3 }));
        assert_eq!(check_target(b"/", b"s=\xff"), Err(InvalidUtf8 { part: "query", offset: 2 }));
    }
}
