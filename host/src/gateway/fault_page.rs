//! What a developer is shown of a fault, as `cgitb` did: cause, what the app raised or trapped with, its last lines, the
//! environ, and which files were refused. Development mode alone makes these pages, and for clients on this machine alone.

use std::fmt::Write;
use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header, request};

use super::{Gateway, Record, decode_path, error_page, short_page};
use crate::body::ResponseBody;
use crate::error::Error;
use crate::guest::environ::{Constant, EnvironBlock, Place, authority};
use crate::origin::Origin;
use crate::server::Connection;

/// All that there is to show.
struct Fault {
    status: String,
    cause: &'static str,
    note: &'static str,
    request: String,
    /// What the log says.
    text: String,
    app: Option<String>,
    /// Stream and line.
    lines: Vec<(&'static str, String)>,
    environ: Vec<(String, String)>,
    /// Files that are not served as they are, and why.
    problems: Vec<(String, String)>,
    /// Where something is served; only where the request led nowhere.
    routes: Vec<String>,
}

/// What a page is about.
struct What {
    status: StatusCode,
    cause: &'static str,
    text: String,
    note: &'static str,
}

/// How an app says by itself where an exception was raised: Python's word, in whatever markup.
const TRACEBACK: &[u8] = b"Traceback (most recent call last)";

/// What else proxies say of their clients, or of themselves. It means nothing to the host, but that there is a proxy.
const OF_PROXIES: &[&str] = &[
    "via",
    "x-real-ip",
    "x-client-ip",
    "x-cluster-client-ip",
    "x-original-forwarded-for",
    "true-client-ip",
    "cf-connecting-ip",
    "fastly-client-ip",
    "fly-client-ip",
];

/// No cause of the log's: there, the app has answered.
const CAUGHT: &str = "an exception, which the app has caught and answered by itself";

impl Gateway {
    /// The page for this client; none if it is not, or may not be, on this machine.
    pub(super) fn page_of_fault(
        &self,
        parts: request::Parts,
        error: &Error,
        record: &Record,
    ) -> Option<Response<Bytes>> {
        let what = What { status: error.status(), cause: error.label(), text: error.to_string(), note: NOTE };
        self.page(parts, what, record, error_page(error, record.id))
    }

    /// The page in place of one that an app has made of an exception that it caught, as frameworks do (PEP 3333, `exc_info`). None
    /// where the app's own page has the traceback: a framework that is told to debug knows more than is said here.
    pub(super) fn page_of_caught(
        &self,
        parts: request::Parts,
        response: &Response<ResponseBody>,
        record: &Record,
    ) -> Option<Response<Bytes>> {
        let status = response.status();
        let caught = record.call.as_ref().filter(|_| status.is_server_error())?.witness.take_caught()?;
        if response.body().shows(TRACEBACK) {
            return None;
        }
        let what = What { status, cause: CAUGHT, text: caught, note: NOTE_OF_CAUGHT };
        self.page(parts, what, record, short_page(status, "", record.id))
    }

    fn page(
        &self,
        mut parts: request::Parts,
        what: What,
        record: &Record,
        mut page: Response<Bytes>,
    ) -> Option<Response<Bytes>> {
        let origin = &local_origin(&mut parts, &record.connection)?;
        let path = decode_path(parts.uri.path()).unwrap_or_default().into_owned();
        let prefix = self.resolve(&parts, &path).map_or(0, |(_, length)| length);
        let (script_name, path_info) = path.split_at(prefix);
        let place = Place { script_name, path_info, origin, spooled_bytes: None };
        let spec = record.app.as_ref().map(|app| &app.spec);
        let env = spec.into_iter().flat_map(|spec| &spec.env).map(|(name, value)| (name.as_str(), value.as_str()));
        // Of secrets, this page never has more than their names.
        let secrets =
            spec.into_iter().flat_map(|spec| &spec.secrets).map(|(name, _)| (name.as_str(), "(not shown: a secret)"));
        let environ = EnvironBlock::of_request(&Constant::new(env.chain(secrets)), &parts, &place).into_bytes();

        let table = self.apps.snapshot();
        let problems = table.entries.iter().filter_map(|(name, entry)| {
            let concerns = record.app.as_ref().is_none_or(|app| app.spec.name == *name);
            entry.problem.as_ref().filter(|_| concerns).map(|problem| (name.clone(), problem.reason.clone()))
        });
        let live = table.entries.values().filter_map(|entry| entry.live.as_ref()).filter(|_| record.app.is_none());
        let routes = live.map(|app| {
            let prefixes =
                app.spec.routes.iter().map(|route| if route.prefix.is_empty() { "/" } else { &route.prefix });
            format!("{} at {}", app.spec.name, prefixes.collect::<Vec<_>>().join(", "))
        });
        let fault = Fault {
            status: what.status.to_string(),
            cause: what.cause,
            note: what.note,
            request: record.id.to_string(),
            text: what.text,
            app: record
                .app
                .as_ref()
                .map(|app| format!("{} ({}, {:.12})", app.spec.name, app.release.kind, app.release.hash)),
            lines: record
                .app
                .as_ref()
                .map(|app| app.log.lines_of(record.id))
                .unwrap_or_default()
                .into_iter()
                .map(|(stream, line)| (stream.as_str(), line))
                .collect(),
            environ: variables(&environ),
            problems: problems.collect(),
            routes: routes.collect(),
        };
        let wants_html = parts
            .headers
            .get_all(header::ACCEPT)
            .iter()
            .any(|accept| accept.as_bytes().windows(9).any(|word| word == b"text/html"));
        if wants_html {
            *page.body_mut() = html(&fault).into();
            let headers = page.headers_mut();
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
            // What the app wrote is shown, never run.
            let policy = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'";
            headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(policy));
        } else {
            *page.body_mut() = text(&fault).into();
        }
        page.headers_mut().insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        Some(page)
    }
}

