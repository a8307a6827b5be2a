//! A connection that a client keeps between requests, as long as the server does.

use std::io;

use crate::answer::Answer;
use crate::client::{Client, Connection};

/// The result of a request.
#[derive(Debug)]
pub enum Outcome {
    /// A response.
    Answered(Answer),
    /// Nothing was sent: the connection was refused.
    NotConnected(io::Error),
    /// It was sent, and there is no whole response.
    Cut(io::Error),
}

/// A kept connection, if there is one.
#[derive(Debug, Default)]
pub struct Session(Option<Connection>);

impl Session {
    /// Sends a request on it, or on a new one. `headers` are whole lines, each with its CRLF.
    pub fn ask(&mut self, client: &Client, method: &str, target: &str, headers: &str, body: &str) -> Outcome {
        let mut connection = match self.0.take().map_or_else(|| client.try_connect(), Ok) {
            Ok(connection) => connection,
            Err(error) => return Outcome::NotConnected(error),
        };
        let head = client.head(method, target);
        let head = format!("{head}Content-Length: {}\r\n{headers}\r\n", body.len());
        connection.send(&[head.as_bytes(), body.as_bytes()].concat());
        match connection.try_answer(method) {
            Ok(answer) => {
                let closes =
                    answer.header("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"));
                self.0 = (!closes).then_some(connection);
                Outcome::Answered(answer)
            }
            Err(error) => Outcome::Cut(error),
        }
    }
}
