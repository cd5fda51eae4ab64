//! What a capsule does not say: header fields that could be somebody's secret, and the secrets that the app was given.

use http::HeaderName;

use crate::config::Secrets;

/// The fields whose values are kept when the operator has not asked for more. A list of what is harmless, since nobody can list what
/// is not: `Authorization`, `Cookie`, `X-Api-Key`, and whatever an app has invented. The access log has no less of them.
const KEPT: &[&str] = &[
    "accept",
    "accept-charset",
    "accept-encoding",
    "accept-language",
    "access-control-request-headers",
    "access-control-request-method",
    "cache-control",
    "content-encoding",
    "content-language",
    "content-length",
    "content-type",
    "date",
    "dnt",
    "expect",
    "host",
    "if-match",
    "if-modified-since",
    "if-none-match",
    "if-range",
    "if-unmodified-since",
    "max-forwards",
    "origin",
    "pragma",
    "priority",
    "range",
    "referer",
    "sec-ch-ua",
    "sec-ch-ua-mobile",
    "sec-ch-ua-platform",
    "sec-fetch-dest",
    "sec-fetch-mode",
    "sec-fetch-site",
    "sec-fetch-user",
    "sec-gpc",
    "te",
    "traceparent",
    "upgrade-insecure-requests",
    "user-agent",
    "via",
    "x-requested-with",
];

pub(super) fn is_harmless(name: &HeaderName) -> bool {
    KEPT.binary_search(&name.as_str()).is_ok()
}

/// A target without the values in its query, at most `bytes_max` of it: reset links and keys of services are in there. The names stay,
/// and of each value the length; what has no name is a value.
pub(super) fn without_query_values(target: &str, bytes_max: usize) -> String {
    let Some((path, query)) = target.split_once('?') else {
        return target[..target.floor_char_boundary(bytes_max)].to_owned();
    };
    let mut left = path[..path.floor_char_boundary(bytes_max)].to_owned();
    for (number, piece) in query.split('&').enumerate() {
        let (name, value) = piece.split_at(piece.find('=').map_or(0, |end| end + 1));
        let length = if value.is_empty() { String::new() } else { format!("({} bytes)", value.len()) };
        let piece = format!("{}{name}{length}", if number == 0 { '?' } else { '&' });
        // Whole pieces, so that all of it can be read.
        if left.len() + piece.len() > bytes_max {
            break;
        }
        left.push_str(&piece);
    }
    left
}

/// The same with as many x in the place of each value; none if no value was left out. No target has a blank of its own.
pub(super) fn with_query_of_x(target: &str) -> Option<String> {
    let (path, query) = target.split_once('?').filter(|(_, query)| query.contains(" bytes)"))?;
    let filled = |piece: &str| {
        let value = piece.rsplit_once('(').and_then(|(name, length)| {
            let length = length.strip_suffix(" bytes)")?.parse::<usize>().ok()?;
            Some(format!("{name}{}", "x".repeat(length.min(QUERY_VALUE_BYTES_MAX))))
        });
        value.unwrap_or_else(|| piece.to_owned())
    };
    let pieces: Vec<_> = query.split('&').map(filled).collect();
    Some(format!("{path}?{}", pieces.join("&")))
}

/// No host has taken a longer one.
const QUERY_VALUE_BYTES_MAX: usize = 1 << 16;

/// Where a page says that a request was made from it: without that page's query.
pub(super) fn without_query(referer: &[u8]) -> &[u8] {
    referer.split(|byte| *byte == b'?').next().unwrap_or_default()
}

/// A shorter secret would blot out words that only look like it.
const SECRET_BYTES_MIN: usize = 4;

