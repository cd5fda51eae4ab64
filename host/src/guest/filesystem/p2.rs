//! `wasi:filesystem` where guests write to what is counted: their data. Files are `wasmtime-wasi`'s; here it is counted what becomes of
//! them, and refused what there is no room for. A guest is told what it would be told on a disk that is full.
//!
//! WASI 0.3's part only reads there: nothing counts yet what its streams write. An app that imports it only reads by 0.2, too, whose
//! descriptors it could hand to 0.3's functions.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use rustix::io::Errno;
use wasmtime::StoreContextMut;
use wasmtime::component::{Linker, Resource, ResourceType};
use wasmtime_wasi::filesystem::{Descriptor, WasiFilesystemView};
use wasmtime_wasi::p2::bindings::filesystem::types::{
    DescriptorFlags, ErrorCode, HostDescriptor, OpenFlags, PathFlags,
};
use wasmtime_wasi::p2::bindings::filesystem::{preopens, types};
use wasmtime_wasi::p2::{DynOutputStream, FsError, FsResult, OutputStream, Pollable, StreamError, StreamResult};
use wasmtime_wasi::{FsPerms, async_trait};

use crate::data::{Full, Quota, Usage, Volume, blocks};
use crate::guest::wasi::DATA;
use crate::sandbox::{AppContext, State};
use crate::telemetry::{LogStream, RequestId};

/// In the version that `wasmtime-wasi` offers: what is linked under another would hide the rest of it.
const TYPES: &str = "wasi:filesystem/types@0.2.12";
const PREOPENS: &str = "wasi:filesystem/preopens@0.2.12";

type Fd = Resource<Descriptor>;

/// What a sandbox has open of what is counted, by the index in its table.
#[derive(Default)]
pub(crate) struct Counted(HashMap<u32, Known>);

#[derive(Clone)]
struct Known {
    volume: Arc<Volume>,
    /// What tells a file apart from others; none for a folder.
    file: Option<u64>,
}

/// Offers what is different from `wasmtime-wasi`'s.
pub(crate) fn link_p2(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    type Store<'a> = StoreContextMut<'a, State>;

    linker.allow_shadowing(true);
    linker
        .instance(PREOPENS)?
        .func_wrap("get-directories", |mut store: Store<'_>, ()| Ok((directories(store.data_mut())?,)))?;
    let mut types = linker.instance(TYPES)?;
    types.resource("descriptor", ResourceType::host::<Descriptor>(), |mut store, index| {
        let state: &mut State = store.data_mut();
        state.counted.0.remove(&index);
        HostDescriptor::drop(&mut state.filesystem(), Resource::new_own(index))
    })?;
    types.func_wrap_async("[method]descriptor.open-at", |mut store: Store<'_>, (fd, at, path, open, flags)| {
        Box::new(async move { Ok((settled(open_at(store.data_mut(), fd, at, path, open, flags).await)?,)) })
    })?;
    types.func_wrap_async("[method]descriptor.write", |mut store: Store<'_>, (fd, bytes, offset)| {
        Box::new(async move { Ok((settled(write(store.data_mut(), fd, bytes, offset).await)?,)) })
    })?;
    types.func_wrap("[method]descriptor.write-via-stream", |mut store: Store<'_>, (fd, offset)| {
        Ok((settled(stream(store.data_mut(), fd, Some(offset)))?,))
    })?;
    types.func_wrap("[method]descriptor.append-via-stream", |mut store: Store<'_>, (fd,)| {
        Ok((settled(stream(store.data_mut(), fd, None))?,))
    })?;
    types.func_wrap_async("[method]descriptor.set-size", |mut store: Store<'_>, (fd, size)| {
        Box::new(async move { Ok((settled(set_size(store.data_mut(), fd, size).await)?,)) })
    })?;
    types.func_wrap_async("[method]descriptor.create-directory-at", |mut store: Store<'_>, (fd, path)| {
        Box::new(async move { Ok((settled(create_directory_at(store.data_mut(), fd, path).await)?,)) })
    })?;
    types.func_wrap_async("[method]descriptor.symlink-at", |mut store: Store<'_>, (fd, target, path)| {
        Box::new(async move { Ok((settled(symlink_at(store.data_mut(), fd, target, path).await)?,)) })
    })?;
    types.func_wrap_async("[method]descriptor.link-at", |mut store: Store<'_>, (fd, at, path, to, new)| {
        Box::new(async move { Ok((settled(link_at(store.data_mut(), fd, at, path, to, new).await)?,)) })
    })?;
    types.func_wrap_async("[method]descriptor.unlink-file-at", |mut store: Store<'_>, (fd, path)| {
        Box::new(async move { Ok((settled(unlink_file_at(store.data_mut(), fd, path).await)?,)) })
    })?;
    types.func_wrap_async("[method]descriptor.remove-directory-at", |mut store: Store<'_>, (fd, path)| {
        Box::new(async move { Ok((settled(remove_directory_at(store.data_mut(), fd, path).await)?,)) })
    })?;
    types.func_wrap_async("[method]descriptor.rename-at", |mut store: Store<'_>, (fd, path, to, new)| {
        Box::new(async move { Ok((settled(rename_at(store.data_mut(), fd, path, to, new).await)?,)) })
    })?;
    linker.allow_shadowing(false);
    Ok(())
}

