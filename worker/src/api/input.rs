//! A request whose head and body are complete, and the parameters that several commands have in common.

use sq_shared::coordinate::{Coordinate, InvalidCoordinate};
use sq_shared::form;
use sq_shared::phext_name::{InvalidPhextName, PhextName};
use sq_shared::problem::{Code, Problem};
use sq_shared::route::Route;
use sq_shared::tenant::TenantName;

use crate::api::params::Params;
use crate::store::{Expected, WriteKey, breaks};

/// The most coordinates in one request. Each takes some 40 bytes and a node of a tree, many times its own length.
pub(super) const MAX_COORDINATES: usize = 100_000;

/// A complete request that is not parsed yet.
#[derive(Debug)]
pub(crate) struct Input<'a> {
    pub(crate) route: Route,
    /// Whether the method is POST; otherwise it is GET.
    pub(crate) is_post: bool,
    /// The parameters of the query, and of a form.
    pub(crate) params: Params,
    pub(crate) body: String,
    /// Whether the client declared an empty body as the text: with a `Content-Length` of 0 or chunked, and with a
    /// `Content-Type`.
    pub(crate) is_empty_text: bool,
    /// The worker's tenant, if it has a name.
    pub(crate) tenant: Option<&'a TenantName>,
    /// The number of the connection, for `status`.
    pub(crate) connection_id: u64,
    pub(crate) expected: Option<Expected>,
    pub(crate) repeat: Option<WriteKey>,
}

impl Input<'_> {
    /// The phext that the request names; the unnamed one if it names none.
    pub(super) fn phext_name(&self) -> Result<PhextName, Problem> {
        PhextName::parse(self.params.get("p").unwrap_or("")).map_err(|error| {
            let leaves = error == InvalidPhextName::LeavesDirectory;
            let code = if leaves { Code::ForbiddenPhext } else { Code::InvalidPhext };
            Problem::new(code, error.to_string())
        })
    }

    /// The coordinate that the request names.
    pub(super) fn coordinate(&self) -> Result<Coordinate, Problem> {
        let text = self.params.get("c").ok_or_else(|| {
            Problem::new(Code::MissingParameter, "say which scroll: c=COORDINATE, as in c=1.1.1/1.1.1/1.1.1")
        })?;
        self.parse_coordinate(text)
    }

    /// Parses a coordinate from anywhere in the request.
    pub(super) fn parse_coordinate(&self, text: &str) -> Result<Coordinate, Problem> {
        Coordinate::parse(text, self.tenant).map_err(|error| {
            let foreign = matches!(error, InvalidCoordinate::ForeignNamespace { .. });
            let code = if foreign { Code::ForeignNamespace } else { Code::InvalidCoordinate };
            Problem::new(code, error.to_string())
        })
    }

    /// Takes `p`, `c` and the text from a form, if the query has no `p`. With a `p`, the body is the text whatever its type,
    /// because curl sends any text as a form. The body is also the text if it has none of these fields, or if the query
    /// names the scroll and the body has any other field.
    pub(crate) fn take_form(&mut self) -> Result<(), Problem> {
        if self.params.get("p").is_some() || !self.route.takes_form() {
            return Ok(());
        }
        let has_others = || form::pairs(self.body.as_bytes()).any(|(name, _)| !form::is_scroll_field(name));
        if self.params.get("c").is_some() && has_others() {
            return Ok(());
        }
        let mut form = Params::parse(&self.body).map_err(|error| {
            Problem::new(Code::InvalidUtf8, "the form is not UTF-8 once it is percent-decoded")
                .with("part", "body")
                .with("offset", error.offset)
        })?;
        let mut is_form = false;
        for (ours, theirs) in [("p", "p"), ("c", "c"), ("s", "content"), ("s", "s")] {
            if let Some(value) = form.take(theirs) {
                is_form = true;
                self.params.set(ours, value);
            }
        }
        if is_form {
            self.body = self.params.get("s").unwrap_or_default().to_owned();
        }
        Ok(())
    }

    /// The text of the request: for a POST the body, or else `s`; for a GET the reverse.
    pub(super) fn into_text(mut self) -> Result<String, Problem> {
        let in_query = self.params.take("s");
        let in_body = Some(self.body).filter(|body| !body.is_empty());
        let text = if self.is_post { in_body.or(in_query) } else { in_query.or(in_body) };
        text.ok_or_else(|| {
            Problem::new(
                Code::MissingParameter,
                "send the text as s= or as the body. To empty a scroll: s=, or a POST with Content-Length: 0 and a \
                 Content-Type",
            )
        })
    }

    /// The text of a scroll. It may have no break, which would move every later scroll.
    pub(super) fn into_scroll(self) -> Result<String, Problem> {
        let is_empty_text = self.is_post && self.is_empty_text;
        let text = self
            .into_text()
            .or_else(|missing| if is_empty_text { Ok(String::new()) } else { Err(missing) })?;
        match breaks::first_break(&text) {
            None => Ok(text),
            Some(offset) => Err(Problem::new(
                Code::BreakInScroll,
                "one of the nine phext breaks stands inside the text: write each part to its own coordinate",
            )
            .with("offset", offset)),
        }
    }
}

/// The parameter or body of this name has too many coordinates.
pub(super) fn too_many_coordinates(what: &str) -> Problem {
    let detail = format!("{what} has more than {MAX_COORDINATES} coordinates: ask in parts");
    Problem::new(Code::InvalidParameter, detail)
}

#[cfg(test)]
impl Input<'static> {
    /// A POST to the phext `notes`.
    pub(super) fn post(route: Route, body: String) -> Self {
        Self {
            route,
            is_post: true,
            params: Params::parse("p=notes").unwrap_or_default(),
            body,
            is_empty_text: false,
            tenant: None,
            connection_id: 1,
            expected: None,
            repeat: None,
        }
    }
}
