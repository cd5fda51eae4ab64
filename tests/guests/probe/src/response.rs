//! Heads and bodies of given sizes. What their order is about is in `script`.

use wasgi::{Body, StartResponse};

use crate::{Answer, Query, TEXT};

/// Promises `promise` bytes, and gives `blocks` blocks of `bytes`.
pub(crate) fn length(query: &Query, start_response: &StartResponse) -> Answer {
    let promise = query.text("promise", "0");
    start_response.call("200 OK", &[("Content-Length", &promise)])?;
    let bytes = query.number("bytes", 10);
    let blocks = (0..query.number("blocks", 1)).map(move |_| vec![b'x'; bytes]);
    Ok(match query.number("iterator", 1) {
        0 => blocks.collect(),
        _ => Body::stream(blocks),
    })
}

pub(crate) fn many_headers(query: &Query, start_response: &StartResponse) -> Answer {
    let names: Vec<String> = (0..query.number("count", 1)).map(|index| format!("X-{index}")).collect();
    let value = "v".repeat(query.number("bytes", 1));
    let headers: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), value.as_str())).collect();
    start_response.call("200 OK", &headers)?;
    Ok(Body::from("many"))
}

/// `write=` each, then `block=` each.
pub(crate) fn write(query: &Query, start_response: &StartResponse) -> Answer {
    let write = start_response.call("200 OK", TEXT)?;
    for block in query.all("write") {
        write.write(block.as_bytes())?;
    }
    Ok(query.all("block").map(|block| block.as_bytes().to_vec()).collect())
}