/// Has WASI 0.3's part only read what is counted.
pub(crate) fn link_p3(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    const PREOPENS: &str = "wasi:filesystem/preopens@0.3.0";

    linker.allow_shadowing(true);
    linker.instance(PREOPENS)?.func_wrap("get-directories", |mut store: StoreContextMut<'_, State>, ()| {
        let state = store.data_mut();
        let opened = preopens::Host::get_directories(&mut state.filesystem())?;
        for (fd, _) in opened.iter().filter(|(_, place)| place == DATA) {
            if let Descriptor::Dir(folder) = state.table.get_mut(fd)? {
                folder.perms = FsPerms::ReadOnly;
            }
        }
        Ok((opened,))
    })?;
    linker.allow_shadowing(false);
    Ok(())
}

/// An error for the guest, or one that ends it.
fn settled<T>(result: FsResult<T>) -> wasmtime::Result<Result<T, ErrorCode>> {
    match result {
        Ok(value) => Ok(Ok(value)),
        Err(error) => error.downcast().map(Err),
    }
}

fn same(fd: &Fd) -> Fd {
    Resource::new_borrow(fd.rep())
}

impl State {
    /// What is counted of what a descriptor leads to.
    fn known(&self, fd: &Fd) -> Option<Known> {
        self.counted.0.get(&fd.rep()).cloned()
    }

    /// The folder that is counted, if it is one.
    fn folder(&self, fd: &Fd) -> Option<Arc<Volume>> {
        self.known(fd).filter(|known| known.file.is_none()).map(|known| known.volume)
    }

    fn quota(&self) -> Quota {
        self.app.quota()
    }

    /// What there is no room for.
    fn full(&self, full: Full) -> FsError {
        note(&self.app, Some(self.call.id), full);
        ErrorCode::InsufficientSpace.into()
    }

    /// What tells apart what a path leads to, without following a link at its end; none where there is nothing.
    async fn key_at(&mut self, fd: &Fd, path: &str) -> Option<u64> {
        let hash = self.filesystem().metadata_hash_at(same(fd), PathFlags::empty(), path.to_owned()).await;
        hash.ok().map(|hash| hash.lower)
    }

    /// What a path leads to, and what it takes.
    async fn stat_at(&mut self, fd: &Fd, at: PathFlags, path: &str) -> Option<types::DescriptorStat> {
        self.filesystem().stat_at(same(fd), at, path.to_owned()).await.ok()
    }
}

fn note(app: &AppContext, call: Option<RequestId>, full: Full) {
    app.log.line(LogStream::Errors, call, format!("its data has no room for more: {full}").as_bytes());
}

/// What one name takes.
fn alone(stat: &types::DescriptorStat) -> Usage {
    Usage::one(match stat.type_ {
        types::DescriptorType::RegularFile => blocks(stat.size),
        _ => 1,
    })
}

fn directories(state: &mut State) -> wasmtime::Result<Vec<(Fd, String)>> {
    let opened = preopens::Host::get_directories(&mut state.filesystem())?;
    if let Some(data) = &state.app.data {
        let volume = data.volume();
        for (fd, _) in opened.iter().filter(|(_, place)| place == DATA) {
            state.counted.0.insert(fd.rep(), Known { volume: Arc::clone(volume), file: None });
            if !state.app.writes_data()
                && let Descriptor::Dir(folder) = state.table.get_mut(fd)?
            {
                folder.perms = FsPerms::ReadOnly;
            }
        }
    }
    Ok(opened)
}

