//! Query strings and forms, urlencoded and multipart: what `cgi.FieldStorage` was for.
//!
//! [`Environ::query`] and [`Environ::form`] collect everything; for uploads that should not be kept in memory there is
//! [`Environ::multipart`], which streams part by part.

use std::fmt;
use std::io::{self, Read};

pub use multipart::{Multipart, Part};

mod multipart;
mod parameters;

use crate::environ::Environ;
use crate::io::Input;

/// How much of a form is kept in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FormLimits {
    /// Bytes of all names, values and files together.
    pub bytes_max: usize,
    /// Fields and files together.
    pub fields_max: usize,
}

impl Default for FormLimits {
    /// 2 MiB, 1000 fields.
    fn default() -> FormLimits {
        FormLimits { bytes_max: 2 * 1024 * 1024, fields_max: 1000 }
    }
}

/// The fields of a query string or a form, in the order in which they were sent. Names may repeat.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Form {
    fields: Vec<(String, String)>,
    files: Vec<Upload>,
}

/// A file of a multipart form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upload {
    /// The name of the form's field.
    pub name: String,
    /// What the client calls the file. It is a stranger's text: never use it as a path.
    pub filename: String,
    /// The client's word for its type; `text/plain` where it sent none.
    pub content_type: String,
    /// The contents.
    pub bytes: Vec<u8>,
}

impl Form {
    /// The fields of `a=1&b=2`. Percent-encoded bytes that are not UTF-8 become U+FFFD.
    pub fn from_query(query: &str) -> Form {
        Form { fields: urlencoded(query.as_bytes()).collect(), files: Vec::new() }
    }

    /// The first value of a field.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.iter().find(|(known, _)| *known == name).map(|(_, value)| value)
    }

    /// All values of a field.
    pub fn get_all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.iter().filter(move |(known, _)| *known == name).map(|(_, value)| value)
    }

    /// All fields that are not files.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.fields.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// The first file of a field.
    pub fn file(&self, name: &str) -> Option<&Upload> {
        self.files.iter().find(|file| file.name == name)
    }

    /// All files.
    pub fn files(&self) -> &[Upload] {
        &self.files
    }

    fn read_urlencoded(reader: impl Read, limits: FormLimits) -> Result<Form, FormError> {
        let mut body = Vec::new();
        reader.take(limits.bytes_max as u64 + 1).read_to_end(&mut body)?;
        if body.len() > limits.bytes_max {
            return Err(FormError::TooLarge);
        }
        let mut form = Form::default();
        for field in urlencoded(&body) {
            form.check_room(limits)?;
            form.fields.push(field);
        }
        Ok(form)
    }

    fn read_multipart<R: Read>(mut parts: Multipart<R>, limits: FormLimits) -> Result<Form, FormError> {
        let mut form = Form::default();
        let mut bytes_left = limits.bytes_max;
        while let Some(mut part) = parts.next_part()? {
            form.check_room(limits)?;
            let labels = part.name().len() + part.filename().map_or(0, str::len);
            bytes_left = bytes_left.checked_sub(labels).ok_or(FormError::TooLarge)?;
            let mut bytes = Vec::new();
            (&mut part).take(bytes_left as u64 + 1).read_to_end(&mut bytes)?;
            bytes_left = bytes_left.checked_sub(bytes.len()).ok_or(FormError::TooLarge)?;
            let name = part.name().to_owned();
            match part.filename().map(str::to_owned) {
                Some(filename) => {
                    let content_type = part.content_type().to_owned();
                    form.files.push(Upload { name, filename, content_type, bytes });
                }
                None => form.fields.push((name, String::from_utf8_lossy(&bytes).into_owned())),
            }
        }
        Ok(form)
    }

    fn check_room(&self, limits: FormLimits) -> Result<(), FormError> {
        if self.fields.len() + self.files.len() < limits.fields_max { Ok(()) } else { Err(FormError::TooManyFields) }
    }
}

fn urlencoded(bytes: &[u8]) -> impl Iterator<Item = (String, String)> {
    form_urlencoded::parse(bytes).map(|(name, value)| (name.into_owned(), value.into_owned()))
}

impl Environ {
    /// The fields of the query string.
    pub fn query(&self) -> Form {
        Form { fields: urlencoded(self.bytes("QUERY_STRING").unwrap_or_default()).collect(), files: Vec::new() }
    }

    /// Reads the request body as a form, urlencoded or multipart, into memory, within the default [`FormLimits`].
    pub fn form(&self) -> Result<Form, FormError> {
        self.form_within(FormLimits::default())
    }

    /// Like [`form`](Environ::form), within other limits.
    pub fn form_within(&self, limits: FormLimits) -> Result<Form, FormError> {
        let content_type = self.content_type().unwrap_or_default();
        let media_type = content_type.split(';').next().unwrap_or_default().trim();
        if media_type.eq_ignore_ascii_case("application/x-www-form-urlencoded") {
            Form::read_urlencoded(self.input(), limits)
        } else {
            Form::read_multipart(self.multipart()?, limits)
        }
    }

    /// Reads the request body as a multipart form, part by part.
    pub fn multipart(&self) -> Result<Multipart<Input>, FormError> {
        Multipart::new(self.input(), &self.content_type().unwrap_or_default())
    }
}

/// Why a request body could not be read as a form.
#[derive(Debug)]
#[non_exhaustive]
pub enum FormError {
    /// The Content-Type is not a form's; says which it is. Answer 415.
    NotAForm(String),
    /// The form breaks the rules of its syntax; says how. Answer 400.
    Malformed(&'static str),
    /// More bytes than the limits allow. Answer 413.
    TooLarge,
    /// More fields than the limits allow. Answer 413.
    TooManyFields,
    /// The body could not be read to its end.
    Io(io::Error),
}

impl fmt::Display for FormError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FormError::NotAForm(content_type) => write!(f, "the content type '{content_type}' is not a form's"),
            FormError::Malformed(how) => write!(f, "malformed form: {how}"),
            FormError::TooLarge => f.write_str("the form has more bytes than allowed"),
            FormError::TooManyFields => f.write_str("the form has more fields than allowed"),
            FormError::Io(error) => write!(f, "the form could not be read: {error}"),
        }
    }
}

impl std::error::Error for FormError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            FormError::Io(error) => Some(error),
            _ => None,
        }
    }
}

impl From<io::Error> for FormError {
    fn from(error: io::Error) -> FormError {
        // A part is read as io::Read, so that its own errors come back wrapped.
        match error.downcast::<FormError>() {
            Ok(own) => own,
            Err(error) => FormError::Io(error),
        }
    }
}

impl From<FormError> for io::Error {
    fn from(error: FormError) -> io::Error {
        match error {
            FormError::Io(error) => error,
            own => io::Error::new(io::ErrorKind::InvalidData, own),
        }
    }
}

#[cfg(test)]
mod tests;
