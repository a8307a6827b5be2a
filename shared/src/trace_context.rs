//! The trace that a request belongs to, from its `traceparent` and `tracestate` (W3C Trace Context,
//! <https://www.w3.org/TR/trace-context/>). Invalid fields are dropped; they are never an error.

use std::fmt;
use std::num::{NonZeroU64, NonZeroU128};

use http::{HeaderMap, HeaderValue};
use uuid::Uuid;

use crate::headers::TRACESTATE;
use crate::headers::lookup::TRACEPARENT;

/// The length of a `traceparent` of version 00, and the minimum length of later versions.
const PARENT_BYTES: usize = 55;

/// The supported version (section 3.2.2).
const VERSION: u8 = 0x00;

/// The version that is invalid by definition.
const FORBIDDEN_VERSION: u8 = 0xff;

/// The one flag that all versions have: the caller may have recorded its part (section 3.2.2.5).
const SAMPLED: u8 = 0x01;

/// The longest `tracestate` that is passed on (section 3.3.1.5).
const STATE_BYTES: usize = 512;

/// Most members of a `tracestate` (section 3.3.1.1).
const STATE_MEMBERS: usize = 32;

/// The longest key of a member, and the longest value (sections 3.3.1.3.1 and 3.3.1.3.2).
const MEMBER_PART_BYTES: usize = 256;

/// A trace's id: 128 bits, not all zero. It prints as 32 hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TraceId(pub NonZeroU128);

/// The trace of a request and the caller's span. It prints as a `traceparent` of version 00.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TraceParent {
    /// The trace.
    pub trace_id: TraceId,
    /// The caller's span.
    pub span_id: NonZeroU64,
    flags: u8,
}

/// Data of tracing systems: members without a meaning here, passed on unchanged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TraceState(HeaderValue);

impl TraceParent {
    /// Reads a `traceparent`. What a later version appends to the four known parts is ignored, as are flags that not
    /// every version has (section 4.3).
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let (known, rest) = bytes.split_at_checked(PARENT_BYTES)?;
        let mut parts = known.split(|byte| *byte == b'-');
        let version = u8::try_from(hexadecimal(parts.next()?, 2)?).ok()?;
        let trace_id = TraceId(NonZeroU128::new(hexadecimal(parts.next()?, 32)?)?);
        let span_id = NonZeroU64::new(u64::try_from(hexadecimal(parts.next()?, 16)?).ok()?)?;
        let flags = u8::try_from(hexadecimal(parts.next()?, 2)?).ok()?;
        let may_follow = match version {
            FORBIDDEN_VERSION => false,
            VERSION => rest.is_empty(),
            _ => rest.is_empty() || rest.starts_with(b"-"),
        };
        let flags = if version == VERSION { flags } else { flags & SAMPLED };
        may_follow.then_some(Self { trace_id, span_id, flags })
    }

    /// Reads a request's field. Two fields count as none.
    pub fn from_headers(headers: &HeaderMap) -> Option<Self> {
        let mut fields = headers.get_all(TRACEPARENT).iter();
        let only = fields.next().filter(|_| fields.next().is_none())?;
        Self::parse(only.as_bytes())
    }

    /// The first span of a new trace, which is recorded.
    pub fn new_root() -> Self {
        let trace_id = NonZeroU128::new(Uuid::new_v4().as_u128()).unwrap_or(NonZeroU128::MIN);
        Self { trace_id: TraceId(trace_id), span_id: new_span_id(), flags: SAMPLED }
    }

    /// A new span of this trace, whose parent is this one.
    #[must_use]
    pub fn child(self) -> Self {
        Self { span_id: new_span_id(), ..self }
    }

    /// Whether the caller may have recorded its part of the trace.
    pub fn is_sampled(self) -> bool {
        self.flags & SAMPLED != 0
    }

    /// The field's value.
    pub fn header_value(self) -> HeaderValue {
        // The text has only digits and hyphens.
        HeaderValue::try_from(self.to_string()).unwrap_or(HeaderValue::from_static(""))
    }
}

