//! Requests that are refused before anyone could serve them: their heads were not HTTP, too large or too slow.

use std::io::Write;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::{Response, Version};
use time::OffsetDateTime;

use super::{Gateway, error_page};
use crate::error::Error;
use crate::server::Connection;
use crate::telemetry::{AccessRecord, RequestId};

impl Gateway {
    /// Logs a refusal, and puts it into bytes for the client, whose connection is closed after them. `method` and `target` are
    /// what could be read of the first line, "" for nothing.
    pub(crate) fn refuse(&self, error: &Error, method: &str, target: &str, connection: &Connection) -> Bytes {
        let (id, cause) = (RequestId::next(), error.label());
        tracing::debug!(target: "wasgi::request", request = %id, cause, method, path = target, "{error}");
        let response = error_page(error, id);
        let sent = if method == "HEAD" { 0 } else { response.body().len() };
        self.access_log.record(&AccessRecord {
            remote: connection.origin().remote,
            request_id: id,
            method: if method.is_empty() { "-" } else { method },
            target: if target.is_empty() { "-" } else { target },
            version: Version::HTTP_11,
            status: response.status().as_u16(),
            bytes: sent as u64,
            duration: Duration::ZERO,
            cpu: Duration::ZERO,
            app: None,
            cause: Some(cause),
            host: None,
            referer: None,
            user_agent: None,
        });
        to_bytes(&response, sent)
    }

    /// hyper has refused a head that passed our own checks, with an answer of its own: only the logs are told.
    pub(crate) fn was_refused(&self, why: &hyper::Error, connection: &Connection) {
        let error = if why.is_parse_too_large() {
            Error::HeadTooLarge(connection.edge.request_head_bytes)
        } else {
            Error::BadRequest("the target or a field is not HTTP")
        };
        self.refuse(&error, "", "", connection);
    }
}

/// The last response of a connection, with the first `sent` bytes of its body.
fn to_bytes(response: &Response<Bytes>, sent: usize) -> Bytes {
    let now = OffsetDateTime::from(SystemTime::now());
    let date = now.format(time::macros::format_description!(
        "[weekday repr:short], [day] [month repr:short] [year] [hour]:[minute]:[second] GMT"
    ));
    let (status, body) = (response.status(), response.body());
    let mut bytes = format!("HTTP/1.1 {status}\r\n").into_bytes();
    for (name, value) in response.headers() {
        bytes.extend_from_slice(name.as_str().as_bytes());
        bytes.extend_from_slice(b": ");
        bytes.extend_from_slice(value.as_bytes());
        bytes.extend_from_slice(b"\r\n");
    }
    let (date, length) = (date.unwrap_or_default(), body.len());
    write!(bytes, "content-length: {length}\r\ndate: {date}\r\nconnection: close\r\n\r\n")
        .expect("writing to memory does not fail");
    bytes.extend_from_slice(&body[..sent]);
    bytes.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::RequestId;

    #[test]
    fn a_refusal_is_a_whole_response() {
        let error = Error::BadRequest("the secret reason");
        let response = error_page(&error, RequestId::next());
        let text = String::from_utf8(to_bytes(&response, response.body().len()).to_vec()).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 400 Bad Request\r\n"), "{head}");
        assert!(head.contains(&format!("content-length: {}\r\n", body.len())) && head.contains("connection: close"));
        let date = head.lines().find_map(|line| line.strip_prefix("date: ")).unwrap();
        assert!(date.ends_with(" GMT") && date.len() == "Sun, 06 Nov 1994 08:49:37 GMT".len(), "{date}");
        assert!(!text.contains("secret"));
        assert!(to_bytes(&response, 0).ends_with(b"\r\n\r\n"));
    }
}
