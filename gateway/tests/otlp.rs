//! Traces that are exported: what a collector gets of each request, what a worker is told of the trace, and that a
//! collector that fails does no harm.

#![expect(clippy::unwrap_used, reason = "these are tests; a helper beside a test function is one too")]

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use sq_tests::client::Client;
use sq_tests::deployment::Deployment;
use sq_tests::process;
use sq_tests::root::Root;
use sq_tests::setup::Setup;
use sq_tests::wait::{self, PATIENCE};

const SELECT: &str = "/api/v2/select?p=text&c=1.1.1/1.1.1/1.1.1";
const TRACE_ID: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const SPAN_ID: &str = "00f067aa0ba902b7";

/// How long a stop may take when the collector does not answer.
const STOP_TIME: Duration = Duration::from_secs(5);

/// A request that somebody got: its header fields, and its body.
struct Received {
    fields: BTreeMap<String, String>,
    body: Vec<u8>,
}

/// Answers everybody on this address, and tells what came.
fn listen(address: SocketAddr) -> Receiver<Received> {
    let listener = TcpListener::bind(address).unwrap();
    let (sender, receiver) = channel();
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let sender = sender.clone();
            thread::spawn(move || {
                let mut reader = BufReader::new(stream);
                while let Some(received) = receive(&mut reader) {
                    // Whoever has its answer can rely on what was noted before.
                    let _ = sender.send(received);
                    reader.get_mut().write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").unwrap();
                }
            });
        }
    });
    receiver
}

fn receive(reader: &mut BufReader<TcpStream>) -> Option<Received> {
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
        match line.trim_end() {
            "" => break,
            line => lines.push(line.to_owned()),
        }
    }
    let fields = lines.iter().filter_map(|line| line.split_once(": "));
    let fields: BTreeMap<_, _> =
        fields.map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned())).collect();
    let mut body = vec![0; fields.get("content-length").map_or(0, |length| length.parse().unwrap())];
    reader.read_exact(&mut body).ok()?;
    Some(Received { fields, body })
}

/// A gateway with a worker of alice's that answers everything, and tells what it got.
fn gateway(root: Root, variables: &[(&str, &str)]) -> (Deployment, Receiver<Received>) {
    let worker = listen((root.address, 1341).into());
    let mut command = command(&root, variables);
    (Deployment::spawn(root, &mut command), worker)
}

fn command(root: &Root, variables: &[(&str, &str)]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sq-gateway"));
    command.current_dir(root.path()).args(["serve", "--config"]).arg(root.config());
    let inherited = std::env::vars_os().map(|(name, _)| name);
    inherited.filter(|name| name.to_string_lossy().starts_with("OTEL_")).for_each(|name| {
        command.env_remove(name);
    });
    command.env_remove("RUST_LOG").envs(variables.iter().copied());
    command
}

fn ask(client: &Client, fields: &str) -> u16 {
    client.request("GET", SELECT, fields, None).status
}

fn parent(flags: &str) -> String {
    format!("00-{TRACE_ID}-{SPAN_ID}-{flags}")
}

/// What the worker was told: `traceparent` and `tracestate`.
fn told(worker: &Receiver<Received>) -> (Option<String>, Option<String>) {
    let mut fields = worker.recv_timeout(PATIENCE).unwrap().fields;
    (fields.remove("traceparent"), fields.remove("tracestate"))
}

/// A span, as the collector reads it.
#[derive(Debug)]
struct Span {
    trace_id: String,
    span_id: String,
    parent_id: String,
    name: String,
    kind: u64,
    start_ns: u64,
    end_ns: u64,
    status: u64,
    attributes: BTreeMap<String, String>,
    resource: BTreeMap<String, String>,
}

/// A field of a protobuf message (<https://protobuf.dev/programming-guides/encoding/>).
enum Value<'b> {
    Number(u64),
    Bytes(&'b [u8]),
}

/// A message's fields by their numbers.
struct Message<'b>(Vec<(u64, Value<'b>)>);

