//! What a request brings, once its head and its body are complete: the common ground of all commands.

use sq_shared::form;
use sq_shared::problem::{Code, Problem};
use sq_shared::route::Route;
use sq_shared::tenant::TenantName;

use crate::api::params::Params;
use crate::store::{Expected, RepeatKey, breaks};

/// A complete request, not yet understood.
#[derive(Debug)]
pub struct Input<'a> {
    /// What it asks for.
    pub route: Route,
    /// Whether the method is POST; otherwise it is GET.
    pub is_post: bool,
    /// The query's parameters, and a form's.
    pub params: Params,
    /// The body as text.
    pub body: String,
    /// Whether the client said that the body is a text of no bytes: with a `Content-Length` of 0 or in chunks, and with a
    /// `Content-Type`.
    pub is_empty_text: bool,
    /// Whose worker this is, when it has a name.
    pub tenant: Option<&'a TenantName>,
    /// The number of the connection, which `status` answers.
    pub connection_id: u64,
    /// What the scroll must be for a write to be made.
    pub expected: Option<Expected>,
    /// The key under which a write may come again.
    pub repeat: Option<RepeatKey>,
}

impl Input<'_> {
    /// Takes `p`, `c` and the text from a form. Only for a request whose query has no `p`: otherwise
    /// the body is the text whatever its type is, because curl calls any text a form. So is one that names none of them, and,
    /// where the query says which scroll, one that names anything else.
    ///
    /// # Errors
    /// The form is not UTF-8 once it is decoded.
    pub fn take_form(&mut self) -> Result<(), Problem> {
        if self.params.get("p").is_some() || !takes_form(self.route) {
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

    /// The text that a command works on: a POST has it in the body, or else in `s`; a GET the other way.
    ///
    /// # Errors
    /// There is neither.
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

    /// The text of a scroll: without a break, which would move every later scroll.
    ///
    /// # Errors
    /// There is none, or it has a break in it.
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

/// `where` takes no phext, so a body that is called a form is its text.
fn takes_form(route: Route) -> bool {
    matches!(route, Route::Insert | Route::Update | Route::Delete | Route::Delta | Route::Query)
}
