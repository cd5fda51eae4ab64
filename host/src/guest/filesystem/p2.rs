//! WASI 0.2's functions, as far as they differ: what they write is counted before, and what they tell of times is as the app sees it.

use std::sync::Arc;
use std::time::Duration;

use wasmtime::StoreContextMut;
use wasmtime::component::{Linker, Resource, ResourceType};
use wasmtime_wasi::filesystem::Descriptor;
use wasmtime_wasi::p2::bindings::clocks::wall_clock::Datetime;
use wasmtime_wasi::p2::bindings::filesystem::types::{
    self, DescriptorFlags, DescriptorStat, ErrorCode, HostDescriptor, OpenFlags, PathFlags,
};
use wasmtime_wasi::p2::{DynInputStream, DynOutputStream, FsError, FsResult};

use super::streams::{Guarded, Metered};
use super::{Fd, Known, Space};
use crate::data::{Full, Usage, Volume, blocks};
use crate::guest::descriptors::TooMany;
use crate::guest::streams::{around_input, around_output};
use crate::sandbox::State;

/// In the version that `wasmtime-wasi` offers: what is linked under another would hide the rest of it.
const TYPES: &str = "wasi:filesystem/types@0.2.12";
const PREOPENS: &str = "wasi:filesystem/preopens@0.2.12";

