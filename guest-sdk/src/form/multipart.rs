//! A multipart form (RFC 7578) as a stream of parts, in constant memory.
//!
//! The crates for this are either asynchronous or unmaintained; the grammar (RFC 2046 §5.1.1) is small. Nested multiparts
//! and transfer encodings, which RFC 7578 deprecates, are not decoded.

use std::io::{self, Read};

use memchr::memmem::Finder;

use super::{FormError, parameters};

/// RFC 2046 §5.1.1.
const BOUNDARY_BYTES_MAX: usize = 70;
const HEADER_BYTES_MAX: usize = 8 * 1024;
const HEADERS_MAX: usize = 16;
/// How much is asked of the reader at a time.
const READ_BYTES: usize = 16 * 1024;

/// A multipart form that is being read.
pub struct Multipart<R> {
    reader: R,
    /// Read but not yet handed out: `buffer[start..]`.
    buffer: Vec<u8>,
    start: usize,
    /// CR LF, two hyphens, the boundary.
    delimiter: Finder<'static>,
    place: Place,
}

#[derive(Clone, Copy, PartialEq)]
enum Place {
    /// Before the delimiter that ends the preamble or a part. So many bytes from `start` are known to be content.
    Content { known: usize },
    /// At a delimiter.
    Delimiter,
    /// Behind the closing delimiter; what follows (the epilogue) is left alone.
    End,
}

/// One field or file of a multipart form. Its contents are read from it; what is left unread is skipped.
pub struct Part<'a, R> {
    form: &'a mut Multipart<R>,
    name: String,
    filename: Option<String>,
    content_type: String,
}

impl<R: Read> Multipart<R> {
    /// A form of the given Content-Type, which names the boundary.
    pub fn new(reader: R, content_type: &str) -> Result<Multipart<R>, FormError> {
        let (media_type, parameters) = parameters::parse(content_type);
        if !media_type.eq_ignore_ascii_case("multipart/form-data") {
            return Err(FormError::NotAForm(media_type.to_owned()));
        }
        let boundary = parameters.into_iter().find(|(name, _)| name == "boundary").map(|(_, value)| value);
        let boundary = boundary.ok_or(FormError::Malformed("the content type names no boundary"))?;
        if boundary.is_empty() || boundary.len() > BOUNDARY_BYTES_MAX {
            return Err(FormError::Malformed("the boundary must have 1 to 70 characters"));
        }
        let delimiter = Finder::new(&["\r\n--", &boundary].concat()).into_owned();
        // The first delimiter may stand at the very beginning, without the line break before it.
        let buffer = b"\r\n".to_vec();
        Ok(Multipart { reader, buffer, start: 0, delimiter, place: Place::Content { known: 0 } })
    }

