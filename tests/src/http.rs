//! A client for tests: it sends what it is told, right or wrong, and shows what comes back as it comes.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use crate::PATIENCE;

/// A connection.
pub struct Client {
    stream: Stream,
    /// Received and not yet looked at.
    buffer: Vec<u8>,
    /// What is left of the body under way.
    body: Framing,
}

/// What carries the bytes.
enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
    Tls(Box<TlsStream>),
}

/// A client's TLS over TCP.
pub type TlsStream = rustls::StreamOwned<rustls::ClientConnection, TcpStream>;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Framing {
    Ended,
    Length(u64),
    Chunked,
    /// Until the connection ends.
    Close,
}

/// How a body ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// As it was announced.
    Whole,
    /// The connection ended before the body did.
    Aborted,
}

/// Status line and header fields.
#[derive(Clone, Debug)]
pub struct Head {
    pub minor_version: u8,
    pub status: u16,
    pub reason: String,
    pub headers: Vec<(String, Vec<u8>)>,
}

impl Head {
    /// The first field of that name, as latin-1.
    pub fn header(&self, name: &str) -> Option<String> {
        self.all(name).into_iter().next()
    }

    pub fn all(&self, name: &str) -> Vec<String> {
        let fields = self.headers.iter().filter(|(found, _)| found.eq_ignore_ascii_case(name));
        fields.map(|(_, value)| value.iter().copied().map(char::from).collect()).collect()
    }
}

/// A whole response.
#[derive(Clone, Debug)]
pub struct Response {
    pub head: Head,
    pub body: Vec<u8>,
    pub end: End,
}

impl Response {
    pub fn status(&self) -> u16 {
        self.head.status
    }

    pub fn header(&self, name: &str) -> Option<String> {
        self.head.header(name)
    }

    /// The body as latin-1: a character for each byte.
    pub fn text(&self) -> String {
        self.body.iter().copied().map(char::from).collect()
    }

    /// The id that an error page shows.
    ///
    /// # Panics
    /// If it shows none.
    #[track_caller]
    pub fn request_id(&self) -> String {
        let text = self.text();
        let (_, id) = text.split_once("Request id: ").unwrap_or_else(|| panic!("no request id in {text:?}"));
        id.trim_end().to_owned()
    }
}

/// A request, put together field by field.
pub struct Request {
    method: String,
    target: String,
    fields: Vec<(String, Vec<u8>)>,
    body: Option<Vec<u8>>,
}

impl Request {
    pub fn new(method: &str, target: &str) -> Self {
        Self { method: method.to_owned(), target: target.to_owned(), fields: Vec::new(), body: None }
    }

    pub fn get(target: &str) -> Self {
        Self::new("GET", target)
    }

    pub fn post(target: &str, body: impl Into<Vec<u8>>) -> Self {
        let mut request = Self::new("POST", target);
        request.body = Some(body.into());
        request
    }

    /// A POST whose body goes in chunks, sent with [`Client::chunk`].
    pub fn chunked(target: &str) -> Self {
        Self::new("POST", target).header("Transfer-Encoding", "chunked")
    }

    #[must_use]
    pub fn header(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.fields.push((name.to_owned(), value.as_ref().to_vec()));
        self
    }

    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = format!("{} {} HTTP/1.1\r\n", self.method, self.target).into_bytes();
        if !self.fields.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
            bytes.extend_from_slice(b"Host: test.example\r\n");
        }
        for (name, value) in &self.fields {
            bytes.extend_from_slice(name.as_bytes());
            bytes.extend_from_slice(b": ");
            bytes.extend_from_slice(value);
            bytes.extend_from_slice(b"\r\n");
        }
        if let Some(body) = &self.body {
            bytes.extend_from_slice(format!("Content-Length: {}\r\n", body.len()).as_bytes());
        }
        bytes.extend_from_slice(b"\r\n");
        bytes.extend_from_slice(self.body.as_deref().unwrap_or_default());
        bytes
    }
}

impl Client {
    /// # Panics
    /// If nobody listens.
    #[track_caller]
    pub fn connect(address: SocketAddr) -> Self {
        Self::over_tcp(tcp(address))
    }

