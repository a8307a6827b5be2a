//! What a request brings, once its head and its body are complete: the common ground of all commands.

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
    /// the body is the text whatever its type is, because curl calls any text a form.
    ///
    /// # Errors
    /// The form is not UTF-8 once it is decoded.
    pub fn take_form(&mut self) -> Result<(), Problem> {
        if self.params.get("p").is_some() || !takes_form(self.route) {
            return Ok(());
        }
        let mut form = Params::parse(&std::mem::take(&mut self.body)).map_err(|error| {
            Problem::new(Code::InvalidUtf8, "the form is not UTF-8 once it is percent-decoded")
                .with("part", "body")
                .with("offset", error.offset)
        })?;
        for (ours, theirs) in [("p", "p"), ("c", "c"), ("s", "content"), ("s", "s")] {
            if let Some(value) = form.take(theirs) {
                self.params.set(ours, value);
            }
        }
        if let Some(text) = self.params.get("s") {
            self.body = text.to_owned();
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
            Problem::new(Code::MissingParameter, "send the text: as s= (it may be empty), or as the body")
        })
    }

    /// The text of a scroll: without a break, which would move every later scroll.
    ///
    /// # Errors
    /// There is none, or it has a break in it.
    pub(super) fn into_scroll(self) -> Result<String, Problem> {
        let text = self.into_text()?;
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
