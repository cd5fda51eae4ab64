//! `wasi:keyvalue` 0.2.0-draft2, as Spin has it.

use wasmtime::component::Resource;

use super::Bucket;
use crate::keyvalue::{Failure, Store};
use crate::sandbox::State;

mod bindings {
    wasmtime::component::bindgen!({
        path: "../wit/deps/keyvalue-draft2",
        world: "imports",
        imports: {
            "wasi:keyvalue/store.[drop]bucket": trappable,
            "wasi:keyvalue/atomics.[drop]cas": trappable,
            default: async | trappable,
        },
        with: {
            "wasi:keyvalue/store.bucket": crate::guest::keyvalue::Bucket,
            "wasi:keyvalue/atomics.cas": super::Cas,
        },
    });
}

pub(super) use bindings::Imports;
use bindings::wasi::keyvalue::atomics::{self, CasError};
use bindings::wasi::keyvalue::batch;
use bindings::wasi::keyvalue::store::{self, Error, KeyResponse};

/// A value as it was at one moment.
pub struct Cas {
    store: Store,
    key: String,
    revision: u64,
}

said_by_both!();

impl store::HostBucket for State {
    done_by_both!();

    async fn list_keys(&mut self, this: Resource<Bucket>, cursor: Option<String>) -> Answer<KeyResponse> {
        let page = State::list_keys(self, &this, cursor).await?;
        Ok(said(page.map(|page| {
            let cursor = page.keys.last().filter(|_| page.goes_on).cloned();
            KeyResponse { keys: page.keys, cursor }
        })))
    }
}

impl State {
    /// A handle of the value as it is now.
    async fn observe(&mut self, store: Store, key: String) -> Result<Resource<Cas>, Failure> {
        let entry = store.get_one(&key).await?;
        let revision = entry.map_or(0, |entry| entry.revision);
        self.keep(Cas { store, key, revision })
    }
}

impl atomics::Host for State {
    async fn increment(&mut self, bucket: Resource<Bucket>, key: String, delta: i64) -> Answer<i64> {
        self.increment_value(&bucket, key, delta).await.map(said)
    }

    async fn swap(&mut self, cas: Resource<Cas>, value: Vec<u8>) -> wasmtime::Result<Result<(), CasError>> {
        let Cas { store, key, revision } = self.table.delete(cas)?;
        let done = store.swap(key.clone(), revision, value).await;
        Ok(match self.noted(done) {
            Err(Failure::Stale) => Err(match self.observe(store, key).await {
                Ok(cas) => CasError::CasFailed(cas),
                Err(failure) => CasError::StoreError(failure.into()),
            }),
            done => done.map_err(|failure| CasError::StoreError(failure.into())),
        })
    }
}

impl atomics::HostCas for State {
    async fn new(&mut self, bucket: Resource<Bucket>, key: String) -> Answer<Resource<Cas>> {
        let store = self.store(&bucket)?;
        let observed = self.observe(store, key).await;
        Ok(said(self.noted(observed)))
    }

    async fn current(&mut self, this: Resource<Cas>) -> Answer<Option<Vec<u8>>> {
        let Cas { store, key, .. } = self.table.get(&this)?;
        let (store, key) = (store.clone(), key.clone());
        let found = store.get_one(&key).await;
        Ok(said(self.noted(found).map(|entry| entry.map(|entry| entry.value))))
    }

    fn drop(&mut self, this: Resource<Cas>) -> wasmtime::Result<()> {
        self.table.delete(this)?;
        Ok(())
    }
}
