//! What an application returns: PEP 3333's iterable of blocks.

use alloc::borrow::Cow;
use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;

use crate::error::{Error, Result};

/// The iterable that an application returns.
///
/// | made with | what the host gets |
/// | --- | --- |
/// | `Body::from("text")`, `String`, `Vec<u8>`, `&[u8]` | one block |
/// | `Body::from(vec![block, …])`, `iterator.collect()` | all blocks at once; their sum is the Content-Length |
/// | [`Body::stream`] | block by block: each is asked for when the client has taken the last |
/// | [`Body::from_reader`] | the same, read from a [`std::io::Read`] |
/// | `FileWrapper` | the rest of a file: in large blocks, with its Content-Length |
///
/// PEP 3333's `close()` is the iterator's [`Drop`]: it runs once, at the end, after an error, or when the client is
/// gone and the instance lives on. An instance that is thrown away instead takes its iterators with it.
pub struct Body(pub(crate) Iterable);

pub(crate) enum Iterable {
    Blocks(Vec<Vec<u8>>),
    Iterator(BlockIterator),
    #[cfg(feature = "std")]
    File(Box<dyn crate::file::Blocks>),
}

pub(crate) type BlockIterator = Box<dyn Iterator<Item = Result<Vec<u8>>>>;

impl Body {
    /// No block at all.
    pub fn empty() -> Body {
        Body(Iterable::Blocks(Vec::new()))
    }

    /// A generator: blocks as the client takes them.
    ///
    /// Items are bytes or text, or a [`Result`](core::result::Result) of them; an error is an exception let through.
    /// An empty block sends nothing.
    pub fn stream<I>(blocks: I) -> Body
    where
        I: IntoIterator<Item: IntoBlock + 'static>,
        I::IntoIter: 'static,
    {
        Body(Iterable::Iterator(Box::new(blocks.into_iter().map(IntoBlock::into_block))))
    }

    /// What a reader yields, in blocks of at most 64 KiB. The reader is dropped at the end.
    #[cfg(feature = "std")]
    pub fn from_reader(mut reader: impl std::io::Read + 'static) -> Body {
        const BLOCK_BYTES_MAX: usize = 64 * 1024;
        Body::stream(core::iter::from_fn(move || {
            let mut block = alloc::vec![0; BLOCK_BYTES_MAX];
            loop {
                match reader.read(&mut block) {
                    Ok(0) => return None,
                    Ok(bytes) => {
                        block.truncate(bytes);
                        return Some(Ok(block));
                    }
                    Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                    Err(error) => return Some(Err(error)),
                }
            }
        }))
    }
}

/// One item of a streamed [`Body`]: bytes, text, or a `Result` of either.
pub trait IntoBlock {
    /// The block, or the error that the application lets through.
    fn into_block(self) -> Result<Vec<u8>>;
}

impl<T: Into<Vec<u8>>, E: Into<Error>> IntoBlock for Result<T, E> {
    fn into_block(self) -> Result<Vec<u8>> {
        self.map(Into::into).map_err(Into::into)
    }
}

macro_rules! blocks {
    ($($kind:ty),+) => { $(
        impl IntoBlock for $kind {
            fn into_block(self) -> Result<Vec<u8>> {
                Ok(self.into())
            }
        }

        impl From<$kind> for Body {
            fn from(block: $kind) -> Body {
                Body(Iterable::Blocks(alloc::vec![block.into()]))
            }
        }
    )+ };
}

blocks!(Vec<u8>, &[u8], String, &str);

impl<const N: usize> From<&[u8; N]> for Body {
    fn from(block: &[u8; N]) -> Body {
        Body::from(&block[..])
    }
}

impl From<Cow<'_, str>> for Body {
    fn from(text: Cow<'_, str>) -> Body {
        Body::from(text.into_owned())
    }
}

impl From<Vec<Vec<u8>>> for Body {
    fn from(blocks: Vec<Vec<u8>>) -> Body {
        Body(Iterable::Blocks(blocks))
    }
}

impl From<()> for Body {
    fn from((): ()) -> Body {
        Body::empty()
    }
}

impl<T: Into<Vec<u8>>> FromIterator<T> for Body {
    fn from_iter<I: IntoIterator<Item = T>>(blocks: I) -> Body {
        Body(Iterable::Blocks(blocks.into_iter().map(Into::into).collect()))
    }
}
