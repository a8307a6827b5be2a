//! Which trace a request belongs to, and the gateway's own span of it, which is exported when the program is built with
//! the feature `otlp` and the environment names a collector.

#[cfg(feature = "otlp")]
mod otlp;

use http::HeaderMap;
use pingora::http::RequestHeader;
use sq_shared::trace_context::TraceParent;

use crate::metrics::Ended;
use crate::proxy::context::Context;
use otlp::Exporter;

/// The trace that a request belongs to.
#[derive(Debug, Clone, Copy, Default)]
pub struct Trace {
    /// The client's span, if it names one.
    pub of_client: Option<TraceParent>,
    /// The gateway's span, if it is to be exported.
    pub own: Option<TraceParent>,
}

impl Trace {
    /// What the worker and the access line are told.
    pub fn goes_on(self) -> Option<TraceParent> {
        self.own.or(self.of_client)
    }
}

/// Where the gateway's spans go.
pub struct Traces {
    exporter: Option<Exporter>,
}

/// Traces cannot be exported as the environment says.
#[derive(Debug, thiserror::Error)]
#[error("cannot export traces: {0}")]
pub struct TracesError(String);

impl Traces {
    /// What the environment says: `OTEL_EXPORTER_OTLP_TRACES_ENDPOINT`, or else `OTEL_EXPORTER_OTLP_ENDPOINT`.
    ///
    /// # Errors
    /// It names a collector that cannot be one.
    pub fn of_environment() -> Result<Self, TracesError> {
        Exporter::of_environment().map(|exporter| Self { exporter })
    }

    /// The trace of a request with these fields. A trace that its client does not record gets no span here.
    pub fn join(&self, headers: &HeaderMap) -> Trace {
        let of_client = TraceParent::of_request(headers);
        let own = match (&self.exporter, of_client) {
            (None, _) => None,
            (Some(_), None) => Some(TraceParent::new_root()),
            (Some(_), Some(parent)) => parent.is_sampled().then(|| parent.child()),
        };
        Trace { of_client, own }
    }

    /// Leaves the request's span for the exporter. It never waits: a span for which there is no place is lost.
    pub fn ended(&self, request: &RequestHeader, ctx: &Context, ended: &Ended<'_>) {
        if let (Some(exporter), Some(own)) = (&self.exporter, ctx.trace.own) {
            exporter.export(own, request, ctx, ended);
        }
    }

    /// Exports what is left, within two seconds. Blocks.
    pub fn stop(&self) {
        if let Some(exporter) = &self.exporter {
            exporter.stop();
        }
    }
}

/// Without the feature there is no exporter.
#[cfg(not(feature = "otlp"))]
mod otlp {
    use super::{Context, Ended, RequestHeader, TraceParent, TracesError};

    pub(super) enum Exporter {}

    impl Exporter {
        pub(super) fn of_environment() -> Result<Option<Self>, TracesError> {
            Ok(None)
        }

        pub(super) fn export(&self, _: TraceParent, _: &RequestHeader, _: &Context, _: &Ended<'_>) {
            match *self {}
        }

        pub(super) fn stop(&self) {
            match *self {}
        }
    }
}
