//! A `wasi:http` 0.3 component, built as one for `wasmtime serve` is. The last segment of the path names a behaviour, the query
//! is its number. The same paths mean the same as in `http-p2`.

mod elsewhere;
mod fault;
mod newer;

use std::sync::atomic::{AtomicU32, Ordering};

use wasip3::http::types::{ErrorCode, Fields, Method, Request, Response, Scheme};
use wasip3::wit_bindgen::{FutureReader, FutureWriter, StreamReader, StreamResult, StreamWriter};
use wasip3::{spawn_local, wit_future, wit_stream};

struct App;

wasip3::http::service::export!(App);

static CALLS: AtomicU32 = AtomicU32::new(0);

impl wasip3::exports::http::handler::Guest for App {
    async fn handle(request: Request) -> Result<Response, ErrorCode> {
        let calls = CALLS.fetch_add(1, Ordering::Relaxed) + 1;
        let target = request.get_path_with_query().unwrap_or_default();
        let (path, query) = target.split_once('?').unwrap_or((&target, ""));
        let number: u16 = query.parse().unwrap_or(0);
        Ok(match path.rsplit('/').next().unwrap_or_default() {
            "hello" => respond(200, &[], b"hello from wasi:http".to_vec()),
            "calls" => respond(200, &[], format!("call {calls}").into_bytes()),
            "request" => respond(200, &[], describe(&request).into_bytes()),
            "status" => respond(number, &[("x-given", "yes")], b"a body".to_vec()),
            "length" => respond(200, &[("content-length", "6")], b"a body".to_vec()),
            "cookies" => respond(200, &[("set-cookie", "a=1"), ("set-cookie", "b=2")], Vec::new()),
            "disk" => respond(200, &[], disk::run(query).into_bytes()),
            "senses" => respond(200, &[], senses::run(query).into_bytes()),
            "newer" => respond(200, &[], newer::run(query).await.into_bytes()),
            "echo" => echo(request),
            "ignore" => {
                // Kept, so that only the host can take the body back.
                std::mem::forget(request);
                respond(200, &[], b"ignored".to_vec())
            }
            "trailers" => trailers(request).await,
            "blocks" => blocks(request, number),
            "log" => {
                println!("to standard output");
                eprintln!("to standard error");
                respond(200, &[], b"logged".to_vec())
            }
            "elsewhere" => respond(200, &[], elsewhere::run(query).await.into_bytes()),
            "shelf" => respond(200, &[], shelf::run(query).into_bytes()),
            "outgoing" => respond(200, &[], fault::outgoing().await.into_bytes()),
            kind => return fault::run(kind, number).await,
        })
    }
}

pub(crate) type Trailers = Result<Option<Fields>, ErrorCode>;

/// A response, and what its body is said with: the stream, and the future that ends it.
pub(crate) struct Open {
    pub(crate) response: Response,
    pub(crate) stream: StreamWriter<u8>,
    pub(crate) end: FutureWriter<Trailers>,
}

pub(crate) fn begin(status: u16, headers: &[(&str, &str)]) -> Open {
    let fields: Vec<_> = headers.iter().map(|(name, value)| ((*name).to_owned(), value.as_bytes().to_vec())).collect();
    let fields = Fields::from_list(&fields).expect("these are headers");
    let (stream, contents) = wit_stream::new();
    let (end, ended) = wit_future::new(|| Ok(None));
    let (response, sent) = Response::new(fields, Some(contents), ended);
    drop(sent);
    response.set_status_code(status).expect("it is a status");
    Open { response, stream, end }
}

pub(crate) fn respond(status: u16, headers: &[(&str, &str)], bytes: Vec<u8>) -> Response {
    let Open { response, mut stream, end } = begin(status, headers);
    drop(end);
    spawn_local(async move {
        stream.write_all(bytes).await;
    });
    response
}

/// What the guest sees of a request, a line each.
fn describe(request: &Request) -> String {
    let method = match request.get_method() {
        Method::Other(name) => name,
        known => format!("{known:?}"),
    };
    let scheme = match request.get_scheme() {
        Some(Scheme::Http) => "http",
        Some(Scheme::Https) => "https",
        _ => "none",
    };
    let mut text = format!(
        "method {method}\ntarget {}\nscheme {scheme}\nauthority {}\n",
        request.get_path_with_query().unwrap_or_default(),
        request.get_authority().unwrap_or_default()
    );
    for (name, value) in request.get_headers().copy_all() {
        text.push_str(&format!("{name}: {}\n", String::from_utf8_lossy(&value)));
    }
    text
}

/// The request's body, and what follows it.
fn open(request: Request) -> (StreamReader<u8>, FutureReader<Trailers>) {
    let (failed, result) = wit_future::new(|| Ok(()));
    drop(failed);
    Request::consume_body(request, result)
}

/// The next piece; none at the end.
pub(crate) async fn read(stream: &mut StreamReader<u8>) -> Option<Vec<u8>> {
    match stream.read(Vec::with_capacity(65536)).await {
        (StreamResult::Complete(_), piece) => Some(piece),
        (_, piece) => (!piece.is_empty()).then_some(piece),
    }
}

/// Each piece of the body goes back as it comes.
fn echo(request: Request) -> Response {
    let Open { response, mut stream, end } = begin(200, &[("content-type", "application/octet-stream")]);
    let (mut body, given) = open(request);
    spawn_local(async move {
        while let Some(piece) = read(&mut body).await {
            stream.write_all(piece).await;
        }
        drop(stream);
        let _ = end.write(given.await.map(|_| None)).await;
    });
    response
}

/// A body with trailers: the request's own, and one more.
async fn trailers(request: Request) -> Response {
    let (mut body, given) = open(request);
    let mut bytes = 0;
    while let Some(piece) = read(&mut body).await {
        bytes += piece.len();
    }
    let given = given.await.expect("the client is there");
    let Open { response, mut stream, end } = begin(200, &[("trailer", "x-bytes, x-given")]);
    spawn_local(async move {
        stream.write_all(b"a body".to_vec()).await;
        drop(stream);
        let fields = Fields::new();
        fields.append("x-bytes", bytes.to_string().as_bytes()).expect("it is a header");
        if let Some(given) = given {
            for value in given.get("x-given") {
                fields.append("x-given", &value).expect("it is a header");
            }
        }
        let _ = end.write(Ok(Some(fields))).await;
    });
    response
}

/// A block for each byte of the request body; then `number` blocks of 64 KiB.
fn blocks(request: Request, number: u16) -> Response {
    let Open { response, mut stream, end } = begin(200, &[]);
    let (mut body, _) = open(request);
    drop(end);
    spawn_local(async move {
        while let Some(piece) = read(&mut body).await {
            for byte in piece {
                stream.write_all(vec![byte]).await;
            }
        }
        for _ in 0..number {
            if !stream.write_all(vec![b'x'; 65536]).await.is_empty() {
                return;
            }
        }
    });
    response
}
