//! A static file as a response: which of its representations, all of it, a part, or nothing since the client has it.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use headers::{ContentRange, HeaderMapExt, LastModified};
use http::{HeaderValue, Method, Response, StatusCode, header, request};

use super::negotiation::{Condition, Part, coding, condition, part};
use super::{Found, Variant};
use crate::account::Held;
use crate::body::{Block, FileBody, ResponseBody};
use crate::error::{Busy, Error};

/// A file up to this size is read at once, and does not count as being sent.
const WHOLE_BYTES_MAX: u64 = 64 << 10;

impl Found<'_> {
    /// Answers a request for the file that came at `asked`: one of its tenant's, like a call.
    ///
    /// # Errors
    /// If too many come or are being sent, or the file cannot be read.
    pub async fn answer(&self, request: &request::Parts, asked: Instant) -> Result<Response<ResponseBody>, Error> {
        self.assets.gate.count(&self.assets.account, asked).await?;
        if request.method != Method::GET && request.method != Method::HEAD {
            return Ok(method_not_allowed());
        }
        let asset = self.asset;
        let there: Vec<_> = asset.coded.iter().map(|(coding, _)| *coding).collect();
        let coding = coding(&request.headers, &there);
        let coded = asset.coded.iter().find(|(there, _)| Some(*there) == coding);
        let variant = coded.map_or(&asset.plain, |(_, variant)| variant);

        let mut response = Response::new(ResponseBody::empty());
        let headers = response.headers_mut();
        headers.typed_insert(variant.etag.clone());
        headers.typed_insert(LastModified::from(asset.modified));
        // A new release is seen at once; what is unchanged then costs a 304.
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        if !asset.coded.is_empty() {
            headers.insert(header::VARY, HeaderValue::from_static("accept-encoding"));
        }
        match condition(&request.headers, &variant.etag, asset.modified) {
            Condition::Met => {}
            Condition::NotModified => {
                *response.status_mut() = StatusCode::NOT_MODIFIED;
                return Ok(response);
            }
            Condition::Failed => {
                *response.status_mut() = StatusCode::PRECONDITION_FAILED;
                return Ok(response);
            }
        }
        headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
        // RFC 9110 §14.2: Range is for GET alone.
        let part = match request.method {
            Method::GET => part(&request.headers, variant.bytes, &variant.etag, asset.modified),
            _ => Part::Whole,
        };
        let range = match part {
            Part::Whole => 0..variant.bytes,
            Part::Some(range) => {
                let content_range = ContentRange::bytes(range.clone(), variant.bytes);
                headers.typed_insert(content_range.expect("a part that is wanted is not empty"));
                *response.status_mut() = StatusCode::PARTIAL_CONTENT;
                range
            }
            Part::None => {
                headers.typed_insert(ContentRange::unsatisfied_bytes(variant.bytes));
                *response.status_mut() = StatusCode::RANGE_NOT_SATISFIABLE;
                return Ok(response);
            }
        };
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, asset.media_type.clone());
        if let Some((coding, _)) = coded {
            headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static(coding.name()));
        }
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from(range.end - range.start));
        if request.method == Method::GET {
            *response.body_mut() = self.body(variant, range, asked).await?;
        }
        Ok(response)
    }

    async fn body(&self, variant: &Variant, range: Range<u64>, asked: Instant) -> Result<ResponseBody, Error> {
        let (gate, account) = (&self.assets.gate, &self.assets.account);
        let length = range.end - range.start;
        if length > WHOLE_BYTES_MAX {
            let (own, tenants) = gate.pass_large(account, asked).await?;
            let (held, file) = self.opened(variant, Ok).await?;
            return Ok(ResponseBody::file(FileBody::new(file, range, account, (own, tenants, held)), length));
        }
        let _own = gate.pass(account, asked).await?;
        let (room, start) = (Block::small_room(length, account), range.start);
        let whole = self.opened(variant, move |file| Ok(Block::within(room, read(&file, start, length)?)));
        Ok(ResponseBody::ready(vec![whole.await?.1], length))
    }

    /// The file, or what is made of it on a thread that may block; with its descriptor.
    async fn opened<T: Send + 'static>(
        &self,
        variant: &Variant,
        make: impl FnOnce(File) -> io::Result<T> + Send + 'static,
    ) -> Result<(Held, T), Error> {
        let held = self.assets.account.take_descriptors(1).ok_or(Error::Busy(Busy::TenantsDescriptors))?;
        let (tree, path) = (Arc::clone(&self.assets.tree), Arc::clone(&variant.path));
        let made = tokio::task::spawn_blocking(move || make(tree.open(&path)?));
        let failed = |error: io::Error| Error::Host(format!("static file {}: {error}", variant.path.escape_debug()));
        Ok((held, made.await.map_err(io::Error::other).flatten().map_err(failed)?))
    }
}

fn read(file: &File, at: u64, length: u64) -> io::Result<Bytes> {
    let mut bytes = vec![0; usize::try_from(length).map_err(io::Error::other)?];
    file.read_exact_at(&mut bytes, at)?;
    Ok(bytes.into())
}

/// RFC 9110 §15.5.6.
fn method_not_allowed() -> Response<ResponseBody> {
    let text = "405 Method Not Allowed\n\nThis is a file: it can be read only.\n";
    let mut response = Response::new(ResponseBody::one(Bytes::from_static(text.as_bytes())));
    *response.status_mut() = StatusCode::METHOD_NOT_ALLOWED;
    response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}
