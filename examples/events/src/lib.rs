//! Streams: what it yields goes to the client block by block, and the next block is made when the last has been taken.
//!
//! | path | what it answers |
//! | --- | --- |
//! | `/` | a page that shows the events as they come |
//! | `/events?n=10&ms=1000` | server-sent events: `n` ticks, `ms` milliseconds apart |
//! | `/table?n=100` | an HTML table of the squares of 1 to `n`, a row per block |
//! | `/bytes?n=1000000` | `n` bytes, in blocks of 64 KiB |

use std::thread::sleep;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use wasgi::form::Form;
use wasgi::{Body, Environ, StartResponse};

const HTML: (&str, &str) = ("Content-Type", "text/html; charset=utf-8");

#[wasgi::application]
fn app(environ: Environ, start_response: StartResponse) -> wasgi::Result<Body> {
    let query = environ.query();
    match &*environ.path_info() {
        "" | "/" => {
            start_response.call("200 OK", &[HTML])?;
            Ok(Body::from(PAGE))
        }
        "/events" => {
            let time = Duration::from_millis(number(&query, "ms", 1000)?);
            let headers = [("Content-Type", "text/event-stream"), ("Cache-Control", "no-store")];
            start_response.call("200 OK", &headers)?;
            Ok(Body::stream(
                (0..number(&query, "n", 10)?).map(move |tick| event(tick, time)),
            ))
        }
        "/table" => {
            start_response.call("200 OK", &[HTML])?;
            let rows = (1..=number(&query, "n", 100)?)
                .map(|n| format!("<tr><td>{n}</td><td>{}</td></tr>\n", u128::from(n) * u128::from(n)));
            let head = "<!doctype html><title>Squares</title>\n<table>\n".to_owned();
            Ok(Body::stream(
                std::iter::once(head).chain(rows).chain(["</table>\n".to_owned()]),
            ))
        }
        "/bytes" => {
            let bytes = number(&query, "n", 1_000_000)?;
            start_response.call("200 OK", &[("Content-Length", &bytes.to_string())])?;
            Ok(Body::from_reader(std::io::Read::take(std::io::repeat(b'x'), bytes)))
        }
        _ => {
            start_response.call("404 Not Found", &[("Content-Type", "text/plain")])?;
            Ok(Body::from("No such page. Try /events, /table or /bytes.\n"))
        }
    }
}

/// One tick; all but the first come after a pause.
fn event(tick: u64, time: Duration) -> String {
    if tick > 0 {
        sleep(time);
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    format!("id: {tick}\ndata: {}.{:03}\n\n", now.as_secs(), now.subsec_millis())
}

fn number(query: &Form, name: &str, default: u64) -> Result<u64, std::num::ParseIntError> {
    query.get(name).map_or(Ok(default), str::parse)
}

const PAGE: &str = "<!doctype html><title>events</title>
<h1>Events</h1><ol id=list></ol>
<script>
const source = new EventSource(location.pathname.replace(/\\/$/, '') + '/events?n=10&ms=1000');
source.onmessage = (event) => {
  const item = document.createElement('li');
  item.textContent = new Date(event.data * 1000).toISOString();
  document.getElementById('list').append(item);
  if (event.lastEventId == 9) source.close();
};
</script>
";
