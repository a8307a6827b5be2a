//! The trace that a request belongs to, and the gateway's span in it. Spans are exported if the program is built with the feature
//! `otlp` and the environment names a collector.

#[cfg(feature = "otlp")]
mod otlp;

use std::time::Instant;

use http::{HeaderMap, HeaderValue};
use sq_shared::trace_context::TraceParent;

use crate::metrics::RequestSummary;
use otlp::Exporter;

/// The trace that a request belongs to.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Trace {
    /// The client's span, if the request names one.
    pub of_client: Option<TraceParent>,
    /// The gateway's span, if it will be exported.
    pub own: Option<TraceParent>,
}

/// A request that has ended, as its span describes it.
#[cfg_attr(not(feature = "otlp"), expect(dead_code, reason = "an exporter reads it"))]
pub(crate) struct RequestSpan<'a> {
    pub trace: Trace,
    /// When its head was complete.
    pub started: Instant,
    /// Its method, shortened.
    pub method: &'a str,
    pub request_id: &'a HeaderValue,
    pub summary: &'a RequestSummary<'a>,
}

impl Trace {
    /// The span that the worker and the access line get.
    pub(crate) fn passed_on(self) -> Option<TraceParent> {
        self.own.or(self.of_client)
    }
}

/// Exports the gateway's spans, if there is a collector.
pub(crate) struct Traces {
    exporter: Option<Exporter>,
}

/// The environment's settings for the export of traces are invalid.
#[derive(Debug, thiserror::Error)]
#[error("failed to set up the export of traces: {0}")]
pub(crate) struct TracesError(String);

impl Traces {
    /// The collector is that of `OTEL_EXPORTER_OTLP_TRACES_ENDPOINT`, or else of `OTEL_EXPORTER_OTLP_ENDPOINT`.
    pub(crate) fn from_environment() -> Result<Self, TracesError> {
        Exporter::from_environment().map(|exporter| Self { exporter })
    }

    /// The trace of a request with these header fields. A trace that the client does not sample gets no span here.
    pub(crate) fn join(&self, headers: &HeaderMap) -> Trace {
        let of_client = TraceParent::from_headers(headers);
        let own = match (&self.exporter, of_client) {
            (None, _) => None,
            (Some(_), None) => Some(TraceParent::new_root()),
            (Some(_), Some(parent)) => parent.is_sampled().then(|| parent.child()),
        };
        Trace { of_client, own }
    }

    /// Queues the request's span for export. This never waits: if the queue is full, the span is lost.
    pub(crate) fn record(&self, request: &RequestSpan<'_>) {
        if let (Some(exporter), Some(own)) = (&self.exporter, request.trace.own) {
            exporter.export(own, request);
        }
    }

    /// Exports the queued spans. Blocks for up to two seconds.
    pub(crate) fn stop(&self) {
        if let Some(exporter) = &self.exporter {
            exporter.stop();
        }
    }
}

/// Without the feature there is no exporter.
#[cfg(not(feature = "otlp"))]
mod otlp {
    use super::{RequestSpan, TraceParent, TracesError};

    pub(super) enum Exporter {}

    impl Exporter {
        pub(super) fn from_environment() -> Result<Option<Self>, TracesError> {
            Ok(None)
        }

        pub(super) fn export(&self, _: TraceParent, _: &RequestSpan<'_>) {
            match *self {}
        }

        pub(super) fn stop(&self) {
            match *self {}
        }
    }
}
