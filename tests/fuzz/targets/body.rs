//! A body that comes in pieces: the gateway's verdict is that of the whole. The first eight bytes say how long the
//! pieces are.

use sq_gateway::proxy::utf8::BodyValidator;

pub(crate) fn check(data: &[u8]) {
    let Some((lengths, body)) = data.split_first_chunk::<8>() else { return };
    let mut lengths = lengths.map(|byte| usize::from(if byte < 64 { byte % 8 } else { byte }));
    if lengths == [0; 8] {
        lengths = [body.len().max(1); 8];
    }
    let expected = std::str::from_utf8(body).map(drop).map_err(|error| error.valid_up_to() as u64);
    assert_eq!(verdict(body, lengths.into_iter().cycle()), expected);
}

fn verdict(mut rest: &[u8], mut lengths: impl Iterator<Item = usize>) -> Result<(), u64> {
    let mut validator = BodyValidator::default();
    while !rest.is_empty() {
        let (piece, behind) = rest.split_at(lengths.next().unwrap().min(rest.len()));
        validator.push(piece).map_err(|error| error.offset)?;
        rest = behind;
    }
    validator.finish().map_err(|error| error.offset)
}
