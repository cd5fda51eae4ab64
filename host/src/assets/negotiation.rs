//! What a request says about the representation that it wants (RFC 9110): which coding, whether it has it already, which part. Pure.

use std::ops::Range;
use std::time::SystemTime;

use headers::{ETag, HeaderMapExt, IfMatch, IfModifiedSince, IfNoneMatch, IfRange, IfUnmodifiedSince, LastModified};
use http::{HeaderMap, header};

/// A content coding (RFC 9110 §8.4.1) that files are compressed with beforehand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Coding {
    Brotli,
    Zstandard,
    Gzip,
}

/// What the conditions of a request come to (RFC 9110 §13.2.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Condition {
    Met,
    NotModified,
    Failed,
}

/// The part that is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Part {
    Whole,
    Some(Range<u64>),
    None,
}

impl Coding {
    /// What compresses best goes first.
    pub(super) const ALL: [Self; 3] = [Self::Brotli, Self::Zstandard, Self::Gzip];

    /// As it is named on the wire.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Brotli => "br",
            Self::Zstandard => "zstd",
            Self::Gzip => "gzip",
        }
    }

    /// Of the files that have it.
    pub(super) fn extension(self) -> &'static str {
        match self {
            Self::Brotli => "br",
            Self::Zstandard => "zst",
            Self::Gzip => "gz",
        }
    }
}

/// Of what there is, what the client likes best; none where it is the plain file.
pub(super) fn coding(headers: &HeaderMap, there: &[Coding]) -> Option<Coding> {
    let quality = |coding: Coding| {
        let mut any = 0;
        for item in headers.get_all(header::ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok()) {
            for item in item.split(',') {
                let (name, parameters) = item.split_once(';').unwrap_or((item, ""));
                let name = name.trim();
                if name.eq_ignore_ascii_case(coding.name()) {
                    return weight(parameters);
                }
                if name == "*" {
                    any = weight(parameters);
                }
            }
        }
        any
    };
    // Of several that are best the first one stays.
    let mut best = (0, None);
    for &coding in there {
        let quality = quality(coding);
        if quality > best.0 {
            best = (quality, Some(coding));
        }
    }
    best.1
}

/// `q=0.5` in thousandths (RFC 9110 §12.4.2). What is none counts as a refusal.
fn weight(parameters: &str) -> u32 {
    let Some((name, value)) = parameters.split_once('=') else { return 1000 };
    if !name.trim().eq_ignore_ascii_case("q") {
        return 1000;
    }
    match value.trim().parse::<f32>() {
        // It lies between 0 and 1000.
        Ok(weight) if (0.0..=1.0).contains(&weight) => (weight * 1000.0) as u32,
        _ => 0,
    }
}

/// Whether the request is still meant, by what the client says that it has.
pub(super) fn condition(headers: &HeaderMap, etag: &ETag, modified: SystemTime) -> Condition {
    match (headers.typed_get::<IfMatch>(), headers.typed_get::<IfUnmodifiedSince>()) {
        (Some(wanted), _) if !wanted.precondition_passes(etag) => return Condition::Failed,
        (None, Some(since)) if !since.precondition_passes(modified) => return Condition::Failed,
        _ => {}
    }
    let is_new = match (headers.typed_get::<IfNoneMatch>(), headers.typed_get::<IfModifiedSince>()) {
        (Some(known), _) => known.precondition_passes(etag),
        (None, Some(since)) => since.is_modified(modified),
        (None, None) => true,
    };
    if is_new { Condition::Met } else { Condition::NotModified }
}

/// Which part of `bytes` is wanted. Several parts are answered with the whole, which is allowed (RFC 9110 §14.2).
pub(super) fn part(headers: &HeaderMap, bytes: u64, etag: &ETag, modified: SystemTime) -> Part {
    let Some(text) = headers.get(header::RANGE).and_then(|range| range.to_str().ok()) else { return Part::Whole };
    if headers.contains_key(header::IF_RANGE) {
        // One that cannot be read fits nothing.
        let changed = |known: IfRange| known.is_modified(Some(etag), Some(&LastModified::from(modified)));
        if headers.typed_get::<IfRange>().is_none_or(changed) {
            return Part::Whole;
        }
    }
    match range(text, bytes) {
        Some(range) if range.is_empty() => Part::None,
        Some(range) => Part::Some(range),
        None => Part::Whole,
    }
}