impl<'b> Message<'b> {
    fn of(mut bytes: &'b [u8]) -> Self {
        let mut fields = Vec::new();
        while !bytes.is_empty() {
            let tag = varint(&mut bytes);
            let value = match tag & 7 {
                0 => Value::Number(varint(&mut bytes)),
                1 => Value::Number(u64::from_le_bytes(take(&mut bytes, 8).try_into().unwrap())),
                2 => {
                    let length = varint(&mut bytes);
                    Value::Bytes(take(&mut bytes, length.try_into().unwrap()))
                }
                5 => Value::Number(u32::from_le_bytes(take(&mut bytes, 4).try_into().unwrap()).into()),
                other => unreachable!("a field of the type {other}"),
            };
            fields.push((tag >> 3, value));
        }
        Self(fields)
    }

    fn numbers(&self, field: u64) -> impl Iterator<Item = u64> {
        let of_field = self.0.iter().filter(move |(number, _)| *number == field);
        of_field.filter_map(|(_, value)| if let Value::Number(value) = value { Some(*value) } else { None })
    }

    fn number(&self, field: u64) -> u64 {
        self.numbers(field).next().unwrap_or(0)
    }

    fn all(&self, field: u64) -> impl Iterator<Item = &'b [u8]> {
        let of_field = self.0.iter().filter(move |(number, _)| *number == field);
        of_field.filter_map(|(_, value)| if let Value::Bytes(value) = value { Some(*value) } else { None })
    }

    fn messages(&self, field: u64) -> impl Iterator<Item = Message<'b>> {
        self.all(field).map(Message::of)
    }

    fn text(&self, field: u64) -> String {
        self.all(field).next().map_or(String::new(), |text| String::from_utf8(text.to_vec()).unwrap())
    }

    fn id(&self, field: u64) -> String {
        self.all(field).flatten().map(|byte| format!("{byte:02x}")).collect()
    }

    /// `KeyValue`s whose values are texts or whole numbers.
    fn attributes(&self, field: u64) -> BTreeMap<String, String> {
        let value = |value: &Message<'_>| match value.numbers(3).next() {
            Some(number) => number.to_string(),
            None => value.text(1),
        };
        let pairs =
            self.messages(field).map(|pair| (pair.text(1), pair.messages(2).map(|v| value(&v)).collect()));
        pairs.collect()
    }
}

fn take<'b>(bytes: &mut &'b [u8], count: usize) -> &'b [u8] {
    let (taken, rest) = bytes.split_at(count);
    *bytes = rest;
    taken
}

fn varint(bytes: &mut &[u8]) -> u64 {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let byte = take(bytes, 1).iter().copied().map(u64::from).sum::<u64>();
        number |= (byte & 0x7f) << shift;
        if byte < 0x80 {
            break;
        }
    }
    number
}

/// The spans that have come, each as the numbers of opentelemetry/proto/trace/v1/trace.proto say, in their order.
fn spans(collector: &Receiver<Received>) -> Vec<Span> {
    let mut spans = Vec::new();
    for received in collector.try_iter() {
        assert_eq!(received.fields.get("content-type").map(String::as_str), Some("application/x-protobuf"));
        for of_resource in Message::of(&received.body).messages(1) {
            let resource = of_resource.messages(1).next().unwrap().attributes(1);
            let in_scopes = of_resource.messages(2).flat_map(|scope| scope.messages(2).collect::<Vec<_>>());
            spans.extend(in_scopes.map(|span| Span {
                trace_id: span.id(1),
                span_id: span.id(2),
                parent_id: span.id(4),
                name: span.text(5),
                kind: span.number(6),
                start_ns: span.number(7),
                end_ns: span.number(8),
                status: span.messages(15).map(|status| status.number(3)).sum(),
                attributes: span.attributes(9),
                resource: resource.clone(),
            }));
        }
    }
    spans.sort_by_key(|span| span.start_ns);
    spans
}

fn unix_ns() -> u64 {
    SystemTime::UNIX_EPOCH.elapsed().unwrap().as_nanos().try_into().unwrap()
}

