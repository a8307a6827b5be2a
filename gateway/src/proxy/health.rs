//! `/health` answers 200 while the process runs, `/ready` while requests would be served. Neither needs a key, and neither is
//! charged.

use std::time::Duration;

use http::{Method, StatusCode, header};
use pingora::http::ResponseHeader;
use pingora::protocols::http::v1::server::HttpSession as Session;
use sq_shared::config::Config;
use tokio::net::TcpStream;

use super::answer;
use super::context::Context;
use super::refuse::{self, Refusal};
use super::route::RouteError;
use crate::metrics::{CommandLabel, Metrics};

/// The time that the pool has to accept a connection from `/ready`.
const READY_TIMEOUT: Duration = Duration::from_secs(1);

/// Which of the two a request asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Question {
    Health,
    Ready,
}

impl Question {
    /// The question of this path, if it is one of the two.
    pub(crate) fn from_path(path: &[u8]) -> Option<Self> {
        match path {
            b"/health" => Some(Self::Health),
            b"/ready" => Some(Self::Ready),
            _ => None,
        }
    }

    pub(crate) fn command(self) -> CommandLabel {
        match self {
            Self::Health => CommandLabel::Health,
            Self::Ready => CommandLabel::Ready,
        }
    }

    /// Returns the question if the method is allowed.
    pub(crate) fn check_method(self, method: &Method) -> Result<Self, Refusal> {
        let allowed = [Method::GET, Method::HEAD].contains(method);
        if allowed { Ok(self) } else { Err(RouteError::HealthMethod.into()) }
    }
}

pub(crate) async fn answer(
    session: &mut Session,
    ctx: &mut Context<'_>,
    question: Question,
    metrics: &Metrics,
) -> pingora::Result<()> {
    let not_ready = match question {
        Question::Health => None,
        Question::Ready => not_ready(&ctx.directory.config, metrics).await,
    };
    if let Some(refusal) = not_ready {
        refuse::answer(session, ctx, None, &refusal).await;
        return Ok(());
    }
    let body = format!(r#"{{"status":"ok","tenants":{}}}"#, ctx.directory.tenant_count());
    let mut head = ResponseHeader::build(StatusCode::OK, Some(12))?;
    head.insert_header(header::CONTENT_TYPE, "application/json")?;
    answer::write(session, ctx, head, body.into_bytes()).await
}

/// Why requests would not be served now. The pool's status address accepts connections once every slot's socket is bound;
/// connecting to a slot would wake its worker.
pub(crate) async fn not_ready(config: &Config, metrics: &Metrics) -> Option<Refusal> {
    if metrics.is_data_root_missing() {
        return Some(Refusal::DataRootMissing);
    }
    let status = config.pool.status_listen?;
    match tokio::time::timeout(READY_TIMEOUT, TcpStream::connect(status)).await {
        Ok(Ok(_)) => None,
        _ => Some(Refusal::NotReady("The pool of workers does not answer.")),
    }
}
