//! A plain HTTP GET to this host, for kube-proxy's own end points.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// How long to wait for a connection, and for each piece of the answer.
const STEP: Duration = Duration::from_secs(2);
/// How long a whole answer may take.
const WHOLE: Duration = Duration::from_secs(10);
/// The largest answer: /metrics has well under 1 MiB.
const LIMIT: usize = 64 << 20;

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) status: u16,
    /// Status line and headers as they came, without the empty line.
    pub(super) head: String,
    /// The body, chunks joined.
    pub(super) body: Vec<u8>,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// Nobody listens, or the connection breaks.
    #[error("no answer")]
    Io(#[from] io::Error),
    /// It takes too long.
    #[error("no whole answer within {} s", WHOLE.as_secs())]
    TooSlow,
    /// It is too large.
    #[error("the answer is larger than {} MiB", LIMIT >> 20)]
    TooLarge,
    /// It is not HTTP.
    #[error("the answer is not HTTP/1: {0}")]
    NotHttp(&'static str),
}

impl HttpError {
    /// Whether nobody listens there.
    pub(super) fn is_refused(&self) -> bool {
        use io::ErrorKind::{AddrNotAvailable, ConnectionRefused, HostUnreachable, NetworkUnreachable};
        matches!(self, Self::Io(e) if matches!(e.kind(), ConnectionRefused | AddrNotAvailable | NetworkUnreachable | HostUnreachable))
    }
}

/// GETs a path.
pub(super) fn get(to: SocketAddr, path: &str) -> Result<Answer, HttpError> {
    let deadline = Instant::now() + WHOLE;
    let mut stream = TcpStream::connect_timeout(&to, STEP)?;
    stream.set_read_timeout(Some(STEP))?;
    stream.set_write_timeout(Some(STEP))?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {to}\r\nUser-Agent: kpx\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let mut raw = Vec::new();
    let mut piece = vec![0; 64 << 10];
    loop {
        match stream.read(&mut piece) {
            Ok(0) => return parse(&raw),
            Ok(n) => raw.extend_from_slice(&piece[..n]),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e.into()),
        }
        if raw.len() > LIMIT {
            return Err(HttpError::TooLarge);
        }
        if Instant::now() > deadline {
            return Err(HttpError::TooSlow);
        }
    }
}

/// Reads a whole answer, up to the end of the connection (RFC 9112).
fn parse(raw: &[u8]) -> Result<Answer, HttpError> {
    let end = memchr::memmem::find(raw, b"\r\n\r\n").ok_or(HttpError::NotHttp("the headers do not end"))?;
    let head = str::from_utf8(&raw[..end]).map_err(|_| HttpError::NotHttp("the headers are not text"))?;
    let body = &raw[end + 4..];
    let mut lines = head.split("\r\n");
    let status = lines
        .next()
        .and_then(|line| line.strip_prefix("HTTP/1."))
        .and_then(|line| line.split(' ').nth(1))
        .and_then(|code| code.parse().ok())
        .ok_or(HttpError::NotHttp("no status line"))?;
    let header = |name: &str| {
        let mut fields = lines.clone().filter_map(|line| line.split_once(':'));
        fields.find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
    };
    let body = if header("Transfer-Encoding").is_some_and(|v| v.eq_ignore_ascii_case("chunked")) {
        join_chunks(body)?
    } else if let Some(length) = header("Content-Length") {
        let length: usize = length.parse().map_err(|_| HttpError::NotHttp("Content-Length is no number"))?;
        body.get(..length).ok_or(HttpError::NotHttp("the body ends early"))?.to_vec()
    } else {
        body.to_vec()
    };
    Ok(Answer { status, head: head.to_owned(), body })
}

fn join_chunks(mut rest: &[u8]) -> Result<Vec<u8>, HttpError> {
    const EARLY: HttpError = HttpError::NotHttp("the chunks end early");
    let mut body = Vec::new();
    loop {
        let end = memchr::memmem::find(rest, b"\r\n").ok_or(EARLY)?;
        let size = str::from_utf8(&rest[..end]).ok().and_then(|line| line.split(';').next());
        let size = size.and_then(|hex| usize::from_str_radix(hex.trim(), 16).ok());
        let size = size.ok_or(HttpError::NotHttp("a chunk without a size"))?;
        rest = &rest[end + 2..];
        if size == 0 {
            return Ok(body);
        }
        body.extend_from_slice(rest.get(..size).ok_or(EARLY)?);
        rest = rest[size..].strip_prefix(b"\r\n").ok_or(EARLY)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn length_chunks_and_neither() {
        let with_length = parse(b"HTTP/1.1 200 OK\r\ncontent-length: 8\r\n\r\niptables").expect("parses");
        assert_eq!((with_length.status, with_length.body.as_slice()), (200, &b"iptables"[..]));
        let chunks = b"HTTP/1.1 503 Service Unavailable\r\nTransfer-Encoding: chunked\r\n\r\n\
                       4\r\nipta\r\nA;x=1\r\nbles, or no\r\n0\r\n\r\n";
        assert!(parse(chunks).is_err(), "the second chunk has eleven bytes, not ten");
        let chunks = b"HTTP/1.1 503 Service Unavailable\r\nTransfer-Encoding: chunked\r\n\r\n\
                       4\r\nipta\r\nB;x=1\r\nbles, or no\r\n0\r\n\r\n";
        let chunked = parse(chunks).expect("parses");
        assert_eq!((chunked.status, chunked.body.as_slice()), (503, &b"iptables, or no"[..]));
        assert!(chunked.head.starts_with("HTTP/1.1 503") && !chunked.head.ends_with("\r\n"));
        assert_eq!(parse(b"HTTP/1.0 200 OK\r\n\r\nall").expect("parses").body, b"all");
    }

    proptest::proptest! {
        #[test]
        fn nothing_panics(body: Vec<u8>, chunked: bool) {
            let head: &[u8] = if chunked { b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" } else { b"" };
            let _ = parse(&[head, &body].concat());
        }

        #[test]
        fn chunks_are_joined(chunks: Vec<Vec<u8>>) {
            let mut raw = b"HTTP/1.1 200 OK\r\ntransfer-encoding:chunked\r\n\r\n".to_vec();
            for chunk in chunks.iter().filter(|c| !c.is_empty()) {
                raw.extend(format!("{:X}\r\n", chunk.len()).bytes().chain(chunk.iter().copied()).chain(*b"\r\n"));
            }
            raw.extend(b"0\r\n\r\n");
            proptest::prop_assert_eq!(parse(&raw).expect("parses").body, chunks.concat());
        }
    }

    #[test]
    fn what_is_not_an_answer_is_an_error() {
        for raw in [
            &b""[..],
            b"SSH-2.0-OpenSSH_9\r\n\r\n",
            b"HTTP/1.1\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nshort",
            b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\nx\r\n",
            b"HTTP/1.1 200 OK\r\nX: \xff\r\n\r\n",
        ] {
            assert!(parse(raw).is_err(), "{}", raw.escape_ascii());
        }
    }
}
