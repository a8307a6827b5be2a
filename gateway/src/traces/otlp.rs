//! Exports spans to a collector: OTLP, as protobuf over HTTP. The SDK's batch processor has the queue and the sending thread; the
//! variables `OTEL_BSP_*` configure them.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use http::{Request, Response};
use opentelemetry::trace::{SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceState};
use opentelemetry::{InstrumentationScope, Key, KeyValue};
use opentelemetry_http::{Bytes, HttpClient, HttpError};
use opentelemetry_otlp::{
    OTEL_EXPORTER_OTLP_ENDPOINT, OTEL_EXPORTER_OTLP_TRACES_ENDPOINT, Protocol, SpanExporter,
    WithExportConfig, WithHttpConfig,
};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{BatchSpanProcessor, SpanData, SpanEvents, SpanLinks, SpanProcessor};
use sq_shared::trace_context::TraceParent;

use super::{RequestSpan, TracesError};

/// The time that the collector has for a batch: the SDK's own limit.
const POST_TIME: Duration = Duration::from_secs(10);

/// How much of its answer is read.
const ANSWER_BYTES: u64 = 64 << 10;

/// How long a shutdown waits for the last spans.
const STOP_TIME: Duration = Duration::from_secs(2);

const SERVICE_NAME: &str = "service.name";

/// The queue and the sending thread.
pub(super) struct Exporter {
    processor: BatchSpanProcessor,
    scope: InstrumentationScope,
}

/// The collector, by way of the HTTP client that is a dependency anyway. It is called on the sending thread only, and blocks it.
#[derive(Debug)]
struct Collector {
    agent: ureq::Agent,
    fails: AtomicBool,
}

impl Exporter {
    /// `None` if the environment names no collector.
    pub(super) fn from_environment() -> Result<Option<Self>, TracesError> {
        // An empty variable counts as unset (OpenTelemetry, "Environment Variable Specification").
        let variables = [OTEL_EXPORTER_OTLP_TRACES_ENDPOINT, OTEL_EXPORTER_OTLP_ENDPOINT];
        let named = variables.into_iter().find_map(|variable| {
            let endpoint = std::env::var(variable).ok().filter(|endpoint| !endpoint.trim().is_empty())?;
            Some((variable, endpoint))
        });
        let Some((variable, endpoint)) = named else { return Ok(None) };
        if !endpoint.trim().starts_with("http://") {
            return Err(TracesError(format!(
                "{variable} must begin with http://, such as http://127.0.0.1:4318; for TLS, run a collector on this \
                 machine that forwards the spans"
            )));
        }
        let builder = SpanExporter::builder().with_http().with_protocol(Protocol::HttpBinary);
        let exporter = builder.with_http_client(Collector::new()).build();
        let exporter = exporter.map_err(|error| TracesError(format!("{variable}: {error}")))?;
        let mut processor = BatchSpanProcessor::builder(exporter).build();
        processor.set_resource(&resource());
        let scope =
            InstrumentationScope::builder("sq-gateway").with_version(env!("CARGO_PKG_VERSION")).build();
        tracing::info!("exporting traces");
        Ok(Some(Self { processor, scope }))
    }

    pub(super) fn export(&self, own: TraceParent, request: &RequestSpan<'_>) {
        let RequestSpan { trace, started, summary, .. } = request;
        let start_time = SystemTime::now().checked_sub(started.elapsed()).unwrap_or(SystemTime::UNIX_EPOCH);
        let parent_span_id =
            trace.of_client.map_or(SpanId::INVALID, |parent| SpanId::from(parent.span_id.get()));
        self.processor.on_end(SpanData {
            span_context: SpanContext::new(
                own.trace_id.0.get().into(),
                own.span_id.get().into(),
                TraceFlags::SAMPLED,
                false,
                TraceState::NONE,
            ),
            parent_span_id,
            parent_span_is_remote: trace.of_client.is_some(),
            span_kind: SpanKind::Server,
            name: summary.command.as_str().into(),
            start_time,
            end_time: start_time.checked_add(summary.duration).unwrap_or(start_time),
            attributes: attributes(request),
            dropped_attributes_count: 0,
            events: SpanEvents::default(),
            links: SpanLinks::default(),
            // A client's mistake is not an error of the server's span (OpenTelemetry, "HTTP Spans", Status).
            status: if summary.status >= 500 { Status::error("") } else { Status::Unset },
            instrumentation_scope: self.scope.clone(),
        });
    }

    pub(super) fn stop(&self) {
        if let Err(error) = self.processor.shutdown_with_timeout(STOP_TIME) {
            tracing::warn!(%error, "failed to export the last spans; they are lost");
        }
    }
}

/// The attributes, by OpenTelemetry's names or else by those of the access line. The path is not among them, because a client
/// can make it up.
fn attributes(request: &RequestSpan<'_>) -> Vec<KeyValue> {
    let summary = request.summary;
    let mut attributes = vec![
        KeyValue::new("http.request.method", request.method.to_owned()),
        KeyValue::new("sq.tenant", summary.tenant.to_owned()),
        KeyValue::new("sq.command", summary.command.as_str()),
        KeyValue::new("sq.request_id", request.request_id.to_str().unwrap_or_default().to_owned()),
    ];
    // The client disconnected before an answer began.
    if summary.status != 0 {
        attributes.push(KeyValue::new("http.response.status_code", i64::from(summary.status)));
    }
    if let Some(code) = summary.code {
        attributes.push(KeyValue::new("error.type", code.as_str()));
    }
    if let Some(upstream) = summary.upstream {
        let worker_us = i64::try_from(upstream.as_micros()).unwrap_or(i64::MAX);
        attributes.push(KeyValue::new("sq.worker_us", worker_us));
    }
    attributes
}

/// This process as the environment describes it (`OTEL_SERVICE_NAME`, `OTEL_RESOURCE_ATTRIBUTES`), under our own name if it gives
/// none.
fn resource() -> Resource {
    let described = Resource::builder().build();
    let name = described.get(&Key::new(SERVICE_NAME));
    let is_named = name.is_some_and(|name| !name.as_str().starts_with("unknown_service"));
    if is_named { described } else { Resource::builder().with_service_name("sq-gateway").build() }
}

impl Collector {
    fn new() -> Self {
        let config =
            ureq::Agent::config_builder().timeout_global(Some(POST_TIME)).http_status_as_error(false).build();
        Self { agent: ureq::Agent::new_with_config(config), fails: AtomicBool::new(false) }
    }

    fn post(&self, request: Request<Bytes>) -> Result<Response<Bytes>, ureq::Error> {
        let (head, mut body) = self.agent.run(request.map(Vec::from))?.into_parts();
        let body = body.with_config().limit(ANSWER_BYTES).read_to_vec()?;
        Ok(Response::from_parts(head, body.into()))
    }

    /// Logs once when the collector starts to fail, and once when it works again.
    fn note(&self, failure: Option<String>) {
        match (&failure, self.fails.swap(failure.is_some(), Ordering::Relaxed)) {
            (Some(error), false) => {
                tracing::warn!(
                    error,
                    "failed to export spans; those that do not fit into the queue are lost"
                );
            }
            (None, true) => tracing::info!("exporting spans again"),
            _ => {}
        }
    }
}

#[async_trait]
impl HttpClient for Collector {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let outcome = self.post(request);
        self.note(match &outcome {
            Ok(answer) if answer.status().is_success() => None,
            Ok(answer) => Some(format!("the collector answered {}", answer.status())),
            Err(error) => Some(error.to_string()),
        });
        Ok(outcome?)
    }
}