impl TraceState {
    /// Checks a `tracestate`: up to 512 bytes and 32 members, each a key and a value. A longer one is dropped whole,
    /// as the specification allows: it is never cut.
    pub fn parse(text: &str) -> Option<Self> {
        let members = || text.split(',').map(|member| member.trim_matches([' ', '\t']));
        let count = members().filter(|member| !member.is_empty()).count();
        let fits = text.len() <= STATE_BYTES && (1..=STATE_MEMBERS).contains(&count);
        let are_good = || members().all(|member| member.is_empty() || is_member(member));
        if fits && are_good() { HeaderValue::from_str(text).ok().map(Self) } else { None }
    }

    /// Reads a request's fields, joined in their order (section 3.3.1).
    pub fn from_headers(headers: &HeaderMap) -> Option<Self> {
        let fields = || headers.get_all(TRACESTATE).iter();
        if fields().map(HeaderValue::len).sum::<usize>() > STATE_BYTES {
            return None;
        }
        let texts: Vec<&str> = fields().map(HeaderValue::to_str).collect::<Result<_, _>>().ok()?;
        Self::parse(&texts.join(","))
    }

    /// The field's value.
    pub fn header_value(&self) -> &HeaderValue {
        &self.0
    }
}

/// The half of a random UUID that is never zero: 62 bits of it are random (RFC 9562, 5.4).
fn new_span_id() -> NonZeroU64 {
    NonZeroU64::new(Uuid::new_v4().as_u64_pair().1).unwrap_or(NonZeroU64::MIN)
}

/// This many hexadecimal digits, in lower case, as the specification requires.
fn hexadecimal(part: &[u8], digits: usize) -> Option<u128> {
    let is_digit = |byte: &u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    let text = str::from_utf8(part).ok().filter(|_| part.len() == digits && part.iter().all(is_digit))?;
    u128::from_str_radix(text, 16).ok()
}

