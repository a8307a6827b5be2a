//! What a variant is: a message as text with places for what changes from run to run.

/// What the gateway alone must do with a variant. Behind nginx, which rebuilds what it takes, each may be refused
/// or served, as one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// 4xx.
    Refused,
    /// 200, and this text (with places too) is what was written.
    Writes(&'static str),
    /// 2xx: a read, or a body whose end the gateway's library finds where others might not. What follows it on the
    /// connection is not looked at.
    Answered,
}

/// A variant. In `text` each character up to U+00FF is one byte, and `{...}` are the places of [`Places`].
#[derive(Debug, Clone, Copy)]
pub(super) struct Variant {
    pub(super) name: &'static str,
    pub(super) text: &'static str,
    pub(super) whole: bool,
    pub(super) verdict: Verdict,
    /// How many requests the client framed: the second one is `{second}`.
    pub(super) framed: usize,
}

/// A POST with these fields and this body.
pub(super) const fn post(name: &'static str, text: &'static str) -> Variant {
    Variant { name, text, whole: false, verdict: Verdict::Refused, framed: 1 }
}

/// A message from its first byte.
pub(super) const fn whole(name: &'static str, text: &'static str) -> Variant {
    Variant { whole: true, ..post(name, text) }
}

impl Variant {
    pub(super) const fn writes(self, body: &'static str) -> Self {
        Self { verdict: Verdict::Writes(body), ..self }
    }

    /// Writes the hidden request, as text.
    pub(super) const fn harmless(self) -> Self {
        self.writes("{H}")
    }

    pub(super) const fn answered(self) -> Self {
        Self { verdict: Verdict::Answered, ..self }
    }

    pub(super) const fn pipelined(self) -> Self {
        Self { framed: 2, ..self }
    }

    /// Its bytes.
    pub(super) fn bytes(&self, places: &Places) -> Vec<u8> {
        let front = if self.whole { "" } else { "POST {target} HTTP/1.1\r\n{fields}" };
        latin1(&places.fill(&format!("{front}{}", self.text)))
    }
}

/// What goes into the places.
pub(super) struct Places {
    /// `{target}`: an update of a scroll of the variant's own; `{read}`: a read of it.
    pub(super) target: String,
    pub(super) read: String,
    /// `{host}`, `{key}` and `{id}`, also together as the lines `{fields}`.
    pub(super) host: String,
    pub(super) key: String,
    pub(super) id: String,
    /// `{bob}`: another tenant's key.
    pub(super) bob: String,
    /// `{H}`: the request that must stay hidden.
    pub(super) hidden: String,
    /// `{second}`: a request that the client frames honestly.
    pub(super) second: String,
}

impl Places {
    /// Lengths of the hidden request: `{n}` decimal, `{x}` hexadecimal; with an end of chunks before it `{n+5}` and
    /// `{x+5}`; too long by a power of two `{n+2^32}`, `{n+2^64}`, `{x+2^32}` and `{x+2^64}`.
    pub(super) fn fill(&self, text: &str) -> String {
        let n = self.hidden.len() as u128;
        let values = [
            ("{fields}", "Host: {host}\r\nAuthorization: Bearer {key}\r\nX-Request-Id: {id}\r\n".to_owned()),
            ("{target}", self.target.clone()),
            ("{read}", self.read.clone()),
            ("{host}", self.host.clone()),
            ("{key}", self.key.clone()),
            ("{bob}", self.bob.clone()),
            ("{id}", self.id.clone()),
            ("{second}", self.second.clone()),
            ("{n}", n.to_string()),
            ("{n+5}", (n + 5).to_string()),
            ("{n+2^32}", (n + (1 << 32)).to_string()),
            ("{n+2^64}", (n + (1 << 64)).to_string()),
            ("{x}", format!("{n:x}")),
            ("{x+5}", format!("{:x}", n + 5)),
            ("{x+2^32}", format!("{:x}", n + (1 << 32))),
            ("{x+2^64}", format!("{:x}", n + (1 << 64))),
            ("{H}", self.hidden.clone()),
        ];
        values.into_iter().fold(text.to_owned(), |text, (place, value)| text.replace(place, &value))
    }
}

fn latin1(text: &str) -> Vec<u8> {
    text.chars().map(|letter| u8::try_from(u32::from(letter)).expect("a byte")).collect()
}
