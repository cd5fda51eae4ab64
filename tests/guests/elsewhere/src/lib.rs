//! What a guest of any kind can reach beyond the host. A word says what to do, and what came of it is an answer in words: a hostile
//! guest's tries, and a friendly one's.

mod sockets;

use std::cell::RefCell;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream, ToSocketAddrs, UdpSocket};

use wasi::http::outgoing_handler;
use wasi::http::types::{
    ErrorCode, Fields, FutureIncomingResponse, IncomingBody, IncomingResponse, Method, OutgoingBody, OutgoingRequest,
    Scheme, http_error_code,
};
use wasi::io::streams::StreamError;

/// `get,URL`, `send,URL,BYTES`, `tcp,PLACE,TEXT`: fields are parted by commas.
pub fn run(words: &str) -> String {
    let fields: Vec<&str> = words.split(',').collect();
    let done = match fields[..] {
        ["get", url] => get(request(url, &Method::Get, &[])),
        // Another server's name for the one at that place.
        ["pose", url, name] => get(request(url, &Method::Get, &[("Host", name)])),
        // So many KiB of header fields.
        ["fields", url, kib] => send_fields(url, kib.parse().unwrap_or(0)),
        ["connect", url] => get(request(url, &Method::Connect, &[])),
        ["send", url, bytes] => send(url, bytes.parse().unwrap_or(0)),
        // A response that is held, and as many more as there may be.
        ["many", url, count] => many(url, count.parse().unwrap_or(0)),
        // Says when the response has begun, then reads on.
        ["read", url] => read(url),
        ["tcp", place, text] => tcp(place, text).map_err(|error| error.to_string()),
        ["again", place, text] => again(place, text).map_err(|error| error.to_string()),
        ["hold", place] => hold(place).map_err(|error| error.to_string()),
        ["keep", place, count, time] => sockets::keep(place, count, time),
        ["leave", place, time] => sockets::leave(place, time),
        ["twice", place, other] => sockets::twice(place, other),
        ["give-up", place, count] => sockets::give_up(place, count),
        ["flood", place, kib] => sockets::flood(place, kib),
        ["options", place] => sockets::options(place),
        ["look-up", name] => look_up(name).map_err(|error| error.to_string()),
        ["listen"] => TcpListener::bind("127.0.0.1:0").map(|_| "listening".to_owned()).map_err(|e| e.to_string()),
        ["udp", place] => udp(place).map_err(|error| error.to_string()),
        _ => Err(format!("no {words} here")),
    };
    done.unwrap_or_else(|error| format!("error {error}"))
}

fn request(url: &str, method: &Method, headers: &[(&str, &str)]) -> OutgoingRequest {
    let fields = Fields::new();
    for (name, value) in headers {
        fields.append(name, value.as_bytes()).expect("it is a header");
    }
    let request = OutgoingRequest::new(fields);
    let (scheme, rest) = url.split_once("://").expect("it is a URL");
    let (authority, path) = rest.find('/').map_or((rest, "/"), |slash| rest.split_at(slash));
    let scheme = if scheme == "https" { Scheme::Https } else { Scheme::Http };
    request.set_method(method).expect("it is a method");
    request.set_scheme(Some(&scheme)).expect("it is a scheme");
    request.set_authority(Some(authority)).expect("it is an authority");
    request.set_path_with_query(Some(path)).expect("it is a path");
    request
}

fn send_fields(url: &str, kib: usize) -> Result<String, String> {
    let (names, value) = ((0..kib).map(|number| format!("x-{number}")).collect::<Vec<_>>(), "x".repeat(1024));
    let fields: Vec<_> = names.iter().map(|name| (name.as_str(), value.as_str())).collect();
    get(request(url, &Method::Get, &fields))
}

fn said(code: ErrorCode) -> String {
    format!("{code:?}")
}

fn wait(response: &FutureIncomingResponse) -> Result<IncomingResponse, String> {
    response.subscribe().block();
    response.get().expect("it is there").expect("it was not taken").map_err(said)
}

/// Status and body.
fn get(request: OutgoingRequest) -> Result<String, String> {
    let response = wait(&outgoing_handler::handle(request, None).map_err(said)?)?;
    let status = response.status();
    let mut body = Vec::new();
    pieces(&response, |piece| body.extend_from_slice(piece))?;
    Ok(format!("{status} {}", String::from_utf8_lossy(&body)))
}

