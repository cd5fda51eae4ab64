//! The manifest: what the maker of an app says about it. It is the tenant's word, and so has the standing of a sidecar: it asks,
//! and gets no more than the operator allows.

use std::collections::BTreeMap;

use serde::Deserialize;

/// A page of text is enough.
const BYTES_MAX: usize = 64 << 10;
/// The only version there is.
const VERSION: u32 = 1;
/// What is printed of a text.
const LINE_CHARS_MAX: usize = 200;
const NOTES_MAX: usize = 20;

/// What a manifest says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Manifest {
    /// What the app is written in, for people.
    pub language: Option<String>,
    /// Whether its instances should be reused; none leaves it to others.
    pub reuse: Option<bool>,
    /// URL prefixes below the app's place, and the folder or file of the archive that is served there.
    pub assets: BTreeMap<String, String>,
    /// It wants a directory of its own.
    pub data: bool,
    /// For people.
    pub notes: Vec<String>,
}

/// As it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    #[expect(dead_code, reason = "it was asked before; here it is a key that is known")]
    version: u32,
    language: Option<String>,
    instances: Option<Instances>,
    #[serde(rename = "static", default)]
    assets: BTreeMap<String, String>,
    #[serde(default)]
    data: bool,
    #[serde(default)]
    notes: Vec<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Instances {
    Fresh,
    Reuse,
}

/// Another version may have other keys: it is asked first.
#[derive(Deserialize)]
struct Versioned {
    version: u32,
}

impl Manifest {
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, String> {
        if bytes.len() > BYTES_MAX {
            return Err(format!("{} bytes: at most {BYTES_MAX} are allowed", bytes.len()));
        }
        let said: Versioned = serde_json::from_slice(bytes).map_err(|error| line(&error.to_string()))?;
        if said.version != VERSION {
            return Err(format!("version {}, but this host knows version {VERSION}: upgrade the host", said.version));
        }
        let Written { version: _, language, instances, assets, data, notes } =
            serde_json::from_slice(bytes).map_err(|error| line(&error.to_string()))?;
        Ok(Self {
            language: language.map(|language| line(&language)),
            reuse: instances.map(|instances| matches!(instances, Instances::Reuse)),
            assets,
            data,
            notes: notes.iter().take(NOTES_MAX).map(|note| line(note)).collect(),
        })
    }
}

/// A stranger's text as one line of the log or a terminal.
fn line(text: &str) -> String {
    let shown = text.chars().take(LINE_CHARS_MAX);
    shown.map(|char| if char.is_control() { char::REPLACEMENT_CHARACTER } else { char }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_is_read() {
        let text = r#"{"version": 1, "language": "python", "instances": "reuse", "static": {"/static/": "s"},
            "data": true, "notes": ["two\nlines"]}"#;
        let expected = Manifest {
            language: Some("python".to_owned()),
            reuse: Some(true),
            assets: BTreeMap::from([("/static/".to_owned(), "s".to_owned())]),
            data: true,
            notes: vec!["two\u{fffd}lines".to_owned()],
        };
        assert_eq!(Manifest::parse(text.as_bytes()), Ok(expected));
        assert_eq!(Manifest::parse(br#"{"version": 1}"#), Ok(Manifest::default()));
    }

    #[test]
    fn what_is_not_understood_is_refused_with_what_it_was() {
        for (text, words) in [
            ("", "EOF"),
            ("[]", "invalid length"),
            ("{}", "missing field `version`"),
            (r#"{"version": 2, "novelty": 1}"#, "upgrade the host"),
            (r#"{"version": 1, "novelty": 1}"#, "unknown field `novelty`"),
            (r#"{"version": 1, "instances": "rewind"}"#, "unknown variant `rewind`"),
            (r#"{"version": 1, "static": {"/a": 1}}"#, "expected a string"),
        ] {
            let refused = Manifest::parse(text.as_bytes()).expect_err("it should be refused");
            assert!(refused.contains(words), "{text}: {refused}");
        }
        assert!(Manifest::parse(&vec![b' '; BYTES_MAX + 1]).expect_err("it is too long").contains("at most"));
    }
}
