//! What holds for every input of the pure parts, whoever wrote it: strangers' requests, guests' responses, files that were
//! dropped. A short run belongs to `make test`; `make fuzz` is the long one (docs/fuzzing.md has its results).

mod cgi;
mod config;
mod environ;
mod forwarded;
mod framing;
mod head;
mod inspect;
mod log;
mod outbound;
mod route;

use proptest::prelude::*;

/// Bytes that a part looks for, more often than others would come.
fn bytes_like(special: &'static [u8], len_max: usize) -> impl Strategy<Value = Vec<u8>> {
    let byte = prop_oneof![3 => prop::sample::select(special), 1 => any::<u8>()];
    prop::collection::vec(byte, 0..=len_max)
}

/// Text made of such pieces, and of any characters.
fn text_like(pieces: &'static [&'static str], len_max: usize) -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        3 => prop::sample::select(pieces).prop_map(str::to_owned),
        1 => any::<char>().prop_map(String::from),
    ];
    prop::collection::vec(piece, 0..=len_max).prop_map(|pieces| pieces.concat())
}