    pub fn over_tcp(stream: TcpStream) -> Self {
        Self::over(Stream::Tcp(stream))
    }

    /// # Panics
    /// If nobody listens.
    #[track_caller]
    pub fn connect_unix(path: &Path) -> Self {
        let stream = UnixStream::connect(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        stream.set_read_timeout(Some(PATIENCE)).expect("the time is not zero");
        stream.set_write_timeout(Some(PATIENCE)).expect("the time is not zero");
        Self::over(Stream::Unix(stream))
    }

    pub fn over_tls(stream: TlsStream) -> Self {
        Self::over(Stream::Tls(Box::new(stream)))
    }

    fn over(stream: Stream) -> Self {
        Self { stream, buffer: Vec::new(), body: Framing::Ended }
    }

    /// Sends a request and waits for the whole response.
    #[track_caller]
    pub fn ask(&mut self, request: &Request) -> Response {
        self.send(&request.to_bytes());
        self.response(&request.method)
    }

    #[track_caller]
    pub fn get(&mut self, target: &str) -> Response {
        self.ask(&Request::get(target))
    }

    /// Sends bytes as they are.
    ///
    /// # Panics
    /// If the host does not take them in time, or has gone.
    #[track_caller]
    pub fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).expect("the host takes what is sent");
    }

    /// Sends bytes to a host that may have stopped listening; whether it took them.
    pub fn try_send(&mut self, bytes: &[u8]) -> bool {
        self.stream.write_all(bytes).is_ok()
    }

    /// Sends a chunk of a chunked body; an empty one ends it.
    #[track_caller]
    pub fn chunk(&mut self, bytes: &[u8]) {
        let mut chunk = format!("{:x}\r\n", bytes.len()).into_bytes();
        chunk.extend_from_slice(bytes);
        chunk.extend_from_slice(b"\r\n");
        self.send(&chunk);
    }

    /// Says that nothing more is sent.
    pub fn finish_sending(&mut self) {
        let Stream::Tcp(stream) = &self.stream else { panic!("TCP alone can be closed on one side") };
        stream.shutdown(Shutdown::Write).expect("the connection is open");
    }

    /// Goes away at once: the host is told by a reset, not by an orderly end.
    pub fn reset(self) {
        let Stream::Tcp(stream) = &self.stream else { panic!("TCP alone has resets") };
        socket2::SockRef::from(stream).set_linger(Some(Duration::ZERO)).expect("it is a TCP socket");
    }

    /// The rest of the connection, whatever it holds.
    pub fn rest(&mut self) -> Vec<u8> {
        while self.receive() {}
        std::mem::take(&mut self.buffer)
    }

    /// Waits for the end of the connection without asking for more.
    #[track_caller]
    pub fn expect_end(&mut self) {
        let rest = self.rest();
        assert!(rest.is_empty(), "more came: {:?}", String::from_utf8_lossy(&rest));
    }

    /// A further handle of the socket, for a thread that sends while this one receives.
    pub fn sender(&self) -> TcpStream {
        let Stream::Tcp(stream) = &self.stream else { panic!("only TCP can be used by two") };
        stream.try_clone().expect("the socket is open")
    }

    /// Waits for a whole response to a request with this method.
    #[track_caller]
    pub fn response(&mut self, method: &str) -> Response {
        let head = self.head(method);
        let mut body = Vec::new();
        let end = loop {
            match self.piece() {
                Ok(piece) if piece.is_empty() => break End::Whole,
                Ok(piece) => body.extend_from_slice(&piece),
                Err(end) => break end,
            }
        };
        Response { head, body, end }
    }

    /// Waits for the head of a response.
    ///
    /// # Panics
    /// If the connection ends before, or what comes is not HTTP.
    #[track_caller]
    pub fn head(&mut self, method: &str) -> Head {
        loop {
            let mut fields = [httparse::EMPTY_HEADER; 200];
            let mut parsed = httparse::Response::new(&mut fields);
            if let httparse::Status::Complete(bytes) = parsed.parse(&self.buffer).expect("HTTP is spoken") {
                let head = Head {
                    minor_version: parsed.version.unwrap_or_default(),
                    status: parsed.code.unwrap_or_default(),
                    reason: parsed.reason.unwrap_or_default().to_owned(),
                    headers: parsed.headers.iter().map(|field| (field.name.to_owned(), field.value.to_vec())).collect(),
                };
                self.buffer.drain(..bytes);
                self.body = framing(&head, method);
                return head;
            }
            assert!(self.receive(), "the connection ended before the head of the response");
        }
    }

    /// Waits for the next piece of the body: a chunk, or what has come of a body that is not chunked. Empty at its end.
    ///
    /// # Errors
    /// [`End::Aborted`] where the connection ends before the body does.
    pub fn piece(&mut self) -> Result<Vec<u8>, End> {
        match self.body {
            Framing::Ended => Ok(Vec::new()),
            Framing::Chunked => self.next_chunk(),
            Framing::Close => {
                if self.buffer.is_empty() && !self.receive() {
                    self.body = Framing::Ended;
                }
                Ok(std::mem::take(&mut self.buffer))
            }
            Framing::Length(left) => {
                if self.buffer.is_empty() && !self.receive() {
                    return Err(End::Aborted);
                }
                let bytes = usize::try_from(left).unwrap_or(usize::MAX).min(self.buffer.len());
                let left = left - bytes as u64;
                self.body = if left == 0 { Framing::Ended } else { Framing::Length(left) };
                Ok(self.buffer.drain(..bytes).collect())
            }
        }
    }

    fn next_chunk(&mut self) -> Result<Vec<u8>, End> {
        loop {
            if let Some(line) = self.buffer.windows(2).position(|pair| pair == b"\r\n") {
                let digits = String::from_utf8_lossy(&self.buffer[..line]).into_owned();
                let bytes = usize::from_str_radix(&digits, 16).unwrap_or_else(|_| panic!("no chunk size: {digits:?}"));
                let (begin, end) = (line + 2, line + 2 + bytes);
                if self.buffer.len() >= end + 2 {
                    let chunk = self.buffer[begin..end].to_vec();
                    self.buffer.drain(..end + 2);
                    if chunk.is_empty() {
                        self.body = Framing::Ended;
                    }
                    return Ok(chunk);
                }
            }
            if !self.receive() {
                return Err(End::Aborted);
            }
        }
    }

    /// Waits for more bytes; false at the end of the connection.
    fn receive(&mut self) -> bool {
        let mut bytes = [0; 65536];
        loop {
            match self.stream.read(&mut bytes) {
                Ok(0) => return false,
                Ok(count) => {
                    self.buffer.extend_from_slice(&bytes[..count]);
                    return true;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // TLS tells an end without a farewell apart; here the end is what matters.
                Err(error) if matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::UnexpectedEof) => {
                    return false;
                }
                Err(error) => panic!("waited in vain for the host to send something: {error}"),
            }
        }
    }
}

