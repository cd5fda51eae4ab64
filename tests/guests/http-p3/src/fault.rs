//! Everything that a `wasi:http` guest can do wrong, by name.

use std::hint::black_box;

use wasip3::clocks::monotonic_clock::wait_for;
use wasip3::http::client;
use wasip3::http::types::{ErrorCode, Fields, Request, Response, Scheme};
use wasip3::{spawn_local, wit_future};

use crate::{Open, begin, respond};

pub(crate) async fn run(kind: &str, number: u16) -> Result<Response, ErrorCode> {
    Ok(match kind {
        "error-code" => return Err(code(number)),
        "panic" => panic!("secret panic"),
        "spin" => {
            eprintln!("spinning");
            spin()
        }
        "sleep" => {
            sleep(number).await;
            respond(200, &[], b"slept".to_vec())
        }
        "memory" => {
            let mut kept = Vec::new();
            for _ in 0..=number {
                kept.push(black_box(vec![1_u8; 1 << 20]));
            }
            respond(200, &[], format!("{} MiB", kept.len()).into_bytes())
        }
        "many-headers" => {
            let names: Vec<String> = (0..number).map(|index| format!("x-{index}")).collect();
            let headers: Vec<_> = names.iter().map(|name| (name.as_str(), "value")).collect();
            respond(200, &headers, Vec::new())
        }
        "long-header" => respond(200, &[("x-long", &"v".repeat(number.into()))], Vec::new()),
        "handles" => {
            let kept: Vec<Fields> = (0..number).map(|_| Fields::new()).collect();
            respond(200, &[], format!("{} handles", kept.len()).into_bytes())
        }
        "hop-by-hop" => {
            let refused = Fields::from_list(&[("connection".to_owned(), b"close".to_vec())]).is_err();
            respond(200, &[], format!("refused: {refused}").into_bytes())
        }
        kind => after_the_head(kind.to_owned(), number),
    })
}

/// What goes wrong when the response has begun.
fn after_the_head(kind: String, number: u16) -> Response {
    let length: &[(&str, &str)] = match &*kind {
        "short" => &[("content-length", "10")],
        "long" => &[("content-length", "3")],
        _ => &[],
    };
    let Open { response, mut stream, end } = begin(200, length);
    spawn_local(async move {
        stream.write_all(b"a block".to_vec()).await;
        match &*kind {
            "then-panic" => {
                sleep(50).await;
                panic!("secret panic");
            }
            "then-spin" => {
                sleep(50).await;
                spin();
            }
            "then-sleep" => sleep(number).await,
            "forgotten" => {
                std::mem::forget((stream, end));
                return;
            }
            "declared-broken" => {
                drop(stream);
                let _ = end.write(Err(ErrorCode::InternalError(Some("secret reason".to_owned())))).await;
                return;
            }
            _ => {}
        }
        drop(stream);
        drop(end);
        match &*kind {
            "background" => {
                sleep(50).await;
                eprintln!("in the background");
            }
            "background-spin" => {
                sleep(50).await;
                spin();
            }
            "finished-panic" => {
                sleep(50).await;
                panic!("secret panic");
            }
            _ => {}
        }
    });
    response
}

async fn sleep(ms: u16) {
    wait_for(u64::from(ms) * 1_000_000).await;
}

fn spin() -> ! {
    loop {
        black_box(());
    }
}

fn code(number: u16) -> ErrorCode {
    match number {
        504 => ErrorCode::ConnectionTimeout,
        502 => ErrorCode::ConnectionRefused,
        503 => ErrorCode::ConnectionLimitReached,
        413 => ErrorCode::HttpRequestBodySize(None),
        508 => ErrorCode::LoopDetected,
        599 => ErrorCode::InternalError(Some("secret\n2026-01-01T00:00:00Z  INFO wasgi: forged".to_owned())),
        _ => ErrorCode::InternalError(Some("secret reason".to_owned())),
    }
}

/// What a request to elsewhere comes to.
pub(crate) async fn outgoing() -> String {
    let (end, ended) = wit_future::new(|| Ok(None));
    drop(end);
    let (request, _) = Request::new(Fields::new(), None, ended, None);
    request.set_scheme(Some(&Scheme::Http)).expect("it is a scheme");
    request.set_authority(Some("elsewhere.example")).expect("it is an authority");
    request.set_path_with_query(Some("/secret")).expect("it is a path");
    match client::send(request).await {
        Ok(_) => "answered".to_owned(),
        Err(code) => format!("{code:?}"),
    }
}
