//! What is said of a client: whatever the client says of itself, the word of the proxy that it came to is what counts.

use std::net::IpAddr;
use std::sync::{Arc, LazyLock};

use http::{HeaderMap, HeaderValue};
use proptest::prelude::*;

use super::text_like;
use crate::config::{Config, Settings, TrustedPeers};
use crate::origin::Origin;

const PROXY: &str = "10.0.0.1:4711";
const CLIENT: &str = "192.0.2.7";

static TRUSTED: LazyLock<TrustedPeers> = LazyLock::new(|| {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("wasgi.toml");
    std::fs::write(&path, "forwarded_allow_ips = [\"10.0.0.0/8\"]").expect("the file is written");
    Config::load(&Settings { file: Some(path), ..Settings::default() }).expect("it is right").forwarded_allow_ips
});

const SAID: &[&str] = &[
    "10.0.0.2",
    "203.0.113.1",
    "for=",
    "for=10.0.0.2",
    "proto=https",
    "\"",
    "\\",
    ",",
    ";",
    " ",
    "=",
    "[::1]",
    ":80",
    "unknown",
    "_hidden",
    "by=10.0.0.1",
];

fn origin() -> Arc<Origin> {
    Origin::of_connection(PROXY.parse().ok(), "10.0.0.9:80".parse().ok(), false)
}

/// As a proxy does it: its own word behind what the client said, in the same field or in one of its own.
fn add(headers: &mut HeaderMap, name: &'static str, said: &str, word: &str, same_field: bool) {
    match HeaderValue::from_str(&format!("{said}, {word}")) {
        Ok(both) if same_field => _ = headers.append(name, both),
        _ => {
            if let Ok(said) = HeaderValue::from_str(said) {
                headers.append(name, said);
            }
            headers.append(name, HeaderValue::from_str(word).expect("it is ASCII"));
        }
    }
}

proptest! {
    #[test]
    fn a_client_cannot_say_that_it_is_another(
        said in text_like(SAID, 10),
        standard in any::<bool>(),
        same_field in any::<bool>(),
    ) {
        let mut headers = HeaderMap::new();
        match standard {
            true => add(&mut headers, "forwarded", &said, &format!("for={CLIENT}"), same_field),
            false => add(&mut headers, "x-forwarded-for", &said, CLIENT, same_field),
        }
        // Refused, or what the proxy said: never the client's own word.
        if let Ok(found) = origin().of_request(&mut headers, &TRUSTED) {
            let remote = found.and_then(|found| found.remote);
            prop_assert_eq!(remote, CLIENT.parse::<IpAddr>().ok(), "{:?}", said);
        } else {
            prop_assert!(standard, "{:?}", said);
        }
    }

    #[test]
    fn who_is_not_trusted_says_nothing_to_anybody(
        fields in prop::collection::vec((prop::sample::select(vec![
            "forwarded", "x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "x-forwarded-anything", "x-other",
        ]), text_like(SAID, 6)), 0..6),
    ) {
        let mut headers = HeaderMap::new();
        for (name, said) in &fields {
            if let Ok(said) = HeaderValue::from_str(said) {
                headers.append(*name, said);
            }
        }
        let stranger = Origin::of_connection("203.0.113.9:1".parse().ok(), None, false);
        let others = headers.get_all("x-other").iter().count();
        prop_assert_eq!(stranger.of_request(&mut headers, &TRUSTED).ok(), Some(None));
        prop_assert!(headers.keys().all(|name| name == "x-other"));
        prop_assert_eq!(headers.get_all("x-other").iter().count(), others);
    }
}
