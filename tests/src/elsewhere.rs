//! A server that is not the host: what guests reach, or should not.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustls::{ServerConfig, ServerConnection, StreamOwned};

use crate::PATIENCE;

/// A server on this machine. By the path of a request it answers, or not; it knows what it was asked.
pub struct Elsewhere {
    address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    notes: Mutex<Notes>,
    changed: Condvar,
}

#[derive(Default)]
struct Notes {
    /// The heads of all requests, or what was said where that was no HTTP.
    asked: Vec<String>,
    connected: usize,
    gone: usize,
}

impl Elsewhere {
    /// Speaks HTTP.
    pub fn http() -> Self {
        Self::serve(|shared, stream| answer(shared, BufReader::new(stream)))
    }

    /// Speaks HTTPS.
    pub fn https(config: Arc<ServerConfig>) -> Self {
        Self::serve(move |shared, stream| {
            let connection = ServerConnection::new(Arc::clone(&config)).expect("the configuration is right");
            answer(shared, BufReader::new(StreamOwned::new(connection, stream)))
        })
    }

    /// Says everything back, to whom and in whatever language.
    pub fn echo() -> Self {
        Self::serve(|shared, mut stream| {
            let mut said = [0; 4096];
            loop {
                let bytes = stream.read(&mut said)?;
                if bytes == 0 {
                    return Ok(());
                }
                shared.note(|notes| notes.asked.push(String::from_utf8_lossy(&said[..bytes]).into_owned()));
                stream.write_all(&said[..bytes])?;
            }
        })
    }

    fn serve(serve: impl Fn(&Shared, TcpStream) -> std::io::Result<()> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("there are ports");
        let address = listener.local_addr().expect("it listens");
        let shared = Arc::new(Shared::default());
        let (all, serve) = (Arc::clone(&shared), Arc::new(serve));
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (shared, serve) = (Arc::clone(&all), Arc::clone(&serve));
                std::thread::spawn(move || {
                    let _ = stream.set_read_timeout(Some(PATIENCE));
                    let _ = stream.set_write_timeout(Some(PATIENCE));
                    shared.note(|notes| notes.connected += 1);
                    // Who is there and says nothing for so long has not gone.
                    let is_silent =
                        |error: std::io::Error| matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut);
                    if !serve(&shared, stream).is_err_and(is_silent) {
                        shared.note(|notes| notes.gone += 1);
                    }
                });
            }
        });
        Self { address, shared }
    }

    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// `http://127.0.0.1:PORT` and a path.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// What it was asked so far.
    pub fn asked(&self) -> Vec<String> {
        self.shared.lock().asked.clone()
    }

    /// How often somebody connected.
    pub fn connected(&self) -> usize {
        self.shared.lock().connected
    }

    /// Waits until all who have connected are gone.
    ///
    /// # Panics
    /// If they stay.
    #[track_caller]
    pub fn until_alone(&self) {
        let deadline = Instant::now() + PATIENCE;
        let mut notes = self.shared.lock();
        while notes.gone < notes.connected {
            assert!(
                Instant::now() < deadline,
                "{} of {} are still connected",
                notes.connected - notes.gone,
                notes.connected
            );
            let waited = self.shared.changed.wait_timeout(notes, Duration::from_millis(100));
            notes = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl Shared {
    fn lock(&self) -> std::sync::MutexGuard<'_, Notes> {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, change: impl FnOnce(&mut Notes)) {
        change(&mut self.lock());
        self.changed.notify_all();
    }
}

/// One request, then the connection ends.
fn answer(shared: &Shared, mut stream: BufReader<impl Read + Write>) -> std::io::Result<()> {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if stream.read_line(&mut head)? == 0 {
            return Ok(());
        }
    }
    shared.note(|notes| notes.asked.push(head.clone()));
    let target = head.split(' ').nth(1).unwrap_or_default().to_owned();
    let (path, query) = target.split_once('?').unwrap_or((&target, ""));
    let number: usize = query.parse().unwrap_or(0);
    match path {
        "/hello" => whole(&mut stream, "200 OK", "hello from elsewhere"),
        "/head" => whole(&mut stream, "200 OK", &head),
        "/missing" => whole(&mut stream, "404 Not Found", "nothing here"),
        "/count" => {
            let bytes = body(&head, &mut stream)?.len();
            whole(&mut stream, "200 OK", &bytes.to_string())
        }
        "/echo" => {
            let body = body(&head, &mut stream)?;
            whole(&mut stream, "200 OK", &String::from_utf8_lossy(&body))
        }
        "/redirect" => stream
            .get_mut()
            .write_all(b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n"),
        // So many KiB, without saying so.
        "/big" => {
            let stream = stream.get_mut();
            stream.write_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")?;
            (0..number).try_for_each(|_| stream.write_all(&[b'x'; 1024]))
        }
        // A block, and then nothing.
        "/begin" => {
            stream.get_mut().write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\na block")?;
            stream.get_mut().flush()?;
            stream.read_to_end(&mut Vec::new()).map(drop)
        }
        "/garbage" => stream.get_mut().write_all(b"this is no HTTP\r\n\r\n"),
        "/short" => stream.get_mut().write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort"),
        "/large-head" => {
            let field = format!("X-Large: {}\r\n", "x".repeat(128 << 10));
            stream.get_mut().write_all(format!("HTTP/1.1 200 OK\r\n{field}\r\n").as_bytes())
        }
        // So many KiB in one field.
        "/wide-head" => {
            let field = format!("X-Wide: {}\r\n", "x".repeat(number << 10));
            stream.get_mut().write_all(format!("HTTP/1.1 200 OK\r\n{field}Content-Length: 0\r\n\r\n").as_bytes())
        }
        // Always about to answer.
        "/interim" => loop {
            stream.get_mut().write_all(b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\n")?;
        },
        // "/silent": not a word.
        _ => stream.read_to_end(&mut Vec::new()).map(drop),
    }
}

fn whole(stream: &mut BufReader<impl Read + Write>, status: &str, text: &str) -> std::io::Result<()> {
    let head = format!("HTTP/1.1 {status}\r\nContent-Type: text/plain\r\nContent-Length: {}\r\n\r\n", text.len());
    stream.get_mut().write_all(format!("{head}{text}").as_bytes())?;
    stream.get_mut().flush()
}

fn body(head: &str, stream: &mut impl BufRead) -> std::io::Result<Vec<u8>> {
    let lower = head.to_ascii_lowercase();
    let mut body = Vec::new();
    if let Some(length) = lower.split("content-length: ").nth(1).and_then(|rest| rest.lines().next()) {
        body.resize(length.trim().parse().unwrap_or(0), 0);
        stream.read_exact(&mut body)?;
    } else if lower.contains("transfer-encoding: chunked") {
        loop {
            let mut line = String::new();
            stream.read_line(&mut line)?;
            let bytes = usize::from_str_radix(line.trim(), 16).map_err(std::io::Error::other)?;
            let begin = body.len();
            body.resize(begin + bytes, 0);
            stream.read_exact(&mut body[begin..])?;
            stream.read_line(&mut String::new())?;
            if bytes == 0 {
                break;
            }
        }
    }
    Ok(body)
}
