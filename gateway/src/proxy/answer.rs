//! Writes the answers that the gateway makes itself.

use http::{Method, header};
use pingora::http::ResponseHeader;
use pingora::protocols::http::v1::server::HttpSession as Session;

use super::context::Context;
use super::forward;

/// Writes a head and a body; a HEAD request gets the head alone.
///
/// # Errors
/// The client is gone.
pub async fn write(
    session: &mut Session,
    ctx: &Context,
    mut head: ResponseHeader,
    body: Vec<u8>,
) -> pingora::Result<()> {
    let request = session.req_header();
    let without_body = request.method == Method::HEAD;
    head.insert_header(header::CONTENT_LENGTH, body.len())?;
    forward::add_common_fields(&mut head, &request.headers, ctx)?;
    session.write_response_header(Box::new(head)).await?;
    if !without_body {
        session.write_body(&body).await?;
    }
    session.finish_body().await.map(|_| ())
}