/// Where the request comes from, if that is this machine: by the connection's own end, by what a proxy in front says of the
/// client, and by the name it asks for.
fn local_origin(parts: &mut request::Parts, connection: &Connection) -> Option<Arc<Origin>> {
    let peer = connection.origin();
    let fields = parts.headers.len();
    let origin = match peer.of_request(&mut parts.headers, &connection.trusted) {
        Ok(Some(origin)) => origin,
        Ok(None)
            if parts.headers.len() == fields && !OF_PROXIES.iter().any(|name| parts.headers.contains_key(*name)) =>
        {
            Arc::clone(peer)
        }
        // A proxy that is not trusted passed the request on, or nobody can say for whom one that is did.
        Ok(None) | Err(_) => return None,
    };
    let is_remote = |origin: &Origin| origin.remote.is_some_and(|remote| !remote.is_loopback());
    let is_known = !peer.is_unnamed();
    let is_local =
        is_known && !is_remote(peer) && !is_remote(&origin) && authority(parts).is_some_and(|(host, _)| is_local(host));
    is_local.then_some(origin)
}

/// Whether a name is this machine's whatever the DNS says (RFC 6761 §6.3). Any other one may be a site's that had its own name
/// point here, to read the page in its visitor's browser.
fn is_local(host: &str) -> bool {
    let address = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    match address.parse::<IpAddr>() {
        Ok(address) => address.to_canonical().is_loopback(),
        Err(_) => host.rsplit('.').next().is_some_and(|name| name.eq_ignore_ascii_case("localhost")),
    }
}

/// The block taken apart, sorted, with what looks like a secret left out.
fn variables(block: &[u8]) -> Vec<(String, String)> {
    let mut fields = block.split(|byte| *byte == 0).map(String::from_utf8_lossy);
    let mut variables = Vec::new();
    while let (Some(name), Some(value)) = (fields.next(), fields.next()) {
        let value = if is_secret(&name, &value) { "(not shown: it looks like a secret)" } else { &*value };
        variables.push((printable(&name), printable(value)));
    }
    variables.sort_unstable();
    variables
}

/// Pages are shown to others, copied and photographed.
fn is_secret(name: &str, value: &str) -> bool {
    const WORDS: &[&str] = &["AUTH", "COOKIE", "CREDENTIAL", "KEY", "PASS", "SECRET", "SESSION", "SIGNATURE", "TOKEN"];
    let name = name.to_ascii_uppercase();
    // `postgres://user:password@host`
    let address = value.split_once("://").and_then(|(_, rest)| rest.split('/').next()?.split_once('@'));
    WORDS.iter().any(|word| name.contains(word)) || address.is_some_and(|(user, _)| user.contains(':'))
}

fn printable(text: &str) -> String {
    text.chars().map(|char| if char.is_control() { char::REPLACEMENT_CHARACTER } else { char }).collect()
}

