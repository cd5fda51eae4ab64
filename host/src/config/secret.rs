//! Secrets: what an operator gives to apps without saying it. Settings name where a secret is; its text is read when an
//! app is loaded, and is never printed.

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::PathBuf;

use toml::Value;
use zeroize::Zeroizing;

use super::file::Given;
use super::{AppNames, ConfigError};

/// A secret's text has at most so many bytes: it goes into every environ.
const SECRET_BYTES_MAX: u64 = 32 << 10;

/// A text that nothing prints, overwritten when it is dropped. Copies that guests were given are theirs.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    pub(crate) fn new(text: String) -> Self {
        Self(Zeroizing::new(text))
    }

    /// To be given to a guest, and to nobody else.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("(a secret)")
    }
}

/// Names and texts of an app's secrets.
pub type Secrets = Vec<(String, Secret)>;

/// Where a secret is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SecretSource {
    File(PathBuf),
    /// A variable of the host's own environment.
    Environment(String),
}

/// A secret that a tenant may have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecretGrant {
    pub source: SecretSource,
    pub apps: AppNames,
}

impl SecretGrant {
    /// `{ file = "…" }` or `{ env = "…" }`, with `apps = [...]` where it is not for all of the tenant's.
    pub(super) fn parse(given: &Given<'_>) -> Result<Self, ConfigError> {
        let wanted = "a place is wanted, { file = \"PATH\" } or { env = \"NAME\" }, and perhaps apps = [\"NAME\"]";
        // The value may be the secret itself, put there by mistake: it is in no message.
        let refused = |reason: &str| given.refuse_key(reason);
        let Value::Table(table) = given.value.as_ref() else { return Err(refused(wanted)) };
        if table.keys().any(|key| !["file", "env", "apps"].contains(&key.as_str())) {
            return Err(refused(wanted));
        }
        let text = |key: &str| table.get(key).map(|value| value.as_str().filter(|text| !text.is_empty()).ok_or(()));
        let source = match (text("file"), text("env")) {
            (Some(Ok(path)), None) => SecretSource::File(given.folder.join(path)),
            (None, Some(Ok(name))) if !name.contains(['=', '\0']) => SecretSource::Environment(name.to_owned()),
            _ => return Err(refused(wanted)),
        };
        let apps = match table.get("apps") {
            Some(apps) => AppNames::parse(&given.part("apps", apps))?,
            None => AppNames::all(),
        };
        Ok(Self { source, apps })
    }

    /// As it is written.
    pub(super) fn toml(&self) -> Value {
        let mut table = toml::Table::new();
        match &self.source {
            SecretSource::File(path) => table.insert("file".to_owned(), path.to_string_lossy().into_owned().into()),
            SecretSource::Environment(name) => table.insert("env".to_owned(), name.clone().into()),
        };
        if self.apps != AppNames::all() {
            table.insert("apps".to_owned(), self.apps.toml());
        }
        Value::Table(table)
    }
}

impl SecretSource {
    /// Reads the text: of a file without the newline at its end.
    ///
    /// # Errors
    /// Says where it should be and why it is not there, and nothing of what is.
    pub fn read(&self) -> Result<Secret, String> {
        match self {
            Self::File(path) => read(path).map_err(|reason| format!("its file {}: {reason}", path.display())),
            Self::Environment(name) => match std::env::var(name) {
                Ok(text) if text.contains('\0') || text.len() as u64 > SECRET_BYTES_MAX => {
                    Err(format!("the host's variable {name} has more than {SECRET_BYTES_MAX} bytes"))
                }
                Ok(text) => Ok(Secret(Zeroizing::new(text))),
                Err(std::env::VarError::NotPresent) => {
                    Err(format!("the host was started without a variable {name} in its environment"))
                }
                Err(std::env::VarError::NotUnicode(_)) => Err(format!("the host's variable {name} is not UTF-8 text")),
            },
        }
    }
}

fn read(path: &std::path::Path) -> Result<Secret, String> {
    let metadata = std::fs::metadata(path).map_err(|error| error.to_string())?;
    // Opening a pipe would wait for its writer.
    if !metadata.is_file() {
        return Err("it is no regular file".to_owned());
    }
    if metadata.len() > SECRET_BYTES_MAX {
        return Err(format!("it has more than {SECRET_BYTES_MAX} bytes"));
    }
    // Room for all of it, so that no copy is left behind where the text grew.
    let mut bytes = Zeroizing::new(Vec::with_capacity(SECRET_BYTES_MAX as usize + 1));
    let opened = File::open(path).and_then(|file| file.take(SECRET_BYTES_MAX + 1).read_to_end(&mut bytes));
    opened.map_err(|error| error.to_string())?;
    if bytes.len() as u64 > SECRET_BYTES_MAX {
        return Err(format!("it has more than {SECRET_BYTES_MAX} bytes"));
    }
    let text = std::str::from_utf8(&bytes).map_err(|_| "it is not UTF-8 text".to_owned())?;
    let text = text.strip_suffix('\n').map_or(text, |text| text.strip_suffix('\r').unwrap_or(text));
    match text.contains('\0') {
        true => Err("it has a NUL".to_owned()),
        false => Ok(Secret(Zeroizing::new(text.to_owned()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_without_its_last_newline_or_refused_without_its_text() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("secret");
        let read = |bytes: &[u8]| {
            std::fs::write(&path, bytes).expect("the file is written");
            SecretSource::File(path.clone()).read()
        };
        for (bytes, expected) in
            [("hush\n", "hush"), ("hush", "hush"), ("hush\r\n", "hush"), ("a\nb\n\n", "a\nb\n"), ("", "")]
        {
            assert_eq!(read(bytes.as_bytes()).expect(bytes).expose(), expected);
        }
        for bytes in [&b"hush\xff"[..], b"hush\0", "hush".repeat(10_000).as_bytes()] {
            let reason = read(bytes).expect_err("it is no text");
            assert!(reason.contains("secret: it ") && !reason.contains("hush"), "{reason}");
        }
        assert!(
            SecretSource::File(folder.path().to_owned())
                .read()
                .is_err_and(|reason| reason.ends_with("no regular file"))
        );
        std::fs::remove_file(&path).expect("it was there");
        assert!(SecretSource::File(path).read().is_err_and(|reason| reason.contains("No such file")));
        let unset = SecretSource::Environment("WASGI_TEST_OF_A_SECRET".to_owned()).read();
        assert!(unset.is_err_and(|reason| reason.contains("without a variable WASGI_TEST_OF_A_SECRET")));
    }

    #[test]
    fn a_secret_prints_nothing_of_itself() {
        let secret = Secret(Zeroizing::new("hush".to_owned()));
        assert_eq!(format!("{:?}", vec![("NAME", &secret)]), "[(\"NAME\", (a secret))]");
    }
}