    /// The next part, or none at the end of the form. Parts without a name break RFC 7578 §4.2 and are an error.
    pub fn next_part(&mut self) -> Result<Option<Part<'_, R>>, FormError> {
        while let Place::Content { .. } = self.place {
            let known = self.look_ahead()?;
            self.start += known;
            self.forget(known);
        }
        if self.place == Place::End || self.pass_delimiter()? == Place::End {
            return Ok(None);
        }
        let (name, filename, content_type) = self.read_headers()?;
        Ok(Some(Part { form: self, name, filename, content_type }))
    }

    /// How many bytes from `start` are content; 0 only at the delimiter.
    fn look_ahead(&mut self) -> Result<usize, FormError> {
        loop {
            match self.place {
                Place::Content { known: 0 } => {}
                Place::Content { known } => return Ok(known),
                Place::Delimiter | Place::End => return Ok(0),
            }
            let unread = &self.buffer[self.start..];
            let known = match self.delimiter.find(unread) {
                Some(0) => {
                    self.place = Place::Delimiter;
                    return Ok(0);
                }
                Some(at) => at,
                // The last bytes may be the beginning of a delimiter.
                None => unread.len().saturating_sub(self.delimiter.needle().len() - 1),
            };
            if known == 0 {
                self.fill()?;
            }
            self.place = Place::Content { known };
        }
    }

    /// So many bytes of known content were handed out.
    fn forget(&mut self, bytes: usize) {
        if let Place::Content { known } = &mut self.place {
            *known -= bytes;
        }
    }

    fn pass_delimiter(&mut self) -> Result<Place, FormError> {
        self.start += self.delimiter.needle().len();
        self.place = Place::End;
        self.need(2)?;
        if self.buffer[self.start..].starts_with(b"--") {
            return Ok(self.place);
        }
        // RFC 2046 allows blanks between a delimiter and its line break.
        while matches!(self.buffer[self.start], b' ' | b'\t') {
            self.start += 1;
            self.need(2)?;
        }
        if !self.buffer[self.start..].starts_with(b"\r\n") {
            return Err(FormError::Malformed("a boundary is not followed by a line break"));
        }
        self.start += 2;
        self.place = Place::Content { known: 0 };
        Ok(self.place)
    }

    /// Name, file name and type of the part that begins here.
    fn read_headers(&mut self) -> Result<(String, Option<String>, String), FormError> {
        loop {
            let unread = &self.buffer[self.start..];
            let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
            match httparse::parse_headers(unread, &mut headers) {
                Ok(httparse::Status::Complete((bytes, headers))) => {
                    let found = describe(headers)?;
                    self.start += bytes;
                    // A part without content: the line break of its headers' end is the delimiter's too.
                    self.start -= 2;
                    if !self.delimiter_follows()? {
                        self.start += 2;
                    }
                    return Ok(found);
                }
                Ok(httparse::Status::Partial) if unread.len() <= HEADER_BYTES_MAX => self.fill()?,
                Ok(httparse::Status::Partial) => return Err(FormError::TooLarge),
                Err(httparse::Error::TooManyHeaders) => {
                    return Err(FormError::Malformed("a part has too many headers"));
                }
                Err(_) => return Err(FormError::Malformed("a part's headers are not headers")),
            }
        }
    }

    fn delimiter_follows(&mut self) -> Result<bool, FormError> {
        let bytes = self.delimiter.needle().len();
        self.need(bytes)?;
        Ok(self.buffer[self.start..].starts_with(self.delimiter.needle()))
    }

    /// Reads on until so many bytes are there.
    fn need(&mut self, bytes: usize) -> Result<(), FormError> {
        while self.buffer.len() - self.start < bytes {
            self.fill()?;
        }
        Ok(())
    }

    /// Reads on; the end is an error, since the closing delimiter is still to come.
    fn fill(&mut self) -> Result<(), FormError> {
        self.buffer.drain(..self.start);
        self.start = 0;
        let filled = self.buffer.len();
        self.buffer.resize(filled + READ_BYTES, 0);
        let bytes = loop {
            match self.reader.read(&mut self.buffer[filled..]) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                outcome => break outcome,
            }
        };
        self.buffer.truncate(filled + *bytes.as_ref().unwrap_or(&0));
        match bytes? {
            0 => Err(FormError::Malformed("it breaks off before its closing boundary")),
            _ => Ok(()),
        }
    }
}

fn describe(headers: &[httparse::Header<'_>]) -> Result<(String, Option<String>, String), FormError> {
    let header = |name: &str| headers.iter().find(|header| header.name.eq_ignore_ascii_case(name));
    let disposition = header("content-disposition").ok_or(FormError::Malformed("a part has no content disposition"))?;
    let disposition = String::from_utf8_lossy(disposition.value);
    let (_, parameters) = parameters::parse(&disposition);
    let mut name = None;
    let mut filename = None;
    for (parameter, value) in parameters {
        match parameter.as_str() {
            "name" => name = Some(value),
            "filename" => filename = Some(value),
            _ => {}
        }
    }
    let name = name.ok_or(FormError::Malformed("a part has no name"))?;
    let content_type = header("content-type").map(|header| String::from_utf8_lossy(header.value).into_owned());
    Ok((name, filename, content_type.unwrap_or_else(|| "text/plain".to_owned())))
}

impl<R> Part<'_, R> {
    /// The name of the form's field.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What the client calls the file; none for a field that is not a file. It is a stranger's text: never use it as a
    /// path.
    pub fn filename(&self) -> Option<&str> {
        self.filename.as_deref()
    }

    /// The client's word for its type; `text/plain` where it sent none.
    pub fn content_type(&self) -> &str {
        &self.content_type
    }
}

impl<R: Read> Read for Part<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let bytes = self.form.look_ahead()?.min(buffer.len());
        let start = self.form.start;
        buffer[..bytes].copy_from_slice(&self.form.buffer[start..start + bytes]);
        self.form.start += bytes;
        self.form.forget(bytes);
        Ok(bytes)
    }
}