/// Title, and lines: the parts that a page has, empty ones left out.
fn sections(fault: &Fault) -> Vec<(&'static str, Vec<String>)> {
    let pairs = |pairs: &[(String, String)]| pairs.iter().map(|(name, value)| format!("{name} = {value}")).collect();
    let mut sections = vec![("What happened", fault.text.lines().map(str::to_owned).collect::<Vec<_>>())];
    sections.push(("The app", fault.app.iter().cloned().collect()));
    let lines = fault.lines.iter().map(|(stream, line)| format!("{stream}: {line}")).collect();
    sections.push(("What it wrote in this call", lines));
    let problems = fault.problems.iter().map(|(name, reason)| format!("{name}: {reason}")).collect();
    sections.push(("Files that are not served", problems));
    sections.push(("What is served", fault.routes.clone()));
    sections.push(("environ", pairs(&fault.environ)));
    sections.retain(|(_, lines)| !lines.is_empty());
    sections
}

const NOTE: &str =
    "This page is shown by development mode (--dev). Without it, clients get a status and the request id.";
const NOTE_OF_CAUGHT: &str =
    "This page is shown by development mode (--dev). Without it, clients get what the app answers.";

fn text(fault: &Fault) -> String {
    let mut page = format!("{}\n\ncause: {}\n", fault.status, fault.cause);
    for (title, lines) in sections(fault) {
        let _ = write!(page, "\n{title}\n  {}\n", lines.join("\n  "));
    }
    let _ = write!(page, "\n{}\n\nRequest id: {}\n", fault.note, fault.request);
    page
}

fn html(fault: &Fault) -> String {
    let mut page = format!(
        "<!DOCTYPE html><html lang=en><meta charset=utf-8><title>{status}</title><style>{STYLE}</style>\
         <h1>{status}</h1><p>cause: <b>{}</b>",
        escaped(fault.cause),
        status = escaped(&fault.status),
    );
    for (title, lines) in sections(fault) {
        let _ = write!(page, "<h2>{}</h2><pre>{}</pre>", escaped(title), escaped(&lines.join("\n")));
    }
    let _ = writeln!(page, "<p class=note>{}<p>Request id: {}</html>", escaped(fault.note), escaped(&fault.request));
    page
}

const STYLE: &str = "body{font:16px/1.5 sans-serif;max-width:60em;margin:2em auto;padding:0 1em}\
                     h1{color:#a00}pre{background:#f4f4f4;padding:1em;overflow:auto;font:14px/1.4 monospace}.note{color:#666}";

fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for char in text.chars() {
        match char {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            char => safe.push(char),
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_not_shown() {
        for (name, value, secret) in [
            ("HTTP_AUTHORIZATION", "Basic x", true),
            ("HTTP_COOKIE", "a=b", true),
            ("HTTP_PROXY_AUTHORIZATION", "x", true),
            ("SECRET_KEY", "x", true),
            ("db_password", "x", true),
            ("DATABASE_URL", "postgres://user:word@db.example/x", true),
            ("DATABASE_URL", "postgres://db.example/x", false),
            ("HTTP_REFERER", "http://a.example/x@y:z", false),
            ("PATH_INFO", "/x", false),
        ] {
            assert_eq!(is_secret(name, value), secret, "{name} {value}");
        }
    }

    #[test]
    fn names_of_this_machine_are_known() {
        for host in ["localhost", "LocalHost", "app.localhost", "127.0.0.1", "127.8.9.1", "[::1]", "[::ffff:127.0.0.1]"]
        {
            assert!(is_local(host), "{host}");
        }
        for host in
            ["evil.example", "localhost.evil.example", "xlocalhost", "192.0.2.1", "[2001:db8::1]", "0.0.0.0", "a b", ""]
        {
            assert!(!is_local(host), "{host}");
        }
    }

    #[test]
    fn nothing_of_a_fault_becomes_markup() {
        let hostile = "<script>alert('1')</script>&\"";
        let fault = Fault {
            status: hostile.into(),
            cause: "trap",
            note: NOTE,
            request: hostile.into(),
            text: hostile.into(),
            app: Some(hostile.into()),
            lines: vec![("stderr", hostile.into())],
            environ: variables(format!("{hostile}\0{hostile}\0").as_bytes()),
            problems: vec![(hostile.into(), hostile.into())],
            routes: vec![hostile.into()],
        };
        let page = html(&fault);
        assert!(!page.contains("<script") && !page.contains("'1'"), "{page}");
        assert_eq!(page.matches("&lt;script&gt;alert(&#39;1&#39;)").count(), 11);
        assert!(text(&fault).contains(hostile));
    }
}