async fn open_at(
    state: &mut State,
    fd: Fd,
    at: PathFlags,
    path: String,
    open: OpenFlags,
    flags: DescriptorFlags,
) -> FsResult<Fd> {
    let Some(volume) = state.folder(&fd) else {
        return state.filesystem().open_at(fd, at, path, open, flags).await;
    };
    let _names = volume.names.lock().await;
    let makes = open.contains(OpenFlags::CREATE);
    let found = match makes || open.contains(OpenFlags::TRUNCATE) {
        true => state.stat_at(&fd, at, &path).await,
        false => None,
    };
    let made = (makes && found.is_none()).then(|| Usage::one(1));
    if let Some(made) = made {
        volume.take(made, state.quota()).map_err(|full| state.full(full))?;
    }
    let opened = state.filesystem().open_at(fd, at, path, open, flags).await;
    let opened = opened.inspect_err(|_| volume.give(made.unwrap_or_default()))?;
    let file = match state.table.get(&opened)? {
        Descriptor::File(file) => Some(Arc::clone(&file.file)),
        Descriptor::Dir(_) => None,
    };
    let key = match &file {
        Some(file) => {
            let key = state.filesystem().metadata_hash(same(&opened)).await?.lower;
            // What it was before it was cut.
            let counted = match (&found, made) {
                (Some(stat), _) => stat.size,
                (None, Some(_)) => 0,
                (None, None) => file.metadata()?.len(),
            };
            Some((key, counted))
        }
        None => None,
    };
    if let (Some(file), Some((key, counted))) = (file, key) {
        volume.opened(key, file, counted);
    }
    let known = Known { volume: Arc::clone(&volume), file: key.map(|(key, _)| key) };
    state.counted.0.insert(opened.rep(), known);
    Ok(opened)
}

async fn write(state: &mut State, fd: Fd, bytes: Vec<u8>, offset: u64) -> FsResult<u64> {
    let Some(Known { volume, file: Some(key) }) = state.known(&fd) else {
        return state.filesystem().write(fd, bytes, offset).await;
    };
    let length = bytes.len() as u64;
    if length > 0 {
        let end = offset.checked_add(length).ok_or(ErrorCode::FileTooLarge)?;
        volume.reach(key, end, state.quota()).map_err(|full| state.full(full))?;
    }
    let written = state.filesystem().write(fd, bytes, offset).await;
    if !matches!(written, Ok(written) if written == length) {
        volume.settle(key);
    }
    written
}

/// A stream that writes from here on, or at the end.
fn stream(state: &mut State, fd: Fd, offset: Option<u64>) -> FsResult<Resource<DynOutputStream>> {
    let known = state.known(&fd);
    // Later only the stream could fail, and C libraries take every failure of a stream for EIO.
    if let Some(Known { volume, file: Some(key) }) = &known {
        volume.probe(*key, offset, state.quota()).map_err(|full| state.full(full))?;
    }
    let opened = match offset {
        Some(offset) => state.filesystem().write_via_stream(fd, offset)?,
        None => state.filesystem().append_via_stream(fd)?,
    };
    if let Some(Known { volume, file: Some(key) }) = known {
        let (app, call) = (Arc::clone(&state.app), state.call.id);
        let inner = state.table.get_mut(&opened)?;
        let stream = std::mem::replace(inner, Box::new(Nothing));
        *inner = Box::new(Metered { stream, volume, key, position: offset, app, call });
    }
    Ok(opened)
}

async fn set_size(state: &mut State, fd: Fd, size: u64) -> FsResult<()> {
    let Some(Known { volume, file: Some(key) }) = state.known(&fd) else {
        return state.filesystem().set_size(fd, size).await;
    };
    volume.reach(key, size, state.quota()).map_err(|full| state.full(full))?;
    let done = state.filesystem().set_size(fd, size).await;
    volume.settle(key);
    done
}

async fn create_directory_at(state: &mut State, fd: Fd, path: String) -> FsResult<()> {
    let Some(volume) = state.folder(&fd) else { return state.filesystem().create_directory_at(fd, path).await };
    volume.take(Usage::one(1), state.quota()).map_err(|full| state.full(full))?;
    let done = state.filesystem().create_directory_at(fd, path).await;
    done.inspect_err(|_| volume.give(Usage::one(1)))
}

async fn symlink_at(state: &mut State, fd: Fd, target: String, path: String) -> FsResult<()> {
    let Some(volume) = state.folder(&fd) else { return state.filesystem().symlink_at(fd, target, path).await };
    volume.take(Usage::one(1), state.quota()).map_err(|full| state.full(full))?;
    let done = state.filesystem().symlink_at(fd, target, path).await;
    done.inspect_err(|_| volume.give(Usage::one(1)))
}

/// Whether two folders are counted together, or both not at all. Between others nothing moves: as between two file systems.
fn together(state: &State, one: &Fd, other: &Fd) -> FsResult<Option<Arc<Volume>>> {
    match (state.folder(one), state.folder(other)) {
        (None, None) => Ok(None),
        (Some(one), Some(other)) if Arc::ptr_eq(&one, &other) => Ok(Some(one)),
        _ => Err(ErrorCode::CrossDevice.into()),
    }
}