/// A root, and the variable's value for a collector on its address.
fn root() -> (Root, SocketAddr, String) {
    let root = Root::new(&Setup::default());
    let address = SocketAddr::from((root.address, 4318));
    (root, address, format!("http://{address}"))
}

#[test]
fn each_request_is_one_span_and_the_stop_exports_the_last() {
    let (root, address, endpoint) = root();
    let collector = listen(address);
    // What is exported then is exported at the stop.
    let variables = [("OTEL_EXPORTER_OTLP_ENDPOINT", &*endpoint), ("OTEL_BSP_SCHEDULE_DELAY", "600000")];
    let (running, worker) = gateway(root, &variables);
    let alice = running.client_of("alice");
    let begin_ns = unix_ns();
    let id = "0192f0c1-2345-7abc-8def-0123456789ab";
    let fields = format!("traceparent: {}\r\ntracestate: a=1\r\nX-Request-Id: {id}\r\n", parent("01"));
    assert_eq!(ask(&alice, &fields), 200);
    assert_eq!(ask(&alice, "tracestate: a=1\r\n"), 200);
    assert_eq!(ask(&running.client(Some("pmb-v1-nobodys-key")), ""), 401);
    assert_eq!(alice.get("/api/v2/nothing").status, 404);
    // Nobody is in bob's slot.
    assert_eq!(ask(&running.client_of("bob"), ""), 503);
    running.stop();
    let end_ns = unix_ns();

    let spans = spans(&collector);
    let [continued, new, refused, unknown, failed] = &spans[..] else { panic!("{spans:#?}") };
    for span in &spans {
        assert_eq!(span.resource["service.name"], "sq-gateway");
        assert_eq!((span.kind, &*span.attributes["http.request.method"]), (2, "GET"), "a server's span");
        assert!(
            begin_ns <= span.start_ns && span.start_ns < span.end_ns && span.end_ns <= end_ns,
            "{span:?}"
        );
        assert!(span.trace_id.len() == 32 && span.span_id.len() == 16, "{span:?}");
    }
    let of = |span: &Span| {
        let attribute = |name: &str| span.attributes.get(name).cloned().unwrap_or_default();
        (attribute("sq.tenant"), attribute("sq.command"), attribute("http.response.status_code"))
    };
    let expected = |tenant: &str, command: &str, status: &str| {
        (tenant.to_owned(), command.to_owned(), status.to_owned())
    };
    assert_eq!((of(continued), &*continued.name), (expected("alice", "select", "200"), "select"));
    assert_eq!((&*continued.trace_id, &*continued.parent_id), (TRACE_ID, SPAN_ID));
    assert_eq!(continued.attributes["sq.request_id"], id);
    let worker_us: u64 = continued.attributes["sq.worker_us"].parse().unwrap();
    assert!(worker_us * 1000 <= continued.end_ns - continued.start_ns, "{continued:?}");
    assert_eq!((of(new), &*new.parent_id), (expected("alice", "select", "200"), ""));
    assert_ne!(new.trace_id, TRACE_ID);
    assert_eq!(of(refused), expected("-", "-", "401"));
    assert_eq!((refused.status, &*refused.attributes["error.type"]), (0, "invalid_key"));
    assert_eq!(of(unknown), expected("alice", "-", "404"));
    assert_eq!((of(failed), failed.status), (expected("bob", "select", "503"), 2));

    let child = |span: &Span| Some(format!("00-{}-{}-01", span.trace_id, span.span_id));
    assert_ne!(continued.span_id, SPAN_ID);
    assert_eq!(told(&worker), (child(continued), Some("a=1".to_owned())));
    assert_eq!(told(&worker), (child(new), None), "what was noted beside another trace is not of this one");
}