/// RFC 9110 §14.1.2: `bytes=0-99`, `bytes=100-`, `bytes=-100`. Empty where it lies outside; none where it is not one range.
fn range(text: &str, bytes: u64) -> Option<Range<u64>> {
    let (unit, spec) = text.split_once('=')?;
    if !unit.trim().eq_ignore_ascii_case("bytes") {
        return None;
    }
    let (first, last) = spec.trim().split_once('-')?;
    let number = |text: &str| match text.bytes().all(|byte| byte.is_ascii_digit()) {
        // More digits than a number has are beyond every file.
        true if !text.is_empty() => Some(text.parse::<u64>().unwrap_or(u64::MAX)),
        _ => None,
    };
    match (first, last) {
        ("", last) => Some(bytes.saturating_sub(number(last)?)..bytes),
        (first, "") => Some(number(first)?.min(bytes)..bytes),
        (first, last) => {
            let (first, last) = (number(first)?, number(last)?);
            (first <= last).then(|| first.min(bytes)..last.saturating_add(1).min(bytes))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http::{HeaderName, HeaderValue};

    use super::*;

    fn headers(fields: &[(&str, &str)]) -> HeaderMap {
        let field = |(name, value): &(&str, &str)| {
            let name: HeaderName = name.parse().expect("a name");
            (name, HeaderValue::from_str(value).expect("a value"))
        };
        fields.iter().map(field).collect()
    }

    #[test]
    fn the_coding_is_the_one_that_the_client_likes_best() {
        let all = Coding::ALL;
        for (accepted, there, expected) in [
            ("gzip, deflate, br, zstd", &all[..], Some(Coding::Brotli)),
            ("gzip, deflate", &all, Some(Coding::Gzip)),
            ("br;q=0.5, gzip", &all, Some(Coding::Gzip)),
            ("br;q=0, *", &all, Some(Coding::Zstandard)),
            ("*;q=0.1", &all[2..], Some(Coding::Gzip)),
            ("GZIP ; Q=1.0", &all, Some(Coding::Gzip)),
            ("gzip;q=2", &all, None),
            ("gzip;q=NaN", &all, None),
            ("identity", &all, None),
            ("", &all, None),
            ("gzip", &[], None),
        ] {
            assert_eq!(coding(&headers(&[("accept-encoding", accepted)]), there), expected, "{accepted}");
        }
        assert_eq!(coding(&HeaderMap::new(), &all), None);
    }

    #[test]
    fn conditions_are_asked_in_the_order_of_the_rfc() {
        let etag: ETag = "\"abc\"".parse().expect("it is one");
        let modified = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
        let (before, at) = ("Sat, 08 Sep 2001 00:00:00 GMT", "Sun, 09 Sep 2001 01:46:40 GMT");
        for (fields, expected) in [
            (&[][..], Condition::Met),
            (&[("if-none-match", "\"abc\"")], Condition::NotModified),
            (&[("if-none-match", "W/\"abc\", \"x\"")], Condition::NotModified),
            (&[("if-none-match", "*")], Condition::NotModified),
            (&[("if-none-match", "\"x\"")], Condition::Met),
            (&[("if-none-match", "\"x\""), ("if-modified-since", at)], Condition::Met),
            (&[("if-modified-since", at)], Condition::NotModified),
            (&[("if-modified-since", before)], Condition::Met),
            (&[("if-modified-since", "yesterday")], Condition::Met),
            (&[("if-match", "\"x\"")], Condition::Failed),
            (&[("if-match", "\"abc\"")], Condition::Met),
            (&[("if-unmodified-since", before)], Condition::Failed),
            (&[("if-unmodified-since", before), ("if-match", "\"abc\"")], Condition::Met),
        ] {
            assert_eq!(condition(&headers(fields), &etag, modified), expected, "{fields:?}");
        }
    }

    #[test]
    fn parts_are_one_range_or_all_of_it() {
        let etag: ETag = "\"abc\"".parse().expect("it is one");
        let modified = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
        for (text, expected) in [
            ("bytes=0-0", Part::Some(0..1)),
            ("bytes=0-99", Part::Some(0..10)),
            ("bytes=3-", Part::Some(3..10)),
            ("bytes=-3", Part::Some(7..10)),
            ("bytes=-300", Part::Some(0..10)),
            ("Bytes=9-9", Part::Some(9..10)),
            ("bytes=10-", Part::None),
            ("bytes=-0", Part::None),
            ("bytes=99999999999999999999-", Part::None),
            ("bytes=3-2", Part::Whole),
            ("bytes=0-1,3-4", Part::Whole),
            ("bytes=", Part::Whole),
            ("bytes=-", Part::Whole),
            ("bytes=+1-2", Part::Whole),
            ("lines=0-1", Part::Whole),
            ("0-1", Part::Whole),
        ] {
            assert_eq!(part(&headers(&[("range", text)]), 10, &etag, modified), expected, "{text}");
        }
        for (known, expected) in [
            ("\"abc\"", Part::Some(0..1)),
            ("Sun, 09 Sep 2001 01:46:40 GMT", Part::Some(0..1)),
            ("\"x\"", Part::Whole),
            ("W/\"abc\"", Part::Whole),
            ("Sat, 08 Sep 2001 00:00:00 GMT", Part::Whole),
            ("nonsense", Part::Whole),
        ] {
            let fields = headers(&[("range", "bytes=0-0"), ("if-range", known)]);
            assert_eq!(part(&fields, 10, &etag, modified), expected, "{known}");
        }
        assert_eq!(part(&headers(&[("range", "bytes=0-0")]), 0, &etag, modified), Part::None);
    }
}
