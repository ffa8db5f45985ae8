//! HTTP/1.1 as far as `GET` goes (RFC 9112): one request is read, one response is written, and
//! the connection is closed.

use std::io::{self, BufRead, BufReader, Read, Write};

/// A request head longer than this is not one.
const HEAD_LIMIT: u64 = 16 * 1024;

/// What a client asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// The path, without the query: `/leak`.
    pub path: String,
    /// The query, without its question mark: `mb=64`. Empty when there is none.
    pub query: String,
}

impl Request {
    /// Reads the head of a request; `None` when it is not a `GET`.
    ///
    /// # Errors
    /// When the client is silent for too long or breaks off.
    pub fn read(stream: impl Read) -> io::Result<Option<Self>> {
        let mut head = BufReader::new(stream.take(HEAD_LIMIT)).lines();
        let Some(first) = head.next().transpose()? else { return Ok(None) };
        // The headers are read to their end: closing a socket with unread bytes resets it, and
        // the client might lose the answer.
        for line in head {
            if line?.is_empty() {
                break;
            }
        }
        let Some(target) = first.strip_prefix("GET ").and_then(|rest| rest.split(' ').next())
        else {
            return Ok(None);
        };
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        Ok(Some(Self { path: path.to_owned(), query: query.to_owned() }))
    }

    /// The number that the query gives `key`: 64 for `mb` in `mb=64`.
    pub fn number(&self, key: &str) -> Option<usize> {
        self.query
            .split('&')
            .filter_map(|pair| pair.split_once('='))
            .find(|(name, _)| *name == key)
            .and_then(|(_, value)| value.parse().ok())
    }
}

/// What the client gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    status: u16,
    body: String,
}

impl Response {
    /// A response in plain text.
    pub fn new(status: u16, body: impl Into<String>) -> Self {
        Self { status, body: body.into() }
    }

    /// Sends it.
    ///
    /// # Errors
    /// When the client does not take it.
    pub fn write(&self, mut stream: impl Write) -> io::Result<()> {
        let reason = match self.status {
            200 => "OK",
            400 => "Bad Request",
            404 => "Not Found",
            507 => "Insufficient Storage",
            _ => "Error",
        };
        let response = format!(
            "HTTP/1.1 {} {reason}\r\nContent-Type: text/plain; charset=utf-8\r\n\
             Content-Length: {}\r\nConnection: close\r\n\r\n{}",
            self.status,
            self.body.len(),
            self.body
        );
        stream.write_all(response.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Option<Request> {
        Request::read(text.as_bytes()).unwrap()
    }

    #[test]
    fn path_and_query_are_parted() {
        let request = read("GET /leak?a=b&mb=64 HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
        assert_eq!(request.path, "/leak");
        assert_eq!(request.number("mb"), Some(64));
        assert_eq!(request.number("a"), None);
    }

    #[test]
    fn what_is_not_a_get_is_refused() {
        assert_eq!(read("POST / HTTP/1.1\r\n\r\n"), None);
        assert_eq!(read(""), None);
    }

    #[test]
    fn an_endless_head_is_cut() {
        assert!(Request::read(io::repeat(b'a')).unwrap().is_none());
    }

    #[test]
    fn the_length_counts_bytes() {
        let mut sent = Vec::new();
        Response::new(200, "é").write(&mut sent).unwrap();
        assert!(String::from_utf8(sent).unwrap().contains("Content-Length: 2\r\n"));
    }
}