/// Takes the app's secrets out of a text: guests print and raise whatever they have.
pub(crate) fn without_secrets(text: String, secrets: &Secrets) -> String {
    secrets.iter().fold(text, |text, (name, secret)| {
        // Logs and tracebacks are kept line by line, and so may be a key of several lines.
        let whole = secret.expose();
        let pieces = std::iter::once(whole).chain(whole.lines().map(str::trim));
        pieces.filter(|piece| piece.len() >= SECRET_BYTES_MIN).fold(text, |text, piece| {
            let in_base64 = |alphabet: &'static [u8; 64]| (0..3).map(move |before| base64(piece, before, alphabet));
            let written = ALPHABETS.into_iter().flat_map(in_base64);
            written.fold(without(text, piece, name), |text, written| without(text, &written, name))
        })
    })
}

fn without(mut text: String, piece: &str, name: &str) -> String {
    let instead = format!("(the secret {name})");
    if text.contains(piece) {
        text = text.replace(piece, &instead);
    }
    // As it stands in a target or a form, where any byte may be written by its number.
    let mut from = 0;
    while let Some((start, end)) = encoded(&text, from, piece) {
        text.replace_range(start..end, &instead);
        from = start + instead.len();
    }
    text
}

/// Of base64, and of its variant for URLs (RFC 4648 §4 and §5).
const ALPHABETS: [&[u8; 64]; 2] = [
    b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/",
    b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_",
];

/// How a piece looks in base64 behind so many bytes (of three: `user:` before a password), whatever these are and what follows. Of the
/// characters at both ends that others have a part in nothing is said: four bits of the piece at most are in each.
fn base64(piece: &str, before: usize, alphabet: &[u8; 64]) -> String {
    let bytes: Vec<u8> = std::iter::repeat_n(0, before).chain(piece.bytes()).collect();
    let characters = (before * 8).div_ceil(6)..bytes.len() * 8 / 6;
    let sextet = |at: usize| {
        let of = |byte: usize| usize::from(bytes.get(byte).copied().unwrap_or(0));
        let byte = at * 6 / 8;
        (of(byte) << 8 | of(byte + 1)) >> (10 - at * 6 % 8) & 0x3f
    };
    characters.map(|at| char::from(alphabet[sextet(at)])).collect()
}

/// Where a piece stands in a text, some of it percent-encoded, from a place on.
fn encoded(text: &str, from: usize, piece: &str) -> Option<(usize, usize)> {
    let rest = &text[from..];
    if !rest.contains(['%', '+']) {
        return None;
    }
    let mut places = rest.char_indices().map(|(place, _)| from + place);
    places.find_map(|start| Some((start, end_of(text.as_bytes(), start, piece.as_bytes())?)))
}