async fn link_at(state: &mut State, fd: Fd, at: PathFlags, path: String, to: Fd, new: String) -> FsResult<()> {
    let Some(volume) = together(state, &fd, &to)? else {
        return state.filesystem().link_at(fd, at, path, to, new).await;
    };
    let _names = volume.names.lock().await;
    let stat = state.stat_at(&fd, PathFlags::empty(), &path).await.ok_or(ErrorCode::NoEntry)?;
    let key = state.key_at(&fd, &path).await.ok_or(ErrorCode::NoEntry)?;
    let more = match volume.counted(key) {
        Some(length) => Usage::one(blocks(length)),
        None => alone(&stat),
    };
    volume.take(more, state.quota()).map_err(|full| state.full(full))?;
    let done = state.filesystem().link_at(fd, at, path, to, new).await;
    match &done {
        Ok(()) => volume.linked(key),
        Err(_) => volume.give(more),
    }
    done
}

async fn unlink_file_at(state: &mut State, fd: Fd, path: String) -> FsResult<()> {
    let Some(volume) = state.folder(&fd) else { return state.filesystem().unlink_file_at(fd, path).await };
    let _names = volume.names.lock().await;
    let (stat, key) = (state.stat_at(&fd, PathFlags::empty(), &path).await, state.key_at(&fd, &path).await);
    let done = state.filesystem().unlink_file_at(fd, path).await;
    if let (Ok(()), Some(stat), Some(key)) = (&done, stat, key) {
        volume.unlinked(key, alone(&stat));
    }
    done
}

async fn remove_directory_at(state: &mut State, fd: Fd, path: String) -> FsResult<()> {
    let folder = state.folder(&fd);
    let done = state.filesystem().remove_directory_at(fd, path).await;
    if let (Ok(()), Some(volume)) = (&done, folder) {
        volume.give(Usage::one(1));
    }
    done
}

async fn rename_at(state: &mut State, fd: Fd, path: String, to: Fd, new: String) -> FsResult<()> {
    let Some(volume) = together(state, &fd, &to)? else {
        return state.filesystem().rename_at(fd, path, to, new).await;
    };
    let _names = volume.names.lock().await;
    let from = state.key_at(&fd, &path).await;
    let (stat, replaced) = (state.stat_at(&to, PathFlags::empty(), &new).await, state.key_at(&to, &new).await);
    let done = state.filesystem().rename_at(fd, path, to, new).await;
    if let (Ok(()), Some(stat), Some(replaced)) = (&done, stat, replaced)
        // Two names of one file stay as they are.
        && from != Some(replaced)
    {
        volume.unlinked(replaced, alone(&stat));
    }
    done
}

/// What is written to a file that is counted.
struct Metered {
    stream: DynOutputStream,
    volume: Arc<Volume>,
    key: u64,
    /// None at the end of the file.
    position: Option<u64>,
    app: Arc<AppContext>,
    call: RequestId,
}

impl Metered {
    fn count(&mut self, bytes: usize) -> StreamResult<()> {
        let (bytes, quota) = (bytes as u64, self.app.quota());
        let counted = match &mut self.position {
            Some(position) => {
                let end = position.saturating_add(bytes);
                let counted = self.volume.reach(self.key, end, quota);
                if counted.is_ok() {
                    *position = end;
                }
                counted
            }
            None => self.volume.append(self.key, bytes, quota),
        };
        counted.map_err(|full| {
            note(&self.app, Some(self.call), full);
            StreamError::LastOperationFailed(std::io::Error::from(Errno::NOSPC).into())
        })
    }
}

#[async_trait]
impl Pollable for Metered {
    async fn ready(&mut self) {
        self.stream.ready().await;
    }
}

#[async_trait]
impl OutputStream for Metered {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        self.count(bytes.len())?;
        self.stream.write(bytes)
    }

    async fn blocking_write_and_flush(&mut self, bytes: Bytes) -> StreamResult<()> {
        self.count(bytes.len())?;
        self.stream.blocking_write_and_flush(bytes).await
    }

    fn flush(&mut self) -> StreamResult<()> {
        self.stream.flush()
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        self.stream.check_write()
    }

    async fn cancel(&mut self) {
        self.stream.cancel().await;
    }
}

/// Stands for a stream for the moment in which it is wrapped.
struct Nothing;

#[async_trait]
impl Pollable for Nothing {
    async fn ready(&mut self) {}
}

#[async_trait]
impl OutputStream for Nothing {
    fn write(&mut self, _: Bytes) -> StreamResult<()> {
        Err(StreamError::Closed)
    }

    fn flush(&mut self) -> StreamResult<()> {
        Err(StreamError::Closed)
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Err(StreamError::Closed)
    }
}
