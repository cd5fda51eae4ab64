//! `wasi:keyvalue` 0.2.0-draft, as wasmCloud and `wasmtime serve` have it.

use wasmtime::component::Resource;

use super::Bucket;
use crate::keyvalue::Failure;
use crate::sandbox::State;

mod bindings {
    wasmtime::component::bindgen!({
        path: "../wit/deps/keyvalue-draft",
        world: "imports",
        imports: {
            "wasi:keyvalue/store.[drop]bucket": trappable,
            default: async | trappable,
        },
        with: { "wasi:keyvalue/store.bucket": crate::guest::keyvalue::Bucket },
    });
}

pub(super) use bindings::Imports;
use bindings::wasi::keyvalue::store::{self, Error, KeyResponse};
use bindings::wasi::keyvalue::{atomics, batch};

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::NoSuchStore => Self::NoSuchStore,
            Failure::Denied => Self::AccessDenied,
            failure => Self::Other(failure.to_string()),
        }
    }
}

type Answer<T> = wasmtime::Result<Result<T, Error>>;

fn said<T>(done: Result<T, Failure>) -> Result<T, Error> {
    done.map_err(Error::from)
}

impl store::Host for State {
    async fn open(&mut self, identifier: String) -> Answer<Resource<Bucket>> {
        Ok(said(self.open_bucket(&identifier)))
    }
}

impl store::HostBucket for State {
    async fn get(&mut self, this: Resource<Bucket>, key: String) -> Answer<Option<Vec<u8>>> {
        self.get_value(&this, &key).await.map(said)
    }

    async fn set(&mut self, this: Resource<Bucket>, key: String, value: Vec<u8>) -> Answer<()> {
        self.set_values(&this, vec![(key, value)]).await.map(said)
    }

    async fn delete(&mut self, this: Resource<Bucket>, key: String) -> Answer<()> {
        self.delete_values(&this, vec![key]).await.map(said)
    }

    async fn exists(&mut self, this: Resource<Bucket>, key: String) -> Answer<bool> {
        self.has_value(&this, key).await.map(said)
    }

    /// A cursor is the number of keys that came before: where that is the bucket remembers.
    async fn list_keys(&mut self, this: Resource<Bucket>, cursor: Option<u64>) -> Answer<KeyResponse> {
        let bucket = self.table.get(&this)?;
        let before = cursor.unwrap_or(0);
        let after = match before {
            0 => None,
            _ if before == bucket.listed => bucket.last.clone(),
            _ => return Ok(Err(Error::Other("no list of this bucket's ended at that cursor".to_owned()))),
        };
        let page = match State::list_keys(self, &this, after).await? {
            Ok(page) => page,
            Err(failure) => return Ok(Err(failure.into())),
        };
        let bucket = self.table.get_mut(&this)?;
        bucket.listed = before + page.keys.len() as u64;
        bucket.last = page.keys.last().cloned();
        let cursor = page.goes_on.then_some(bucket.listed);
        Ok(Ok(KeyResponse { keys: page.keys, cursor }))
    }

    fn drop(&mut self, this: Resource<Bucket>) -> wasmtime::Result<()> {
        self.drop_bucket(this)
    }
}

impl atomics::Host for State {
    async fn increment(&mut self, bucket: Resource<Bucket>, key: String, delta: u64) -> Answer<u64> {
        let Ok(delta) = i64::try_from(delta) else { return Ok(Err(Failure::Overflow.into())) };
        let done = self.increment_value(&bucket, key, delta).await?;
        // A number that another program made negative is none here.
        Ok(said(done.and_then(|number| u64::try_from(number).map_err(|_| Failure::NotANumber))))
    }
}

impl batch::Host for State {
    async fn get_many(
        &mut self,
        bucket: Resource<Bucket>,
        keys: Vec<String>,
    ) -> Answer<Vec<Option<(String, Vec<u8>)>>> {
        self.get_values(&bucket, keys).await.map(said)
    }

    async fn set_many(&mut self, bucket: Resource<Bucket>, key_values: Vec<(String, Vec<u8>)>) -> Answer<()> {
        self.set_values(&bucket, key_values).await.map(said)
    }

    async fn delete_many(&mut self, bucket: Resource<Bucket>, keys: Vec<String>) -> Answer<()> {
        self.delete_values(&bucket, keys).await.map(said)
    }
}
