//! The capsule itself: what is said of one call that its app failed. It is a file of JSON, for people and for `jq`.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::{HeaderMap, Method, Uri, Version};
use serde::{Deserialize, Serialize};

use super::Recorder;
use super::redact::{is_harmless, without_query, without_query_values, without_secrets};
use super::witness::Seen;
use crate::config::Secrets;
use crate::sandbox::CallState;
use crate::telemetry::{LogStream, RequestId, printable};

/// Of all header fields together; heads may have a megabyte.
const FIELDS_BYTES_MAX: usize = 64 << 10;
/// Of the target.
const TARGET_BYTES_MAX: usize = 8 << 10;
/// Of what a fault says.
const WORDS_BYTES_MAX: usize = 16 << 10;

/// One call that its app failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Capsule {
    /// The request's, as in the logs and on the page that the client got.
    pub id: String,
    /// RFC 3339.
    pub time: String,
    pub app: String,
    /// None where the app lies in no folder.
    pub tenant: Option<String>,
    /// As in the log: `trap`, `cpu`.
    pub cause: String,
    /// What the log says.
    pub error: String,
    /// The guest's functions, innermost first; or what its language says of an exception.
    pub backtrace: Vec<String>,
    pub release: Release,
    pub used: Used,
    pub request: Request,
    /// The last lines of the app, the newest last.
    pub log: Vec<Line>,
    /// The version of wasgi.
    pub host: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Release {
    /// SHA-256 of the file.
    pub hash: String,
    pub kind: String,
    pub instances: String,
}

/// What the call has used.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Used {
    pub cpu_micros: u64,
    pub wall_micros: u64,
    /// Memories and tables of the sandbox; none where it is not known.
    pub memory_bytes: Option<u64>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    pub method: String,
    pub target: String,
    pub version: String,
    pub https: bool,
    /// Where the app was mounted.
    pub script_name: String,
    pub fields: Vec<Field>,
    /// Fields that there was no room for.
    pub fields_left_out: usize,
    pub body: Body,
}

/// A header field of the request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Field {
    pub name: String,
    pub bytes: usize,
    /// None where it is not kept.
    pub value: Option<Text>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Body {
    /// What had arrived of it when the call failed.
    pub arrived_bytes: u64,
    /// Its beginning, where it is kept.
    pub kept: Option<Text>,
}

/// Bytes that usually are text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Text {
    Text(String),
    Hex(String),
}

/// A line of the app's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    pub stream: String,
    /// It was written by the call that failed.
    pub own: bool,
    pub text: String,
}

impl Text {
    pub fn of(bytes: &[u8]) -> Self {
        match str::from_utf8(bytes) {
            Ok(text) => Self::Text(text.to_owned()),
            Err(_) => Self::Hex(bytes.iter().map(|byte| format!("{byte:02x}")).collect()),
        }
    }

    /// None where it is not what [`Text::of`] makes.
    pub fn bytes(&self) -> Option<Vec<u8>> {
        match self {
            Self::Text(text) => Some(text.clone().into_bytes()),
            Self::Hex(hex) => {
                let pair = |pair: &[u8]| u8::from_str_radix(str::from_utf8(pair).ok()?, 16).ok();
                hex.as_bytes().chunks(2).map(pair).collect()
            }
        }
    }
}

/// What is taken from a call when it fails: all else is done by the thread that writes.
pub(super) struct Draft {
    recorder: Arc<Recorder>,
    id: RequestId,
    time: SystemTime,
    cause: &'static str,
    error: String,
    seen: Seen,
    https: bool,
    script_name_bytes: usize,
    arrived_bytes: u64,
    memory_bytes: Option<u64>,
    cpu: Duration,
    wall: Duration,
    log: Vec<(Option<RequestId>, LogStream, String)>,
    /// Whether all of the request is kept.
    is_whole: bool,
}

impl Draft {
    pub(super) fn new(
        recorder: &Arc<Recorder>,
        call: &CallState,
        cause: &'static str,
        error: String,
        is_whole: bool,
    ) -> Self {
        let witness = &call.witness;
        Self {
            recorder: Arc::clone(recorder),
            id: call.id,
            time: SystemTime::now(),
            cause,
            error,
            seen: witness.take(),
            https: witness.https(),
            script_name_bytes: witness.script_name_bytes(),
            arrived_bytes: witness.input_bytes(),
            memory_bytes: witness.memory_bytes(),
            cpu: call.cpu(),
            wall: call.began.elapsed(),
            log: recorder.log.last_lines(),
            is_whole,
        }
    }

    pub(super) fn recorder(&self) -> &Recorder {
        &self.recorder
    }