/// Where it ends, if it begins here.
fn end_of(text: &[u8], mut at: usize, piece: &[u8]) -> Option<usize> {
    for wanted in piece {
        let number = || u8::from_str_radix(std::str::from_utf8(text.get(at + 1..at + 3)?).ok()?, 16).ok();
        match *text.get(at)? {
            b'%' if number() == Some(*wanted) => at += 3,
            b'+' if *wanted == b' ' => at += 1,
            found if found == *wanted => at += 1,
            _ => return None,
        }
    }
    Some(at)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Secret;

    #[test]
    fn secrets_are_taken_out_line_by_line_and_however_they_are_written() {
        let key = "-----BEGIN KEY-----\nab/cd+ef==\n  ghi jkl\n-----END KEY-----\nxy";
        let secrets = [("KEY", key), ("SHORT", "abc"), ("WORD", "päss w%rd")];
        let secrets: Secrets = secrets.map(|(name, text)| (name.to_owned(), Secret::new(text.to_owned()))).into();
        for (text, expected) in [
            ("a line with ab/cd+ef== in it", "a line with (the secret KEY) in it"),
            ("ghi jkl", "(the secret KEY)"),
            ("/?k=ab%2Fcd%2bef%3D%3d&x=1", "/?k=(the secret KEY)&x=1"),
            ("/?k=ghi+jkl&l=ghi%20jkl", "/?k=(the secret KEY)&l=(the secret KEY)"),
            ("/?p=p%C3%A4ss+w%25rd", "/?p=(the secret WORD)"),
            ("päss%20w%rd%", "(the secret WORD)%"),
            // Too short to be told from other words, and what only begins like one.
            ("/abc?x=%61bc&y=xy", "/abc?x=%61bc&y=xy"),
            ("/?k=ab%2Fcd&%", "/?k=ab%2Fcd&%"),
        ] {
            assert_eq!(without_secrets(text.to_owned(), &secrets), expected);
        }
        assert_eq!(without_secrets(format!("all: {key}."), &secrets), "all: (the secret KEY).");
    }

    /// Between other bytes, by an encoder of another's: what is left does not say the secret.
    #[test]
    fn secrets_are_taken_out_of_base64_wherever_they_stand_in_it() {
        let secret = "pä?>~ss w%rd?~>";
        let secrets: Secrets = [("WORD".to_owned(), Secret::new(secret.to_owned()))].into();
        for (alphabet, encoded) in [
            ("standard, alone", "cMOkPz5+c3MgdyVyZD9+Pg=="),
            ("standard, u:", "dTpww6Q/Pn5zcyB3JXJkP34+"),
            ("standard, u: and behind it -end", "dTpww6Q/Pn5zcyB3JXJkP34+LWVuZA=="),
            ("standard, x", "eHDDpD8+fnNzIHclcmQ/fj4="),
            ("of URLs, alone", "cMOkPz5-c3MgdyVyZD9-Pg"),
            ("of URLs, u:", "dTpww6Q_Pn5zcyB3JXJkP34-"),
            ("of URLs, x", "eHDDpD8-fnNzIHclcmQ_fj4"),
            ("in a query", "/?k=cMOkPz5%2Bc3MgdyVyZD9%2BPg%3D%3D"),
        ] {
            let text = without_secrets(format!("Basic {encoded}, and more"), &secrets);
            let (before, after) = text.split_once("(the secret WORD)").unwrap_or_else(|| panic!("{alphabet}: {text}"));
            let left = before.len() + after.len() - "Basic , and more".len();
            assert!(left <= 14, "{alphabet}: {text}");
        }
        assert_eq!(without_secrets("cMOkPz5".to_owned(), &secrets), "cMOkPz5", "what only begins like one");
    }

    #[test]
    fn of_a_query_names_are_kept_and_lengths() {
        for (target, expected) in [
            ("/a?token=1234&x=&flag&b=%20=&=c", "/a?token=(4 bytes)&x=&(4 bytes)&b=(4 bytes)&=(1 bytes)"),
            ("/a", "/a"),
            ("/a?", "/a?"),
            ("/a?x?y=(1", "/a?x?y=(2 bytes)"),
            ("*", "*"),
        ] {
            assert_eq!(without_query_values(target, 100), expected);
            if let Some(filled) = with_query_of_x(expected) {
                assert_eq!(filled.len(), target.len());
                assert_eq!(without_query_values(&filled, 100), expected);
            }
        }
        assert_eq!(without_query_values("/abc?a=1&b=2", 16), "/abc?a=(1 bytes)");
        assert_eq!(without_query_values("/abcdef", 4), "/abc");
        assert_eq!(with_query_of_x("/a?b=c"), None);
        assert_eq!(without_query(b"https://a.example/b?token=c"), b"https://a.example/b");
    }

    #[test]
    fn what_is_kept_is_listed_in_order() {
        assert!(KEPT.is_sorted());
    }

    #[test]
    fn fields_that_nobody_has_listed_are_not_kept() {
        for name in ["authorization", "cookie", "proxy-authorization", "x-api-key", "x-csrf-token", "forwarded", "x"] {
            assert!(!is_harmless(&HeaderName::from_static(name)), "{name}");
        }
        assert!(is_harmless(&http::header::CONTENT_TYPE));
    }
}