fn pieces(response: &IncomingResponse, mut take: impl FnMut(&[u8])) -> Result<(), String> {
    let body = response.consume().expect("a body is consumed once");
    let stream = body.stream().expect("a body is streamed once");
    let ended = loop {
        match stream.blocking_read(65536) {
            Ok(piece) => take(&piece),
            Err(StreamError::Closed) => break Ok(()),
            Err(StreamError::LastOperationFailed(error)) => {
                break Err(http_error_code(&error).map_or_else(|| error.to_debug_string(), said));
            }
        }
    };
    drop(stream);
    drop(IncomingBody::finish(body));
    ended
}

/// A POST of so many bytes.
fn send(url: &str, bytes: usize) -> Result<String, String> {
    let request = request(url, &Method::Post, &[]);
    let body = request.body().expect("a body is taken once");
    let response = outgoing_handler::handle(request, None).map_err(said)?;
    {
        let stream = body.write().expect("a body is written once");
        let block = [b'x'; 4096];
        let mut left = bytes;
        while left > 0 {
            let piece = &block[..left.min(4096)];
            // What became of it the response says.
            if stream.blocking_write_and_flush(piece).is_err() {
                break;
            }
            left -= piece.len();
        }
    }
    let _ = OutgoingBody::finish(body, None);
    let response = wait(&response)?;
    let mut body = Vec::new();
    pieces(&response, |piece| body.extend_from_slice(piece))?;
    Ok(format!("{} {}", response.status(), String::from_utf8_lossy(&body)))
}

fn many(url: &str, count: usize) -> Result<String, String> {
    let begun: Vec<_> =
        (0..count).map(|_| outgoing_handler::handle(request(url, &Method::Get, &[]), None).map_err(said)).collect();
    // All of them are open at the same time.
    let responses: Vec<_> = begun.into_iter().map(|begun| begun.and_then(|response| wait(&response))).collect();
    let words = responses.iter().map(|response| match response {
        Ok(response) => response.status().to_string(),
        Err(error) => error.clone(),
    });
    Ok(words.collect::<Vec<_>>().join(" "))
}

fn read(url: &str) -> Result<String, String> {
    let response = wait(&outgoing_handler::handle(request(url, &Method::Get, &[]), None).map_err(said)?)?;
    let mut bytes = 0;
    let ended = pieces(&response, |piece| {
        if bytes == 0 {
            eprintln!("the response has begun");
        }
        bytes += piece.len();
    });
    Ok(format!("{bytes} bytes, then {ended:?}"))
}

/// Says a text and returns what comes back.
fn tcp(place: &str, text: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(place)?;
    stream.write_all(text.as_bytes())?;
    stream.shutdown(std::net::Shutdown::Write)?;
    let mut back = String::new();
    stream.read_to_string(&mut back)?;
    Ok(back)
}

/// The same over a connection that is kept from call to call, where instances are.
fn again(place: &str, text: &str) -> std::io::Result<String> {
    thread_local! {
        static KEPT: RefCell<Option<TcpStream>> = const { RefCell::new(None) };
    }
    KEPT.with_borrow_mut(|kept| {
        let stream = match kept {
            Some(stream) => stream,
            None => kept.insert(TcpStream::connect(place)?),
        };
        stream.write_all(text.as_bytes())?;
        let mut back = vec![0; text.len()];
        stream.read_exact(&mut back)?;
        Ok(String::from_utf8_lossy(&back).into_owned())
    })
}

/// Waits on an open connection.
fn hold(place: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(place)?;
    eprintln!("the connection is open");
    let mut back = Vec::new();
    let ended = stream.read_to_end(&mut back);
    Ok(format!("{} bytes, then {}", back.len(), ended.map_or_else(|error| error.to_string(), |_| "the end".to_owned())))
}

fn look_up(name: &str) -> std::io::Result<String> {
    let found = (name, 80).to_socket_addrs()?;
    Ok(found.map(|address| address.ip().to_string()).collect::<Vec<_>>().join(" "))
}

fn udp(place: &str) -> std::io::Result<String> {
    UdpSocket::bind("0.0.0.0:0")?.send_to(b"hello", place).map(|_| "sent".to_owned())
}
