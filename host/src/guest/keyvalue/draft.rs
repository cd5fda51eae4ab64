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

said_by_both!();

impl store::HostBucket for State {
    done_by_both!();

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
}

impl atomics::Host for State {
    async fn increment(&mut self, bucket: Resource<Bucket>, key: String, delta: u64) -> Answer<u64> {
        let Ok(delta) = i64::try_from(delta) else { return Ok(Err(Failure::Overflow.into())) };
        let done = self.increment_value(&bucket, key, delta).await?;
        // A number that another program made negative is none here.
        Ok(said(done.and_then(|number| u64::try_from(number).map_err(|_| Failure::NotANumber))))
    }
}
