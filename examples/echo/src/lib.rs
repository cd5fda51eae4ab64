//! Shows the environ, parses forms, and measures uploads of any size without keeping them.
//!
//! | path | what it answers |
//! | --- | --- |
//! | `/` | a page with a form for text and one for a file |
//! | `/environ` | every variable, a line each |
//! | `/form` | the fields of the query string and of the form that was sent, and the number of visits from a cookie |
//! | `/upload` | for each part of a multipart form, or for the bare body: bytes and CRC-32 |
//! | `/body` | the request body, as it came |

use std::fmt::Write;
use std::io::Read;

use wasgi::form::FormError;
use wasgi::{Body, Environ, StartResponse};

const TEXT: (&str, &str) = ("Content-Type", "text/plain; charset=utf-8");

#[wasgi::application]
fn app(environ: Environ, start_response: StartResponse) -> wasgi::Result<Body> {
    match &*environ.path_info() {
        "" | "/" => page(&environ, &start_response),
        "/environ" => variables(&environ, &start_response),
        "/form" => answer_form(&start_response, form(&environ)),
        "/upload" => answer_form(&start_response, upload(&environ).map(|text| (text, Vec::new()))),
        "/body" => {
            let content_type = environ.content_type().unwrap_or("application/octet-stream".into());
            start_response.call("200 OK", &[("Content-Type", &content_type)])?;
            Ok(Body::from_reader(environ.input()))
        }
        _ => {
            start_response.call("404 Not Found", &[TEXT])?;
            Ok(Body::from("No such page. Try /environ, /form, /upload or /body.\n"))
        }
    }
}

fn page(environ: &Environ, start_response: &StartResponse) -> wasgi::Result<Body> {
    start_response.call("200 OK", &[("Content-Type", "text/html; charset=utf-8")])?;
    // Where the app is mounted is the operator's choice, so links are put together from SCRIPT_NAME.
    let root = escape(&environ.script_name());
    Ok(Body::from(format!(
        "<!doctype html><title>echo</title>\n\
         <form action=\"{root}/form?from=page\" method=post><input name=text> <button>Send text</button></form>\n\
         <form action=\"{root}/upload\" method=post enctype=\"multipart/form-data\">\
         <input type=file name=file multiple> <button>Send files</button></form>\n\
         <a href=\"{root}/environ\">environ</a>\n"
    )))
}

fn variables(environ: &Environ, start_response: &StartResponse) -> wasgi::Result<Body> {
    let mut text = String::new();
    for (name, value) in environ.iter() {
        writeln!(text, "{name}={value}")?;
    }
    writeln!(text, "wsgi.url_scheme={}", environ.url_scheme().as_str())?;
    writeln!(text, "wsgi.multiprocess={}", environ.multiprocess())?;
    writeln!(text, "wsgi.run_once={}", environ.run_once())?;
    start_response.call("200 OK", &[TEXT])?;
    Ok(Body::from(text))
}

/// The text of an answer, and the cookies to set.
fn form(environ: &Environ) -> Result<(String, Vec<String>), FormError> {
    let mut text = String::new();
    let mut line = |kind: &str, name: &str, value: &str| text.push_str(&format!("{kind} {name}={value}\n"));
    environ
        .query()
        .iter()
        .for_each(|(name, value)| line("query", name, value));
    if environ.method() == "POST" {
        let form = environ.form()?;
        form.iter().for_each(|(name, value)| line("field", name, value));
        for file in form.files() {
            line(
                "file",
                &file.name,
                &format!("{} ({}, {} bytes)", file.filename, file.content_type, file.bytes.len()),
            );
        }
    }
    let mut cookies = environ.cookies();
    let visits = cookies
        .get("visits")
        .and_then(|cookie| cookie.value().parse::<u32>().ok())
        .unwrap_or(0)
        + 1;
    line("cookie", "visits", &visits.to_string());
    cookies.add(("visits", visits.to_string()));
    let cookies = cookies.delta().map(|cookie| cookie.encoded().to_string()).collect();
    Ok((text, cookies))
}

fn upload(environ: &Environ) -> Result<String, FormError> {
    let mut parts = match environ.multipart() {
        Ok(parts) => parts,
        Err(FormError::NotAForm(_)) => return Ok(measure("body", environ.input())?),
        Err(error) => return Err(error),
    };
    let mut text = String::new();
    while let Some(mut part) = parts.next_part()? {
        let label = format!("{} {}", part.name(), part.filename().unwrap_or("-"));
        text.push_str(&measure(&label, &mut part)?);
    }
    Ok(text)
}

fn measure(label: &str, mut reader: impl Read) -> std::io::Result<String> {
    let mut crc = crc32fast::Hasher::new();
    let mut bytes = 0;
    let mut block = vec![0; 64 * 1024];
    loop {
        match reader.read(&mut block)? {
            0 => return Ok(format!("{label}: {bytes} bytes, CRC-32 {:08x}\n", crc.finalize())),
            read => {
                crc.update(&block[..read]);
                bytes += read as u64;
            }
        }
    }
}

/// A form that was not understood is the client's fault, and is answered as such.
fn answer_form(
    start_response: &StartResponse,
    outcome: Result<(String, Vec<String>), FormError>,
) -> wasgi::Result<Body> {
    let status = match &outcome {
        Ok(_) => "200 OK",
        Err(FormError::NotAForm(_)) => "415 Unsupported Media Type",
        Err(FormError::TooLarge | FormError::TooManyFields) => "413 Content Too Large",
        Err(FormError::Malformed(_)) => "400 Bad Request",
        Err(_) => return Err(outcome.map(drop).unwrap_err().into()),
    };
    let (text, cookies) = outcome.unwrap_or_else(|error| (format!("{error}\n"), Vec::new()));
    let mut headers = vec![TEXT];
    headers.extend(cookies.iter().map(|cookie| ("Set-Cookie", cookie.as_str())));
    start_response.call(status, &headers)?;
    Ok(Body::from(text))
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('"', "&quot;")
}