#[test]
fn a_trace_that_its_client_does_not_record_is_passed_on_and_not_exported() {
    let (root, address, endpoint) = root();
    let collector = listen(address);
    let of_traces = format!("{endpoint}/v1/traces");
    let variables = [
        ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", &*of_traces),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9"),
        ("OTEL_SERVICE_NAME", "front"),
    ];
    let (running, worker) = gateway(root, &variables);
    let alice = running.client_of("alice");
    assert_eq!(ask(&alice, &format!("traceparent: {}\r\n", parent("00"))), 200);
    assert_eq!(ask(&alice, &format!("traceparent: {}\r\n", parent("01"))), 200);
    running.stop();
    assert_eq!(told(&worker).0, Some(parent("00")));
    let spans = spans(&collector);
    assert_eq!(spans.len(), 1, "{spans:#?}");
    assert_eq!(told(&worker).0, Some(format!("00-{TRACE_ID}-{}-01", spans[0].span_id)));
    assert_eq!(spans[0].resource["service.name"], "front");
}

#[test]
fn without_a_collector_traces_are_only_passed_on() {
    let root = Root::new(&Setup::default());
    let (running, worker) = gateway(root, &[("OTEL_EXPORTER_OTLP_ENDPOINT", "")]);
    let alice = running.client_of("alice");
    assert_eq!(ask(&alice, &format!("traceparent: {}\r\n", parent("01"))), 200);
    assert_eq!(ask(&alice, ""), 200);
    assert_eq!(told(&worker), (Some(parent("01")), None));
    assert_eq!(told(&worker), (None, None));
    assert!(!running.log().contains("traces"), "{}", running.log());
    running.stop();
}

#[test]
fn a_collector_that_hangs_holds_up_neither_requests_nor_the_stop() {
    let (root, address, endpoint) = root();
    let collector = TcpListener::bind(address).unwrap();
    let variables = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", &*endpoint),
        ("OTEL_BSP_SCHEDULE_DELAY", "1"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "8"),
    ];
    let (running, worker) = gateway(root, &variables);
    let alice = running.client_of("alice");
    assert_eq!(ask(&alice, ""), 200);
    // From here on the exporter waits for an answer.
    let (mut hanging, _) = collector.accept().unwrap();
    hanging.read_exact(&mut [0; 4]).unwrap();
    let begin = Instant::now();
    let answered = (0..100).filter(|_| ask(&alice, "") == 200).count();
    assert_eq!(answered, 100);
    // A hundred times one that waits for the exporter would be minutes.
    assert!(begin.elapsed() < STOP_TIME, "{:?}", begin.elapsed());
    assert_eq!(worker.try_iter().count(), 101);
    let begin = Instant::now();
    running.stop();
    assert!(begin.elapsed() < STOP_TIME, "{:?}", begin.elapsed());
    drop(hanging);
}

#[test]
fn a_collector_that_is_not_there_is_said_once() {
    let (root, address, endpoint) = root();
    let variables = [("OTEL_EXPORTER_OTLP_ENDPOINT", &*endpoint), ("OTEL_BSP_SCHEDULE_DELAY", "1")];
    let (running, _worker) = gateway(root, &variables);
    let alice = running.client_of("alice");
    let said = |what: &str| running.log().matches(what).count();
    assert_eq!(ask(&alice, ""), 200);
    wait::until("the failure's line", || said("failed to export spans") == 1);
    let collector = listen(address);
    wait::until("the line that says that it is back", || {
        assert_eq!(ask(&alice, ""), 200);
        said("exporting spans again") == 1
    });
    assert_eq!(said("failed to export spans"), 1);
    running.stop();
    assert!(!spans(&collector).is_empty());
}

#[test]
fn a_collector_that_cannot_be_reached_is_refused_at_the_start() {
    let root = Root::new(&Setup::default());
    let outcome =
        process::run(&mut command(&root, &[("OTEL_EXPORTER_OTLP_ENDPOINT", "https://127.0.0.1:4318")]));
    assert_ne!(outcome.code(), Some(0));
    assert!(
        outcome.stderr.contains("OTEL_EXPORTER_OTLP_ENDPOINT must begin with http://"),
        "{}",
        outcome.stderr
    );
}
