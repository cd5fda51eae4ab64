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

/// A shorter secret would blot out words that only look like it.
const SECRET_BYTES_MIN: usize = 4;

/// Takes the app's secrets out of a text: guests print and raise whatever they have.
pub(super) fn without_secrets(text: String, secrets: &Secrets) -> String {
    secrets.iter().fold(text, |text, (name, secret)| {
        // Logs and tracebacks are kept line by line, and so may be a key of several lines.
        let whole = secret.expose();
        let pieces = std::iter::once(whole).chain(whole.lines().map(str::trim));
        pieces.filter(|piece| piece.len() >= SECRET_BYTES_MIN).fold(text, |text, piece| match text.contains(piece) {
            true => text.replace(piece, &format!("(the secret {name})")),
            false => text,
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

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
