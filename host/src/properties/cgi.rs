//! What a CGI program prints, and what a request becomes for it.

use http::header;
use proptest::prelude::*;

use super::{bytes_like, text_like};
use crate::guest::cgi::request::arguments;
use crate::guest::cgi::response::{Form, Response, head_end, parse};
use crate::limits::Limits;

const PIECES: &[&str] = &[
    "Content-Type",
    "Content-Length",
    "Status",
    "Location",
    "X-CGI-A",
    "Transfer-Encoding",
    "Connection",
    ":",
    ": ",
    " ",
    "\t",
    "\n",
    "\r\n",
    "/",
    "//",
    "#",
    "200 OK",
    "404",
    "HTTP/1.1 ",
    "HTTP/1.0 200 OK\n",
    "a/b",
    "Content-Type: a/b\n",
    "\0",
    "é",
];

fn form() -> impl Strategy<Value = Form> {
    prop_oneof![3 => Just(Form::Parsed), 1 => Just(Form::Nph)]
}

proptest! {
    #[test]
    fn a_response_that_passes_cannot_be_misread(text in text_like(PIECES, 16), form in form()) {
        let text = format!("{text}\n\n");
        let Ok(end) = head_end(text.as_bytes(), 0) else { return Err(TestCaseError::fail("there is an empty line")) };
        let bytes = &text.as_bytes()[..end];
        let head = match parse(bytes, form, &Limits::default()) {
            Ok(Response::Document(head)) => head,
            Ok(Response::LocalRedirect(location)) => {
                prop_assert_eq!(form, Form::Parsed);
                prop_assert!(location.starts_with('/') && !location.starts_with("//") && !location.contains('#'));
                prop_assert_eq!(bytes.iter().filter(|byte| **byte == b'\n').count(), 2, "it is the only field");
                return Ok(());
            }
            Err(error) => {
                prop_assert!(!error.to_string().chars().any(char::is_control), "{error}");
                return Ok(());
            }
        };
        for name in [header::CONNECTION, header::TRANSFER_ENCODING, header::CONTENT_LENGTH] {
            prop_assert!(!head.headers.contains_key(&name), "{} passed", name);
        }
        prop_assert!(!head.headers.contains_key("status"));
        prop_assert!(head.headers.values().all(|value| !value.as_bytes().iter().any(u8::is_ascii_control)));
    }

    #[test]
    fn the_end_of_a_head_does_not_depend_on_how_it_comes(
        bytes in bytes_like(b"a:\r\n", 24),
        pieces in prop::collection::vec(1_usize..5, 24),
    ) {
        let (mut there, mut from, mut found) = (0, 0, None);
        for piece in pieces {
            there = (there + piece).min(bytes.len());
            match head_end(&bytes[..there], from) {
                Ok(end) => {
                    found = Some(end);
                    break;
                }
                Err(line) => from = line,
            }
        }
        prop_assert_eq!(found, head_end(&bytes, 0).ok());
    }

    #[test]
    fn no_query_becomes_an_option(query in text_like(&["a", "-", "+", "%2d", "%2D", "=", "%3d", "%00", "%ff", "%20"], 6)) {
        let Ok(uri) = format!("/app?{query}").parse::<http::Uri>() else { return Ok(()) };
        let request = http::Request::get(uri).body(()).expect("a target makes a request").into_parts().0;
        // A fragment, which no client may send, is not in it.
        let query = request.uri.query().unwrap_or("").to_owned();
        let arguments = arguments("app", &request);
        prop_assert_eq!(&arguments[0], "app");
        prop_assert!(arguments[1..].iter().all(|word| !word.starts_with('-') && !word.contains('\0')), "{arguments:?}");
        prop_assert!(!query.contains('=') || arguments.len() == 1);
    }
}
