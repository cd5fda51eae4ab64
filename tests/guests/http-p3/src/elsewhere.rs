//! Requests to elsewhere: the same words mean the same as in the crate `elsewhere`, which speaks WASI 0.2.

use wasip3::http::client;
use wasip3::http::types::{ErrorCode, Fields, Method, Request, Response, Scheme};
use wasip3::{spawn_local, wit_future, wit_stream};

pub(crate) async fn run(words: &str) -> String {
    let fields: Vec<&str> = words.split(',').collect();
    let done = match fields[..] {
        ["get", url] => get(url, &Method::Get, Fields::new(), 0).await,
        ["fields", url, kib] => get(url, &Method::Get, some_fields(kib.parse().unwrap_or(0)), 0).await,
        ["connect", url] => get(url, &Method::Connect, Fields::new(), 0).await,
        ["send", url, bytes] => get(url, &Method::Post, Fields::new(), bytes.parse().unwrap_or(0)).await,
        ["read", url] => read(url).await,
        _ => return format!("no {words} here"),
    };
    done.unwrap_or_else(|code| format!("error {code:?}"))
}

/// So many KiB of them.
fn some_fields(kib: usize) -> Fields {
    let fields = Fields::new();
    for number in 0..kib {
        fields.append(&format!("x-{number}"), "x".repeat(1024).as_bytes()).expect("it is a header");
    }
    fields
}

async fn send(url: &str, method: &Method, fields: Fields, bytes: usize) -> Result<Response, ErrorCode> {
    let (mut stream, contents) = wit_stream::new();
    let (end, ended) = wit_future::new(|| Ok(None));
    let body = (bytes > 0).then_some(contents);
    let (request, _) = Request::new(fields, body, ended, None);
    let (scheme, rest) = url.split_once("://").expect("it is a URL");
    let (authority, path) = rest.find('/').map_or((rest, "/"), |slash| rest.split_at(slash));
    let scheme = if scheme == "https" { Scheme::Https } else { Scheme::Http };
    request.set_method(method).expect("it is a method");
    request.set_scheme(Some(&scheme)).expect("it is a scheme");
    request.set_authority(Some(authority)).expect("it is an authority");
    request.set_path_with_query(Some(path)).expect("it is a path");
    spawn_local(async move {
        let mut left = bytes;
        while left > 0 {
            let piece = left.min(65536);
            if !stream.write_all(vec![b'x'; piece]).await.is_empty() {
                return;
            }
            left -= piece;
        }
        drop((stream, end));
    });
    client::send(request).await
}

/// Calls `take` with each piece; then says how it ended.
async fn pieces(response: Response, mut take: impl FnMut(&[u8])) -> Result<(), ErrorCode> {
    let (failed, result) = wit_future::new(|| Ok(()));
    drop(failed);
    let (mut body, ended) = Response::consume_body(response, result);
    while let Some(piece) = super::read(&mut body).await {
        take(&piece);
    }
    ended.await.map(drop)
}

/// Status and body.
async fn get(url: &str, method: &Method, fields: Fields, bytes: usize) -> Result<String, ErrorCode> {
    let response = send(url, method, fields, bytes).await?;
    let status = response.get_status_code();
    let mut body = Vec::new();
    pieces(response, |piece| body.extend_from_slice(piece)).await?;
    Ok(format!("{status} {}", String::from_utf8_lossy(&body)))
}

async fn read(url: &str) -> Result<String, ErrorCode> {
    let response = send(url, &Method::Get, Fields::new(), 0).await?;
    let mut bytes = 0;
    let ended = pieces(response, |piece| {
        if bytes == 0 {
            eprintln!("the response has begun");
        }
        bytes += piece.len();
    })
    .await;
    Ok(format!("{bytes} bytes, then {ended:?}"))
}
