//! `wasi:keyvalue` for guests of every kind, in both of its versions. What is asked for is judged, measured and kept by
//! [`crate::keyvalue`]; here are the handles, and what guests are told.

use wasmtime::component::{HasSelf, Linker, Resource};

use crate::keyvalue::{Entry, Failure, Page, Store};
use crate::sandbox::State;
use crate::telemetry::{LogStream, printable};

/// What both versions say in the same words, where the bindings of one are in scope.
macro_rules! said_by_both {
    () => {
        impl From<Failure> for Error {
            fn from(failure: Failure) -> Self {
                match failure {
                    Failure::NoSuchStore => Self::NoSuchStore,
                    Failure::Denied => Self::AccessDenied,
                    failure => Self::Other(failure.to_string()),
                }
            }
        }

        /// What a function of the interface comes to: a failure is the guest's to know, and ends nothing.
        type Answer<T> = wasmtime::Result<Result<T, Error>>;

        fn said<T>(done: Result<T, Failure>) -> Result<T, Error> {
            done.map_err(Error::from)
        }

        impl store::Host for State {
            async fn open(&mut self, identifier: String) -> Answer<Resource<Bucket>> {
                Ok(said(self.open_bucket(&identifier)))
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
    };
}

/// The same of a bucket's methods: all but the list of keys.
macro_rules! done_by_both {
    () => {
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

        fn drop(&mut self, this: Resource<Bucket>) -> wasmtime::Result<()> {
            self.drop_bucket(this)
        }
    };
}

mod draft;
mod draft2;

/// Offers the interfaces.
pub(crate) fn link(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    draft2::Imports::add_to_linker::<_, HasSelf<State>>(linker, |state| state)?;
    draft::Imports::add_to_linker::<_, HasSelf<State>>(linker, |state| state)
}

/// A store that a guest has opened.
pub struct Bucket {
    store: Store,
    /// Where its last list of keys ended, for guests that know that place as a number.
    listed: u64,
    last: Option<String>,
}

/// What is logged of a name that a guest made up.
const NAME_BYTES_MAX: usize = 64;

impl State {
    fn open_bucket(&mut self, name: &str) -> Result<Resource<Bucket>, Failure> {
        let opened = self.app.keyvalue.as_ref().ok_or(Failure::NoSuchStore).and_then(|keyvalue| keyvalue.open(name));
        let store = opened.inspect_err(|failure| {
            let name = printable(name, NAME_BYTES_MAX);
            self.note(&format!("refused the key-value store \"{name}\": {failure}"));
        })?;
        self.keep(Bucket { store, listed: 0, last: None })
    }

    /// A handle for the guest.
    fn keep<T: Send + 'static>(&mut self, resource: T) -> Result<Resource<T>, Failure> {
        self.table.push(resource).map_err(|_| Failure::Handles(self.app.limits.handles))
    }

    fn store(&self, bucket: &Resource<Bucket>) -> wasmtime::Result<Store> {
        Ok(self.table.get(bucket)?.store.clone())
    }

    /// What a limit or the operator refuses is a line of the app's log.
    fn noted<T>(&self, done: Result<T, Failure>) -> Result<T, Failure> {
        if let Err(failure) = &done
            && !matches!(failure, Failure::Stale | Failure::NotANumber | Failure::Overflow)
        {
            self.note(&format!("refused an operation on a key-value store: {failure}"));
        }
        done
    }

    fn note(&self, line: &str) {
        self.app.log.line(LogStream::Errors, Some(self.call.id), line.as_bytes());
    }

    async fn get_values(
        &mut self,
        bucket: &Resource<Bucket>,
        keys: Vec<String>,
    ) -> wasmtime::Result<Result<Vec<Option<(String, Vec<u8>)>>, Failure>> {
        let found = self.store(bucket)?.get(keys.clone()).await;
        let pair = |(key, entry): (String, Option<Entry>)| entry.map(|entry| (key, entry.value));
        Ok(self.noted(found).map(|found| keys.into_iter().zip(found).map(pair).collect()))
    }

    async fn get_value(
        &mut self,
        bucket: &Resource<Bucket>,
        key: &str,
    ) -> wasmtime::Result<Result<Option<Vec<u8>>, Failure>> {
        let found = self.store(bucket)?.get_one(key).await;
        Ok(self.noted(found).map(|entry| entry.map(|entry| entry.value)))
    }

    async fn set_values(
        &mut self,
        bucket: &Resource<Bucket>,
        pairs: Vec<(String, Vec<u8>)>,
    ) -> wasmtime::Result<Result<(), Failure>> {
        let done = self.store(bucket)?.set(pairs).await;
        Ok(self.noted(done))
    }

    async fn delete_values(
        &mut self,
        bucket: &Resource<Bucket>,
        keys: Vec<String>,
    ) -> wasmtime::Result<Result<(), Failure>> {
        let done = self.store(bucket)?.delete(keys).await;
        Ok(self.noted(done))
    }

    async fn has_value(&mut self, bucket: &Resource<Bucket>, key: String) -> wasmtime::Result<Result<bool, Failure>> {
        let found = self.store(bucket)?.exists(key).await;
        Ok(self.noted(found))
    }

    async fn list_keys(
        &mut self,
        bucket: &Resource<Bucket>,
        after: Option<String>,
    ) -> wasmtime::Result<Result<Page, Failure>> {
        let found = self.store(bucket)?.keys(after).await;
        Ok(self.noted(found))
    }

    async fn increment_value(
        &mut self,
        bucket: &Resource<Bucket>,
        key: String,
        delta: i64,
    ) -> wasmtime::Result<Result<i64, Failure>> {
        let done = self.store(bucket)?.increment(key, delta).await;
        Ok(self.noted(done))
    }

    fn drop_bucket(&mut self, bucket: Resource<Bucket>) -> wasmtime::Result<()> {
        self.table.delete(bucket)?;
        Ok(())
    }
}
