//! Requests on a connection: told apart at the same places however the bytes come, and never joined or cut.

use proptest::prelude::*;

use super::{bytes_like, text_like};
use crate::limits::EdgeLimits;
use crate::server::framing::Framing;

const PIECES: &[&str] = &[
    "GET / HTTP/1.1\r\n",
    "POST / HTTP/1.1\r\n",
    "Host: a\r\n",
    "Content-Length: 3\r\n",
    "Transfer-Encoding: chunked\r\n",
    "\r\n",
    "\r\n\r\n",
    "3\r\n",
    "abc",
    "0\r\n",
    ";x",
    "\n",
];

/// A request that is right.
fn request() -> impl Strategy<Value = Vec<u8>> {
    let body = || bytes_like(b"0\r\n;GET / HTTP/1.1", 40);
    let chunk =
        bytes_like(b"0\r\n;a", 20).prop_filter_map("a chunk has bytes", |bytes| (!bytes.is_empty()).then_some(bytes));
    let sized = body().prop_map(|body| {
        let mut request = format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n", body.len()).into_bytes();
        request.extend_from_slice(&body);
        request
    });
    let parts = (prop::collection::vec((chunk, "(;[a-z=]{0,5})?"), 0..4), "(X-[a-z]{1,3}: [a-z]{0,3}\r\n){0,2}");
    let chunked = parts.prop_map(|(chunks, trailers)| {
        let mut request = b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nHost: a\r\n\r\n".to_vec();
        for (chunk, extension) in chunks {
            request.extend_from_slice(format!("{:x}{extension}\r\n", chunk.len()).as_bytes());
            request.extend_from_slice(&chunk);
            request.extend_from_slice(b"\r\n");
        }
        request.extend_from_slice(format!("0\r\n{trailers}\r\n").as_bytes());
        request
    });
    let plain = "(\r\n)?(GET|HEAD) /[a-z]{0,5} HTTP/1\\.[01]\r?\n(X-[a-z]{1,3}:[ -~]{0,5}\r?\n){0,3}\r?\n";
    prop_oneof![plain.prop_map(String::into_bytes), sized, chunked]
}

/// What is let through of bytes that come in such pieces: each step's bytes, until a head is refused.
fn let_through(bytes: &[u8], pieces: &[usize]) -> Vec<Vec<u8>> {
    let mut framing = Framing::new(&EdgeLimits { request_head_bytes: 8 << 10, ..EdgeLimits::default() });
    let (mut held, mut left, mut steps) = (Vec::new(), bytes, Vec::new());
    let mut pieces = pieces.iter().cycle();
    loop {
        match framing.admit(&held) {
            Err(_) => return steps,
            Ok(0) if left.is_empty() => return steps,
            Ok(0) => {
                let piece = (*pieces.next().unwrap_or(&1)).clamp(1, left.len());
                held.extend_from_slice(&left[..piece]);
                left = &left[piece..];
            }
            Ok(admitted) => steps.push(held.drain(..admitted).collect()),
        }
    }
}

proptest! {
    #[test]
    fn requests_come_out_as_they_went_in_whatever_the_pieces(
        requests in prop::collection::vec(request(), 1..6),
        pieces in prop::collection::vec(1_usize..50, 1..8),
    ) {
        let bytes = requests.concat();
        let steps = let_through(&bytes, &pieces);
        prop_assert_eq!(steps.concat(), bytes);
        // The end of each request is the end of a step: none holds bytes of two.
        let ends = |parts: &[Vec<u8>]| -> Vec<usize> {
            parts.iter().scan(0, |at, part| { *at += part.len(); Some(*at) }).collect()
        };
        let (of_requests, of_steps) = (ends(&requests), ends(&steps));
        for end in of_requests {
            prop_assert!(of_steps.contains(&end), "{} is not among {:?}", end, of_steps);
        }
    }

    #[test]
    fn any_bytes_are_let_through_in_order_or_refused_the_same_however_they_come(
        text in text_like(PIECES, 14),
        start in prop::option::of(request()),
        pieces in prop::collection::vec(1_usize..50, 1..8),
    ) {
        let bytes = [start.unwrap_or_default(), text.into_bytes()].concat();
        let (in_pieces, whole) = (let_through(&bytes, &pieces).concat(), let_through(&bytes, &[bytes.len()]).concat());
        prop_assert!(bytes.starts_with(&in_pieces));
        prop_assert_eq!(in_pieces, whole);
    }
}
