//! `GET /`: the status page. Its files are compiled in. The HTML includes the first overview, so the first paint shows it.

use axum::Router;
use axum::extract::State;
use axum::http::HeaderName;
use axum::http::header::{CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use super::Admin;
use super::overview::OverviewCache;
use super::refusal::Refusal;

const HTML: &str = include_str!("page/index.html");

/// The placeholder for the overview in [`HTML`].
const OVERVIEW: &str = "{{overview}}";

/// The page loads only its own files and the admin API, and does not parse text as markup.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; \
    base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'";

const HTML_TYPE: &str = "text/html; charset=utf-8";
const CSS_TYPE: &str = "text/css; charset=utf-8";
const SCRIPT_TYPE: &str = "text/javascript; charset=utf-8";
const ICON_TYPE: &str = "image/svg+xml";

/// Routes for the page, its files, and the overview that it polls.
pub(super) fn router(admin: Admin) -> Router<Admin> {
    let file = |media_type, text| get(move || async move { respond(media_type, text) });
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
        .with_state(OverviewCache::new(admin))
}

async fn page(State(cache): State<OverviewCache>) -> Result<Response, Refusal> {
    Ok(respond(HTML_TYPE, with_overview(&String::from_utf8_lossy(&cache.json().await?))))
}

async fn overview(State(cache): State<OverviewCache>) -> Result<Response, Refusal> {
    Ok(respond("application/json", cache.json().await?))
}

/// Escapes `<`, which occurs only within strings in JSON, so that no name can end the element that holds the overview.
fn with_overview(json: &str) -> String {
    HTML.replacen(OVERVIEW, &json.replace('<', "\\u003c"), 1)
}

fn respond(media_type: &'static str, body: impl IntoResponse) -> Response {
    let fields: [(HeaderName, &str); 3] =
        [(CONTENT_TYPE, media_type), (CONTENT_SECURITY_POLICY, POLICY), (REFERRER_POLICY, "no-referrer")];
    (fields, body).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_name_can_end_the_element_that_holds_the_overview() {
        let page = with_overview(r#"{"plan":"</script><script>"}"#);
        assert!(page.contains(r#"{"plan":"\u003c/script>\u003cscript>"}"#));
        assert!(!page.contains(OVERVIEW));
    }
}
