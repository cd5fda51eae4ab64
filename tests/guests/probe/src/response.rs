//! Heads and blocks in every order that PEP 3333 allows, and some that it does not.

use wasgi::{Body, StartResponse};

use crate::{Answer, Query, TEXT, raised};

/// `status`, `header=Name:Value` and `block`, each as often as wanted; `iterator=1` for a generator.
pub(crate) fn respond(query: &Query, start_response: &StartResponse) -> Answer {
    let headers: Vec<(&str, &str)> =
        query.all("header").map(|header| header.split_once(':').expect("a header has a colon")).collect();
    start_response.call(&query.text("status", "200 OK"), &headers)?;
    let blocks: Vec<Vec<u8>> = query.all("block").map(|block| block.as_bytes().to_vec()).collect();
    Ok(match query.number("iterator", 0) {
        0 => Body::from(blocks),
        _ => Body::stream(blocks),
    })
}

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

pub(crate) fn twice(start_response: &StartResponse) -> Answer {
    start_response.call("200 OK", TEXT)?;
    start_response.call("201 Created", TEXT)?;
    Ok(Body::from("twice"))
}

/// `write=` each, then `block=` each.
pub(crate) fn write(query: &Query, start_response: &StartResponse) -> Answer {
    let write = start_response.call("200 OK", TEXT)?;
    for block in query.all("write") {
        write.write(block.as_bytes())?;
    }
    Ok(query.all("block").map(|block| block.as_bytes().to_vec()).collect())
}

/// Calls start_response in the generator's first step.
pub(crate) fn late(start_response: StartResponse) -> Answer {
    let mut step = 0;
    Ok(Body::stream(std::iter::from_fn(move || {
        step += 1;
        match step {
            1 => match start_response.call("202 Accepted", &[("X-Late", "yes")]) {
                Ok(_) => Some(Ok("first ".to_owned())),
                Err(error) => Some(Err(wasgi::Error::from(error))),
            },
            2 => Some(Ok("second".to_owned())),
            _ => None,
        }
    })))
}

pub(crate) fn exc_info_before(start_response: &StartResponse) -> Answer {
    start_response.call("200 OK", &[("X-First", "yes")])?;
    start_response.call_with_exc_info("500 Oops", &[("X-Second", "yes")], raised("secret reason"))?;
    Ok(Body::from("an error page of the app's own"))
}

pub(crate) fn exc_info_after(start_response: &StartResponse) -> Answer {
    let write = start_response.call("200 OK", TEXT)?;
    write.write(b"some of it")?;
    start_response.call_with_exc_info("500 Oops", TEXT, raised("secret reason"))?;
    Ok(Body::from("never reached"))
}