fn is_member(member: &str) -> bool {
    let Some((key, value)) = member.split_once('=') else { return false };
    let may_start = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let may_follow = |byte: u8| may_start(byte) || b"_-*/@".contains(&byte);
    let may_be_value = |byte: u8| matches!(byte, b' '..=b'~') && !b",=".contains(&byte);
    let fits = |part: &str| (1..=MEMBER_PART_BYTES).contains(&part.len());
    fits(key)
        && fits(value)
        && key.bytes().next().is_some_and(may_start)
        && key.bytes().all(may_follow)
        && value.bytes().all(may_be_value)
}

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Display for TraceParent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{VERSION:02x}-{}-{:016x}-{:02x}", self.trace_id, self.span_id, self.flags)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use http::header::IntoHeaderName;

    const GOOD: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn headers(name: impl IntoHeaderName + Clone, values: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        values.iter().for_each(|value| _ = headers.append(name.clone(), value.parse().unwrap()));
        headers
    }

    #[test]
    fn a_traceparent_is_read_to_the_letter() {
        let parent = TraceParent::parse(GOOD.as_bytes()).unwrap();
        assert_eq!(parent.to_string(), GOOD);
        assert_eq!(parent.trace_id.to_string(), "4bf92f3577b34da6a3ce929d0e0e4736");
        let later = format!("cc{}3-what-comes-later", &GOOD[2..54]);
        assert_eq!(TraceParent::parse(later.as_bytes()), Some(parent), "a later version may be longer");
        for bad in [
            String::new(),
            GOOD[..54].to_owned(),
            format!("{GOOD}-"),
            format!("{GOOD}-00"),
            format!(" {GOOD}"),
            format!("ff{}", &GOOD[2..]),
            format!("cc{}.x", &GOOD[2..]),
            GOOD.to_uppercase(),
            GOOD.replace("4bf92f3577b34da6a3ce929d0e0e4736", &"0".repeat(32)),
            GOOD.replace("00f067aa0ba902b7", &"0".repeat(16)),
            GOOD.replace("4bf", "4bg"),
            GOOD.replace("4bf", "+bf"),
            GOOD.replace("-01", "_01"),
        ] {
            assert_eq!(TraceParent::parse(bad.as_bytes()), None, "{bad}");
        }
    }

    #[test]
    fn a_child_has_all_but_the_span_of_its_parent() {
        for flags in ["00", "01", "02", "03"] {
            let parent = TraceParent::parse(GOOD.replace("-01", &format!("-{flags}")).as_bytes()).unwrap();
            let child = parent.child();
            assert_eq!((child.trace_id, child.flags), (parent.trace_id, parent.flags));
            assert_eq!(child.is_sampled(), ["01", "03"].contains(&flags));
            assert_ne!(child.span_id, parent.span_id);
            assert_ne!(child, parent.child());
            assert_eq!(TraceParent::parse(child.to_string().as_bytes()), Some(child));
        }
        let root = TraceParent::new_root();
        assert!(root.is_sampled() && root.trace_id != TraceParent::new_root().trace_id);
        assert_eq!(TraceParent::parse(root.to_string().as_bytes()), Some(root));
    }

    #[test]
    fn two_parents_are_both_ignored() {
        assert!(TraceParent::from_headers(&headers(TRACEPARENT, &[GOOD])).is_some());
        assert_eq!(TraceParent::from_headers(&headers(TRACEPARENT, &[GOOD, GOOD])), None);
        assert_eq!(TraceParent::from_headers(&HeaderMap::new()), None);
    }

    #[test]
    fn a_state_is_passed_on_whole_or_not_at_all() {
        let of = |values: &[&str]| {
            let state = TraceState::from_headers(&headers(TRACESTATE, values));
            state.map(|state| state.header_value().to_str().unwrap().to_owned())
        };
        assert_eq!(of(&["a=1", "b@c=2, ,d/*_-=~ ~"]).as_deref(), Some("a=1,b@c=2, ,d/*_-=~ ~"));
        let (longest, most) = (format!("a={},b={}", "x".repeat(256), "y".repeat(251)), ["a=1"; 32].join(","));
        assert_eq!((of(&[&longest]), of(&[&most])), (Some(longest.clone()), Some(most.clone())));
        let (longer, more) = (format!("{longest}y"), format!("{most},b=1"));
        let wide = format!("a={}", "x".repeat(257));
        for bad in ["", ",", "a", "=1", "a=", "A=1", "a=1,b", "a=b=c", "_a=1", "a b=1", &longer, &more, &wide]
        {
            assert_eq!(of(&[bad]), None, "{bad}");
        }
        assert_eq!(of(&[&longest, "c=1"]), None, "over two fields");
    }

    proptest! {
        #[test]
        fn every_good_one_is_read(trace_id in 1_u128.., span_id in 1_u64.., flags: u8) {
            let text = format!("00-{trace_id:032x}-{span_id:016x}-{flags:02x}");
            let parent = TraceParent::parse(text.as_bytes()).unwrap();
            prop_assert_eq!(parent.trace_id.to_string(), format!("{trace_id:032x}"));
            prop_assert_eq!(parent.to_string(), text);
        }

        #[test]
        fn what_is_read_of_version_00_is_passed_on_unchanged(text in "(00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}|.{0,60})") {
            match TraceParent::parse(text.as_bytes()) {
                Some(parent) if text.starts_with("00") => prop_assert_eq!(parent.to_string(), text),
                Some(_) => prop_assert!(text.len() >= PARENT_BYTES),
                None => {}
            }
        }

        #[test]
        fn one_wrong_byte_is_one_too_many(at in 0..PARENT_BYTES, byte: u8) {
            let mut bytes = GOOD.as_bytes().to_vec();
            bytes[at] = byte;
            let expected = matches!(byte, b'0'..=b'9' | b'a'..=b'f') && GOOD.as_bytes()[at] != b'-' || byte == GOOD.as_bytes()[at];
            let is_forbidden = bytes.starts_with(b"ff");
            prop_assert_eq!(TraceParent::parse(&bytes).is_some(), expected && !is_forbidden);
        }

        #[test]
        fn a_state_that_is_taken_is_bounded(text in "([a-z0-9@=, ]|\\PC){0,600}") {
            if let Some(state) = TraceState::parse(&text) {
                prop_assert!(state.header_value().len() <= STATE_BYTES);
                prop_assert_eq!(state.header_value().as_bytes(), text.as_bytes());
            }
        }
    }
}