fn framing(head: &Head, method: &str) -> Framing {
    if method == "HEAD" || head.status == 204 || head.status == 304 || head.status < 200 {
        return Framing::Ended;
    }
    if head.header("transfer-encoding").is_some() {
        return Framing::Chunked;
    }
    match head.header("content-length").and_then(|length| length.parse().ok()) {
        Some(0) => Framing::Ended,
        Some(length) => Framing::Length(length),
        None => Framing::Close,
    }
}

/// A TCP connection with patience.
///
/// # Panics
/// If nobody listens.
#[track_caller]
pub fn tcp(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap_or_else(|error| panic!("{address}: {error}"));
    stream.set_read_timeout(Some(PATIENCE)).expect("the time is not zero");
    stream.set_write_timeout(Some(PATIENCE)).expect("the time is not zero");
    stream.set_nodelay(true).expect("it is a TCP socket");
    stream
}

impl Read for Stream {
    fn read(&mut self, bytes: &mut [u8]) -> std::io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.read(bytes),
            Self::Unix(stream) => stream.read(bytes),
            Self::Tls(stream) => stream.read(bytes),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.write(bytes),
            Self::Unix(stream) => stream.write(bytes),
            Self::Tls(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> std::io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.flush(),
            Self::Unix(stream) => stream.flush(),
            Self::Tls(stream) => stream.flush(),
        }
    }
}
