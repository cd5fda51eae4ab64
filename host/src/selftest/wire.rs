//! A client that says whatever it likes: blocking, on a plain socket, and patient only for so long.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use socket2::{Domain, SockRef, Socket, Type};

/// A response as it came.
#[derive(Debug, Default)]
pub(super) struct Reply {
    /// 0 where nothing came that looks like HTTP.
    pub(super) status: u16,
    pub(super) head: String,
    pub(super) body: Vec<u8>,
    /// Whether the body came to its end, as the head describes it.
    pub(super) whole: bool,
    /// What followed the response on the same connection.
    pub(super) rest: Vec<u8>,
}

impl Reply {
    pub(super) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// A field of the head; "" where it is not there.
    pub(super) fn header(&self, name: &str) -> &str {
        let mut lines = self.head.lines().filter_map(|line| line.split_once(':'));
        lines.find(|(found, _)| found.eq_ignore_ascii_case(name)).map_or("", |(_, value)| value.trim())
    }
}

/// Sends bytes, and reads what comes until the connection ends or `patience` is over.
pub(super) fn talk(address: SocketAddr, request: &[u8], patience: Duration) -> std::io::Result<Reply> {
    let mut stream = open(address)?;
    // A server that has refused may have closed already.
    let _ = stream.write_all(request);
    let deadline = Instant::now() + patience;
    let bytes = read_until(&mut stream, deadline);
    if Instant::now() >= deadline {
        // A reset: who only stops sending may be waited for by the server.
        let _ = SockRef::from(&stream).set_linger(Some(Duration::ZERO));
    }
    Ok(parse(&bytes, request.starts_with(b"HEAD")))
}

pub(super) fn open(address: SocketAddr) -> std::io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&address, Duration::from_secs(5))?;
    stream.set_nodelay(true)?;
    stream.set_write_timeout(Some(Duration::from_secs(5)))?;
    Ok(stream)
}

/// By one of this machine's own addresses.
pub(super) fn open_from(own: Ipv4Addr, address: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.bind(&SocketAddr::from((own, 0)).into())?;
    socket.connect_timeout(&address.into(), Duration::from_secs(5))?;
    Ok(socket.into())
}

pub(super) fn get(target: &str) -> Vec<u8> {
    format!("GET {target} HTTP/1.1\r\nHost: selftest\r\nConnection: close\r\n\r\n").into_bytes()
}

/// What comes until the end or the deadline; at most so much that a flood does not fill our own memory.
pub(super) fn read_until(stream: &mut TcpStream, deadline: Instant) -> Vec<u8> {
    const BYTES_MAX: usize = 64 << 20;
    let (mut bytes, mut piece) = (Vec::new(), vec![0; 64 << 10]);
    while bytes.len() < BYTES_MAX {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() || stream.set_read_timeout(Some(left)).is_err() {
            break;
        }
        match stream.read(&mut piece) {
            Ok(0) => break,
            Ok(count) => bytes.extend_from_slice(&piece[..count]),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(_) => break,
        }
    }
    bytes
}

pub(super) fn parse(bytes: &[u8], is_head: bool) -> Reply {
    let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else { return Reply::default() };
    let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
    let mut reply = Reply { status, head, ..Reply::default() };
    let body = &bytes[end + 4..];
    let length: Option<usize> = reply.header("content-length").parse().ok();
    if is_head || matches!(status, 204 | 304) {
        reply.whole = true;
        reply.rest = body.to_vec();
    } else if reply.header("transfer-encoding").eq_ignore_ascii_case("chunked") {
        dechunk(body, &mut reply);
    } else if let Some(length) = length {
        let taken = length.min(body.len());
        reply.body = body[..taken].to_vec();
        reply.whole = taken == length;
        reply.rest = body[taken..].to_vec();
    } else {
        reply.body = body.to_vec();
        reply.whole = true;
    }
    reply
}

fn dechunk(mut bytes: &[u8], reply: &mut Reply) {
    loop {
        let Some(end) = bytes.windows(2).position(|window| window == b"\r\n") else { return };
        let Ok(size) = usize::from_str_radix(&String::from_utf8_lossy(&bytes[..end]), 16) else { return };
        bytes = &bytes[end + 2..];
        if bytes.len() < size + 2 {
            reply.body.extend_from_slice(&bytes[..size.min(bytes.len())]);
            return;
        }
        reply.body.extend_from_slice(&bytes[..size]);
        bytes = &bytes[size + 2..];
        if size == 0 {
            reply.whole = true;
            reply.rest = bytes.to_vec();
            return;
        }
    }
}