/// Links what is different.
pub(super) fn link(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    type Store<'a> = StoreContextMut<'a, State>;

    linker
        .instance(PREOPENS)?
        .func_wrap("get-directories", |mut store: Store<'_>, ()| Ok((store.data_mut().directories()?,)))?;
    let mut types = linker.instance(TYPES)?;
    types.resource("descriptor", ResourceType::host::<Descriptor>(), |mut store, index| {
        let state: &mut State = store.data_mut();
        state.close(index)
    })?;
    types.func_wrap_async("[method]descriptor.stat", |mut store: Store<'_>, (fd,)| {
        Box::new(async move { Ok((settled(stat(store.data_mut(), fd).await)?,)) })
    })?;
    types.func_wrap_async("[method]descriptor.stat-at", |mut store: Store<'_>, (fd, at, path)| {
        Box::new(async move { Ok((settled(stat_at(store.data_mut(), fd, at, path).await)?,)) })
    })?;
    types.func_wrap("[method]descriptor.read-via-stream", |mut store: Store<'_>, (fd, offset)| {
        Ok((settled(input(store.data_mut(), fd, offset))?,))
    })?;
    types.func_wrap_async("[method]descriptor.open-at", |mut store: Store<'_>, (fd, at, path, open, flags)| {
        Box::new(async move { Ok((settled(open_at(store.data_mut(), fd, at, path, open, flags).await)?,)) })
    })?;
    types.func_wrap_async("[method]descriptor.write", |mut store: Store<'_>, (fd, bytes, offset)| {
        Box::new(async move { Ok((settled(write(store.data_mut(), fd, bytes, offset).await)?,)) })
    })?;
    types.func_wrap("[method]descriptor.write-via-stream", |mut store: Store<'_>, (fd, offset)| {
        Ok((settled(output(store.data_mut(), fd, Some(offset)))?,))
    })?;
    types.func_wrap("[method]descriptor.append-via-stream", |mut store: Store<'_>, (fd,)| {
        Ok((settled(output(store.data_mut(), fd, None))?,))
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

/// What an answer says of times, as the app sees them.
fn seen(state: &State, stat: DescriptorStat) -> DescriptorStat {
    let sight = state.app.sight();
    let see = |time: Option<Datetime>| {
        let moment = time.map(|time| sight.see(Duration::new(time.seconds, time.nanoseconds)));
        moment.map(|moment| Datetime { seconds: moment.as_secs(), nanoseconds: moment.subsec_nanos() })
    };
    DescriptorStat {
        data_access_timestamp: see(stat.data_access_timestamp),
        data_modification_timestamp: see(stat.data_modification_timestamp),
        status_change_timestamp: see(stat.status_change_timestamp),
        ..stat
    }
}

async fn stat(state: &mut State, fd: Fd) -> FsResult<DescriptorStat> {
    let stat = state.files().stat(fd).await?;
    Ok(seen(state, stat))
}

async fn stat_at(state: &mut State, fd: Fd, at: PathFlags, path: String) -> FsResult<DescriptorStat> {
    let stat = state.files().stat_at(fd, at, path).await?;
    Ok(seen(state, stat))
}

impl State {
    /// What is counted of what a descriptor leads to.
    fn known(&self, fd: &Fd) -> Option<Known> {
        self.counted.0.get(&fd.rep()).cloned()
    }

    /// Where a folder is that is counted, if it is one.
    fn folder(&self, fd: &Fd) -> Option<Arc<Space>> {
        self.known(fd).filter(|known| known.file.is_none()).map(|known| known.space)
    }

    /// Counts what is about to come.
    fn take(&self, space: &Space, more: Usage) -> FsResult<()> {
        space.volume.take(more, space.quota).map_err(|full| self.full(space, full))
    }

    /// What there is no room for.
    fn full(&self, space: &Space, full: Full) -> FsError {
        space.note(&self.app, Some(self.call.id), full);
        ErrorCode::InsufficientSpace.into()
    }

    /// What tells apart what a path leads to, without following a link at its end; none where there is nothing.
    async fn key_at(&mut self, fd: &Fd, path: &str) -> Option<u64> {
        let hash = self.files().metadata_hash_at(same(fd), PathFlags::empty(), path.to_owned()).await;
        hash.ok().map(|hash| hash.lower)
    }

    /// What a path leads to, and what it takes.
    async fn look_at(&mut self, fd: &Fd, at: PathFlags, path: &str) -> Option<DescriptorStat> {
        self.files().stat_at(same(fd), at, path.to_owned()).await.ok()
    }
}

/// What one name takes.
fn alone(stat: &DescriptorStat) -> Usage {
    Usage::one(match stat.type_ {
        types::DescriptorType::RegularFile => blocks(stat.size),
        _ => 1,
    })
}

async fn open_at(
    state: &mut State,
    fd: Fd,
    at: PathFlags,
    path: String,
    open: OpenFlags,
    flags: DescriptorFlags,
) -> FsResult<Fd> {
    let held = state.descriptor().map_err(|_: TooMany| ErrorCode::Quota)?;
    let opened = open_in(state, fd, at, path, open, flags).await?;
    state.has_opened(&opened, held).map_err(FsError::trap)?;
    Ok(opened)
}

async fn open_in(
    state: &mut State,
    fd: Fd,
    at: PathFlags,
    path: String,
    open: OpenFlags,
    flags: DescriptorFlags,
) -> FsResult<Fd> {
    let Some(space) = state.folder(&fd) else {
        return state.files().open_at(fd, at, path, open, flags).await;
    };
    let volume = &space.volume;
    let _names = volume.names.lock().await;
    let handle = state.handle(&fd)?;
    let makes = open.contains(OpenFlags::CREATE);
    let found = match makes || open.contains(OpenFlags::TRUNCATE) {
        true => state.look_at(&fd, at, &path).await,
        false => None,
    };
    let made = (makes && found.is_none()).then(|| Usage::one(1));
    if let Some(made) = made {
        state.take(&space, made)?;
    }
    let under_way = volume.begin(handle);
    let opened = state.files().open_at(fd, at, path, open, flags).await;
    let opened = opened.inspect_err(|_| volume.give(made.unwrap_or_default()));
    under_way.ends();
    let opened = opened?;
    let file = match state.table.get(&opened)? {
        Descriptor::File(file) => Some(Arc::clone(&file.file)),
        Descriptor::Dir(_) => None,
    };
    let key = match &file {
        Some(file) => {
            let key = state.files().metadata_hash(same(&opened)).await?.lower;
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
    let known = Known { space: Arc::clone(&space), file: key.map(|(key, _)| key) };
    state.counted.0.insert(opened.rep(), known);
    Ok(opened)
}

async fn write(state: &mut State, fd: Fd, bytes: Vec<u8>, offset: u64) -> FsResult<u64> {
    let Some(Known { space, file: Some(key) }) = state.known(&fd) else {
        return state.files().write(fd, bytes, offset).await;
    };
    // As long as this is there, nobody takes the file for what it is at the moment.
    let handle = state.handle(&fd)?;
    let length = bytes.len() as u64;
    if length > 0 {
        let end = offset.checked_add(length).ok_or(ErrorCode::FileTooLarge)?;
        space.volume.reach(key, end, space.quota).map_err(|full| state.full(&space, full))?;
    }
    let under_way = space.volume.begin(handle);
    let written = state.files().write(fd, bytes, offset).await;
    under_way.ends();
    if !matches!(written, Ok(written) if written == length) {
        space.volume.settle(key);
    }
    written
}

/// A stream that reads from here on.
fn input(state: &mut State, fd: Fd, offset: u64) -> FsResult<Resource<DynInputStream>> {
    let opened = state.files().read_via_stream(fd, offset)?;
    if state.app.has_granted_files() {
        let grip = Arc::clone(&state.app.grip);
        around_input(state.table.get_mut(&opened)?, |stream| Guarded { stream, grip });
    }
    Ok(opened)
}

/// A stream that writes from here on, or at the end.
fn output(state: &mut State, fd: Fd, offset: Option<u64>) -> FsResult<Resource<DynOutputStream>> {
    let known = state.known(&fd);
    // Later only the stream could fail, and C libraries take every failure of a stream for EIO.
    if let Some(Known { space, file: Some(key) }) = &known {
        space.volume.probe(*key, offset, space.quota).map_err(|full| state.full(space, full))?;
    }
    let file = state.handle(&fd)?;
    let opened = match offset {
        Some(offset) => state.files().write_via_stream(fd, offset)?,
        None => state.files().append_via_stream(fd)?,
    };
    if let Some(Known { space, file: Some(key) }) = known {
        let (app, call) = (Arc::clone(&state.app), state.call.id);
        around_output(state.table.get_mut(&opened)?, |stream| {
            Metered::new(stream, space, (key, file), offset, app, call)
        });
    }
    Ok(opened)
}

async fn set_size(state: &mut State, fd: Fd, size: u64) -> FsResult<()> {
    let Some(Known { space, file: Some(key) }) = state.known(&fd) else {
        return state.files().set_size(fd, size).await;
    };
    let handle = state.handle(&fd)?;
    space.volume.reach(key, size, space.quota).map_err(|full| state.full(&space, full))?;
    let under_way = space.volume.begin(handle);
    let done = state.files().set_size(fd, size).await;
    under_way.ends();
    space.volume.settle(key);
    done
}

async fn create_directory_at(state: &mut State, fd: Fd, path: String) -> FsResult<()> {
    let Some(space) = state.folder(&fd) else { return state.files().create_directory_at(fd, path).await };
    let handle = state.handle(&fd)?;
    state.take(&space, Usage::one(1))?;
    let under_way = space.volume.begin(handle);
    let done = state.files().create_directory_at(fd, path).await;
    under_way.ends();
    done.inspect_err(|_| space.volume.give(Usage::one(1)))
}

async fn symlink_at(state: &mut State, fd: Fd, target: String, path: String) -> FsResult<()> {
    let Some(space) = state.folder(&fd) else { return state.files().symlink_at(fd, target, path).await };
    let handle = state.handle(&fd)?;
    state.take(&space, Usage::one(1))?;
    let under_way = space.volume.begin(handle);
    let done = state.files().symlink_at(fd, target, path).await;
    under_way.ends();
    done.inspect_err(|_| space.volume.give(Usage::one(1)))
}

/// Whether two folders are counted together, or both not at all. Between others nothing moves: as between two file systems.
fn together(state: &State, one: &Fd, other: &Fd) -> FsResult<Option<Arc<Space>>> {
    match (state.folder(one), state.folder(other)) {
        (None, None) => Ok(None),
        (Some(one), Some(other)) if Arc::ptr_eq(&one.volume, &other.volume) => Ok(Some(one)),
        _ => Err(ErrorCode::CrossDevice.into()),
    }
}

async fn link_at(state: &mut State, fd: Fd, at: PathFlags, path: String, to: Fd, new: String) -> FsResult<()> {
    let Some(space) = together(state, &fd, &to)? else {
        return state.files().link_at(fd, at, path, to, new).await;
    };
    let volume: &Arc<Volume> = &space.volume;
    let _names = volume.names.lock().await;
    let handle = state.handle(&to)?;
    let stat = state.look_at(&fd, PathFlags::empty(), &path).await.ok_or(ErrorCode::NoEntry)?;
    let key = state.key_at(&fd, &path).await.ok_or(ErrorCode::NoEntry)?;
    let more = match volume.counted(key) {
        Some(length) => Usage::one(blocks(length)),
        None => alone(&stat),
    };
    state.take(&space, more)?;
    let under_way = volume.begin(handle);
    let done = state.files().link_at(fd, at, path, to, new).await;
    under_way.ends();
    match &done {
        Ok(()) => volume.linked(key),
        Err(_) => volume.give(more),
    }
    done
}

async fn unlink_file_at(state: &mut State, fd: Fd, path: String) -> FsResult<()> {
    let Some(space) = state.folder(&fd) else { return state.files().unlink_file_at(fd, path).await };
    let _names = space.volume.names.lock().await;
    let under_way = space.volume.begin(state.handle(&fd)?);
    let (stat, key) = (state.look_at(&fd, PathFlags::empty(), &path).await, state.key_at(&fd, &path).await);
    let done = state.files().unlink_file_at(fd, path).await;
    under_way.ends();
    if let (Ok(()), Some(stat), Some(key)) = (&done, stat, key) {
        space.volume.unlinked(key, alone(&stat));
    }
    done
}

async fn remove_directory_at(state: &mut State, fd: Fd, path: String) -> FsResult<()> {
    let Some(space) = state.folder(&fd) else { return state.files().remove_directory_at(fd, path).await };
    let under_way = space.volume.begin(state.handle(&fd)?);
    let done = state.files().remove_directory_at(fd, path).await;
    under_way.ends();
    if done.is_ok() {
        space.volume.give(Usage::one(1));
    }
    done
}

async fn rename_at(state: &mut State, fd: Fd, path: String, to: Fd, new: String) -> FsResult<()> {
    let Some(space) = together(state, &fd, &to)? else {
        return state.files().rename_at(fd, path, to, new).await;
    };
    let _names = space.volume.names.lock().await;
    let under_way = space.volume.begin(state.handle(&to)?);
    let from = state.key_at(&fd, &path).await;
    let (stat, replaced) = (state.look_at(&to, PathFlags::empty(), &new).await, state.key_at(&to, &new).await);
    let done = state.files().rename_at(fd, path, to, new).await;
    under_way.ends();
    if let (Ok(()), Some(stat), Some(replaced)) = (&done, stat, replaced)
        // Two names of one file stay as they are.
        && from != Some(replaced)
    {
        space.volume.unlinked(replaced, alone(&stat));
    }
    done
}
