//! Serves an operators' port: a few connections at once (`connections.rs`), with one request each.

use std::convert::Infallible;
use std::error::Error;
use std::net::IpAddr;
use std::pin::pin;
use std::time::Duration;

use hyper::body::{Body, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use crate::connections::{Connections, Place, Stage};
use crate::http_dates;

/// Connections at once: more than a scraper, some status pages and a provisioning script need. One more is accepted
/// before another loses its place.
pub const CONNECTIONS: usize = 64;

/// How long a request's head may take.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// Longest head, in bytes; hyper takes no buffer below 8 KiB.
const HEAD_BYTES: usize = 64 << 10;

/// How long requests in flight may take at the end. A browser keeps connections that it never uses: they must not hold
/// up a stop. A change whose answer is not waited for is still done, if it takes no longer than the process has.
const END_TIMEOUT: Duration = Duration::from_secs(2);

/// Why hyper cannot send a body on.
type BoxError = Box<dyn Error + Send + Sync>;

/// Accepts until `end`, and then finishes what is in flight. `answer` gets each request with its client's address.
/// A connection may take `connection_time`, question and answer together.
pub async fn serve<F, A, B>(
    listener: TcpListener,
    connection_time: Duration,
    answer: F,
    end: impl Future<Output = ()>,
) where
    F: Fn(IpAddr, Request<Incoming>) -> A + Clone + Send + 'static,
    A: Future<Output = Result<Response<B>, Infallible>> + Send + 'static,
    B: Body<Data: Send, Error: Into<BoxError>> + Send + 'static,
{
    http_dates::prepare().await;
    let connections = Connections::new(CONNECTIONS + 1);
    let accepting = async {
        loop {
            let (stream, client, place, eviction) = connections.accept(&listener).await;
            let served = serve_one(stream, client.ip(), answer.clone(), place);
            tokio::spawn(eviction.or(timeout(connection_time, served)));
        }
    };
    tokio::select! {
        () = accepting => {}
        () = pin!(end) => {}
    }
    drop(listener);
    let _ = timeout(END_TIMEOUT, connections.ended()).await;
}

async fn serve_one<F, A, B>(stream: TcpStream, client: IpAddr, answer: F, place: Place)
where
    F: Fn(IpAddr, Request<Incoming>) -> A,
    A: Future<Output = Result<Response<B>, Infallible>>,
    B: Body<Error: Into<BoxError>> + 'static,
{
    let mut connection = http1::Builder::new();
    connection.timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT).max_buf_size(HEAD_BYTES);
    connection.keep_alive(false).title_case_headers(true);
    // A client that has sent all that it will may still wait for its answer (RFC 9112, 9.6).
    connection.half_close(true);
    // hyper asks for an answer when it has a whole head.
    let place = &place;
    let service = service_fn(move |request| {
        place.enter(Stage::InService);
        let answered = answer(client, request);
        async move {
            let answered = answered.await;
            place.enter(Stage::Answering);
            answered
        }
    });
    if let Err(error) = connection.serve_connection(TokioIo::new(stream), service).await {
        tracing::debug!(%error, "an operator's connection broke off");
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};
    use std::net::SocketAddr;

    use hyper::body::Frame;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    /// More than the kernel keeps for a client that does not read.
    const LARGE: &str = "/large";
    /// A body without end, in pieces of this size.
    const PIECE: &[u8] = &[b'x'; 64 << 10];
    const REQUEST: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

    struct Pieces(usize);

    impl Body for Pieces {
        type Data = &'static [u8];
        type Error = Infallible;

        fn poll_frame(
            mut self: std::pin::Pin<&mut Self>,
            _: &mut std::task::Context<'_>,
        ) -> std::task::Poll<Option<Result<Frame<Self::Data>, Infallible>>> {
            let is_left = self.0 > 0;
            self.0 = self.0.saturating_sub(1);
            std::task::Poll::Ready(is_left.then_some(Ok(Frame::data(PIECE))))
        }
    }

    /// A port that answers, with a long answer to [`LARGE`] and none to `/never`.
    async fn port() -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let answer = |_, request: Request<Incoming>| {
            let pieces = if request.uri().path() == LARGE { usize::MAX } else { 1 };
            let is_answered = request.uri().path() != "/never";
            async move {
                if !is_answered {
                    pending::<()>().await;
                }
                ready(Ok(Response::new(Pieces(pieces)))).await
            }
        };
        tokio::spawn(serve(listener, Duration::from_secs(60), answer, pending()));
        address
    }

    async fn connections(port: SocketAddr, count: usize, opening: &str) -> Vec<TcpStream> {
        let mut connections = Vec::new();
        for _ in 0..count {
            let mut stream = TcpStream::connect(port).await.unwrap();
            stream.write_all(opening.as_bytes()).await.unwrap();
            connections.push(stream);
        }
        connections
    }

    async fn is_answered(stream: &mut TcpStream) -> bool {
        let mut start = [0; 12];
        stream.read_exact(&mut start).await.is_ok() && start == *b"HTTP/1.1 200"
    }

    async fn is_another_answered(port: SocketAddr) -> bool {
        let mut another = connections(port, 1, REQUEST).await;
        timeout(Duration::from_secs(20), is_answered(&mut another[0])).await.is_ok_and(|answered| answered)
    }

    #[tokio::test]
    async fn answers_that_are_not_read_keep_no_client_out() {
        let port = port().await;
        let mut unread = connections(port, CONNECTIONS + 1, &REQUEST.replacen('/', LARGE, 1)).await;
        for stream in &mut unread {
            assert!(is_answered(stream).await);
        }
        assert!(is_another_answered(port).await);
    }

    #[tokio::test]
    async fn the_longest_silent_is_cut_off_first_and_one_at_a_time() {
        let port = port().await;
        let mut silent = connections(port, CONNECTIONS, "").await;
        let _served = connections(port, 1, &REQUEST.replacen('/', "/never", 1)).await;
        let mut byte = [0];
        assert!(matches!(silent[0].read(&mut byte).await, Ok(0) | Err(_)), "the first one keeps its place");
        for stream in silent.iter_mut().skip(1) {
            stream.write_all(REQUEST.as_bytes()).await.unwrap();
            assert!(is_answered(stream).await, "another one has lost its place too");
        }
    }

    #[tokio::test]
    async fn a_connection_that_is_being_served_keeps_its_place() {
        let port = port().await;
        let served = connections(port, CONNECTIONS, &REQUEST.replacen('/', "/never", 1)).await;
        let _silent = connections(port, 1, "").await;
        for _ in 0..3 {
            assert!(is_another_answered(port).await);
        }
        for stream in &served {
            assert!(
                stream.try_read(&mut [0]).is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock)
            );
        }
    }
}
