//! `GET /`: the status page, for people who would rather look than read. Its files are in the program; the first
//! overview is in the page, so that the first paint shows it.

use axum::Router;
use axum::extract::State;
use axum::http::HeaderName;
use axum::http::header::{CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use sq_shared::problem::{Code, Problem};

use super::Admin;
use super::overview::Overviews;
use super::refusal::Refusal;

const HTML: &str = include_str!("page/index.html");

/// Where the overview goes in [`HTML`].
const OVERVIEW: &str = "{{overview}}";

/// The page loads nothing but its own files and the admin API, and makes no markup of text.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; \
    base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'";

const HTML_TYPE: &str = "text/html; charset=utf-8";
const CSS_TYPE: &str = "text/css; charset=utf-8";
const SCRIPT_TYPE: &str = "text/javascript; charset=utf-8";
const ICON_TYPE: &str = "image/svg+xml";

/// The page, its files, and the overview that it polls.
pub(super) fn router(admin: Admin) -> Router<Admin> {
    let file = |media_type, text| get(move || async move { answer(media_type, text) });
    Router::new()
        .route("/", get(page))
        .route("/overview", get(overview))
        .route("/page.css", file(CSS_TYPE, include_str!("page/page.css")))
        .route("/page.js", file(SCRIPT_TYPE, include_str!("page/page.js")))
        .route("/model.js", file(SCRIPT_TYPE, include_str!("page/model.js")))
        .route("/view.js", file(SCRIPT_TYPE, include_str!("page/view.js")))
        .route("/admin.js", file(SCRIPT_TYPE, include_str!("page/admin.js")))
        .route("/panel.js", file(SCRIPT_TYPE, include_str!("page/panel.js")))
        .route("/icon.svg", file(ICON_TYPE, include_str!("page/icon.svg")))
        .with_state(Overviews::new(admin))
}

async fn page(State(overviews): State<Overviews>) -> Result<Response, Refusal> {
    let json = overviews.json().await.map_err(|error| defect(&error))?;
    Ok(answer(HTML_TYPE, with_overview(&String::from_utf8_lossy(&json))))
}

async fn overview(State(overviews): State<Overviews>) -> Result<Response, Refusal> {
    let json = overviews.json().await.map_err(|error| defect(&error))?;
    Ok(answer("application/json", json))
}

/// `<` stands only inside strings in JSON; written as an escape it cannot end the element that holds it.
fn with_overview(json: &str) -> String {
    HTML.replacen(OVERVIEW, &json.replace('<', "\\u003c"), 1)
}

fn answer(media_type: &'static str, body: impl IntoResponse) -> Response {
    let fields: [(HeaderName, &str); 3] =
        [(CONTENT_TYPE, media_type), (CONTENT_SECURITY_POLICY, POLICY), (REFERRER_POLICY, "no-referrer")];
    (fields, body).into_response()
}

fn defect(error: &serde_json::Error) -> Refusal {
    tracing::error!(%error, "cannot write the overview");
    Refusal(Problem::new(Code::Internal, "This is a defect; see the gateway's log"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_name_ends_the_element_that_holds_the_overview() {
        let page = with_overview(r#"{"plan":"</script><script>"}"#);
        assert!(page.contains(r#"{"plan":"\u003c/script>\u003cscript>"}"#));
        assert!(!page.contains(OVERVIEW));
    }
}