    /// The capsule, without anything that it should not have.
    pub(super) fn seal(&self) -> Capsule {
        let recorder = &*self.recorder;
        let clean = |text: &str, bytes_max| printable(&without_secrets(text.to_owned(), &recorder.secrets), bytes_max);
        // The words have the backtrace also where the log had no room for it.
        let words = self.seen.words.as_deref().unwrap_or(&self.error);
        let backtrace = words.lines().skip(1).map(|line| line.strip_prefix("  at ").unwrap_or(line));
        let line = |(request, stream, text): &(Option<RequestId>, LogStream, String)| Line {
            stream: stream.as_str().to_owned(),
            own: *request == Some(self.id),
            text: without_secrets(text.clone(), &recorder.secrets),
        };
        let micros = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        Capsule {
            id: self.id.to_string(),
            time: humantime::format_rfc3339_millis(self.time).to_string(),
            app: recorder.app.clone(),
            tenant: Some(recorder.tenant.clone()).filter(|tenant| !tenant.is_empty()),
            cause: self.cause.to_owned(),
            error: clean(self.error.lines().next().unwrap_or_default(), WORDS_BYTES_MAX),
            backtrace: backtrace.map(|frame| clean(frame, WORDS_BYTES_MAX)).collect(),
            release: Release {
                hash: recorder.hash.clone(),
                kind: recorder.kind.to_string(),
                instances: recorder.instances.clone(),
            },
            used: Used {
                cpu_micros: micros(self.cpu),
                wall_micros: micros(self.wall),
                memory_bytes: self.memory_bytes,
            },
            request: self.request(),
            log: self.log.iter().map(line).collect(),
            host: concat!("wasgi/", env!("CARGO_PKG_VERSION")).to_owned(),
        }
    }

    fn request(&self) -> Request {
        let nothing = HeaderMap::new();
        let (method, uri, version, headers) = match &self.seen.parts {
            Some(parts) => (&parts.method, &parts.uri, parts.version, &parts.headers),
            None => (&Method::GET, &Uri::default(), Version::HTTP_11, &nothing),
        };
        let headers = self.seen.fields.as_deref().unwrap_or(headers);
        let secrets = &self.recorder.secrets;
        let path = crate::gateway::decode_path(uri.path()).unwrap_or_default();
        let script_name = path.get(..self.script_name_bytes).unwrap_or_default();
        let target = uri.path_and_query().map_or("*", http::uri::PathAndQuery::as_str);
        let target = without_secrets(target.to_owned(), secrets);
        let target = match self.is_whole {
            true => cut(&target, TARGET_BYTES_MAX).to_owned(),
            false => without_query_values(&target, TARGET_BYTES_MAX),
        };
        let (fields, fields_left_out) = fields(headers, self.is_whole, secrets);
        Request {
            method: method.to_string(),
            target,
            version: format!("{version:?}"),
            https: self.https,
            script_name: String::from_utf8_lossy(script_name).into_owned(),
            fields,
            fields_left_out,
            body: Body { arrived_bytes: self.arrived_bytes, kept: self.is_whole.then(|| Text::of(&self.seen.body)) },
        }
    }
}

/// The fields that there is room for, and the number of the others.
fn fields(headers: &HeaderMap, is_whole: bool, secrets: &Secrets) -> (Vec<Field>, usize) {
    let mut room = FIELDS_BYTES_MAX;
    let mut fields = Vec::new();
    for (name, value) in headers {
        let is_kept = is_whole || is_harmless(name);
        let kept = match name {
            &http::header::REFERER if !is_whole => without_query(value.as_bytes()),
            _ => value.as_bytes(),
        };
        let bytes = name.as_str().len() + if is_kept { kept.len() } else { 0 };
        if bytes > room {
            continue;
        }
        room -= bytes;
        let value_of = |bytes: &[u8]| match Text::of(bytes) {
            Text::Text(text) if !is_whole => Text::Text(without_secrets(text, secrets)),
            text => text,
        };
        fields.push(Field {
            name: name.as_str().to_owned(),
            bytes: value.len(),
            value: is_kept.then(|| value_of(kept)),
        });
    }
    let left_out = headers.len() - fields.len();
    (fields, left_out)
}

fn cut(text: &str, bytes_max: usize) -> &str {
    &text[..text.floor_char_boundary(bytes_max)]
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn bytes_come_back_as_they_went_in() {
        for bytes in [&b""[..], b"text", "caf\u{e9}\0\n".as_bytes(), b"\xff\x00\x80"] {
            assert_eq!(Text::of(bytes).bytes().as_deref(), Some(bytes));
        }
        assert_eq!(Text::Hex("zz".into()).bytes(), None);
    }

    #[test]
    fn credentials_are_kept_only_as_lengths_and_large_heads_are_cut() {
        let mut headers = HeaderMap::new();
        headers.insert("authorization", HeaderValue::from_static("Bearer hidden"));
        headers.insert("user-agent", HeaderValue::from_static("curl"));
        let (kept, left_out) = fields(&headers, false, &Secrets::new());
        let text = serde_json::to_string(&kept).unwrap();
        assert!(!text.contains("hidden") && text.contains("authorization") && text.contains("curl"), "{text}");
        assert_eq!(left_out, 0);
        let (kept, _) = fields(&headers, true, &Secrets::new());
        assert!(serde_json::to_string(&kept).unwrap().contains("hidden"));

        for number in 0..200 {
            let name = http::HeaderName::try_from(format!("accept-{number}")).unwrap();
            headers.insert(name, HeaderValue::try_from("x".repeat(1 << 10)).unwrap());
        }
        let (kept, left_out) = fields(&headers, true, &Secrets::new());
        assert!(left_out > 100 && kept.len() + left_out == headers.len(), "{left_out}");
        assert!(kept.iter().map(|field| field.bytes).sum::<usize>() <= FIELDS_BYTES_MAX);
    }
}
