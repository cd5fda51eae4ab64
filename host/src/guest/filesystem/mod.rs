//! `wasi:filesystem` for guests of every kind. Files are `wasmtime-wasi`'s. Here is added:
//!
//! - what guests write to their data and to directories that they were granted is counted, and refused where there is no room for it
//!   ([`p2`]): a guest is told what it would be told on a disk that is full;
//! - what was taken away is gone, for calls that run, too: whatever they have open leads to nothing from then on;
//! - times of files are as coarse as the app's clocks.
//!
//! WASI 0.3's part only reads what is counted: nothing counts yet what its streams write. An app that imports it only reads by 0.2,
//! too, whose descriptors it could hand to 0.3's functions.

mod p2;
mod streams;

use std::collections::HashMap;
use std::fs::File;
use std::sync::Arc;
use std::time::Duration;

use wasmtime::StoreContextMut;
use wasmtime::component::{Accessor, Linker, Resource, ResourceTableError};
use wasmtime_wasi::filesystem::{Descriptor, OpenMode, WasiFilesystem, WasiFilesystemCtxView, WasiFilesystemView};
use wasmtime_wasi::p2::bindings::filesystem::types::HostDescriptor;
use wasmtime_wasi::{FsPerms, p2 as wasi_p2, p3 as wasi_p3};

use crate::data::{Directory, Full, Quota, Volume};
use crate::guest::wasi::DATA;
use crate::sandbox::{AppContext, State};
use crate::telemetry::{LogStream, RequestId};

type Fd = Resource<Descriptor>;

/// A place that guests may write to.
pub(crate) struct Space {
    /// Where they see it: `/data`, `/media`.
    place: String,
    volume: Arc<Volume>,
    quota: Quota,
}

impl Space {
    /// All that there are of an app.
    pub(crate) fn of(app: &AppContext) -> Vec<Arc<Self>> {
        let data = app.data.iter().map(|data| Self {
            place: DATA.to_owned(),
            volume: Arc::clone(data.volume()),
            quota: Quota { bytes_max: app.limits.data_bytes, names_max: app.limits.data_files },
        });
        let directories = app.directories.iter().filter_map(|directory| {
            let quota = Quota { bytes_max: directory.spec.bytes_max, names_max: directory.spec.names_max };
            Some(Self { place: directory.spec.place.clone(), volume: Arc::clone(directory.volume()?), quota })
        });
        data.chain(directories).map(Arc::new).collect()
    }

    /// Says in the app's log that there is no room.
    fn note(&self, app: &AppContext, call: Option<RequestId>, full: Full) {
        let line = match (self.place.as_str(), full) {
            (DATA, Full::Bytes(max)) => format!("its data has no room for more: limits.data_size = {max} bytes"),
            (DATA, Full::Names(max)) => format!("its data has no room for more: limits.data_files = {max}"),
            (place, Full::Bytes(max)) => format!("{place} has no room for more: size = {max} bytes of its grant"),
            (place, Full::Names(max)) => format!("{place} has no room for more: files = {max} of its grant"),
            (place, Full::Budget) => {
                format!("{place} has no room for more: budget.disk or budget.disk_files of all that the tenant keeps")
            }
        };
        app.log.line(LogStream::Errors, call, line.as_bytes());
    }
}

/// What a sandbox has open of what is counted, by the index in its table.
#[derive(Default)]
pub(crate) struct Counted(HashMap<u32, Known>);

#[derive(Clone)]
struct Known {
    space: Arc<Space>,
    /// What tells a file apart from others; none for a folder.
    file: Option<u64>,
}

impl State {
    /// Its files, unless something was taken away that was among them: then all that it has open leads to nothing. Every function of
    /// `wasi:filesystem` comes by here.
    pub(in crate::guest) fn files(&mut self) -> WasiFilesystemCtxView<'_> {
        if !self.app.grip.has_files() {
            self.cut();
        }
        self.filesystem()
    }

    fn cut(&mut self) {
        for descriptor in self.table.iter_mut().filter_map(|entry| entry.downcast_mut::<Descriptor>()) {
            let nothing = self.app.grip.nothing();
            match descriptor {
                Descriptor::File(file) => {
                    (file.file, file.perms, file.open_mode) = (nothing, FsPerms::ReadOnly, OpenMode::empty());
                }
                // No path leads anywhere from what is no directory.
                Descriptor::Dir(folder) => {
                    (folder.dir, folder.perms, folder.open_mode) = (nothing, FsPerms::ReadOnly, OpenMode::empty());
                }
            }
        }
        self.counted.0.clear();
    }

    /// Its directories, those to write to as they are counted.
    fn directories(&mut self) -> wasmtime::Result<Vec<(Fd, String)>> {
        let preopened = self.preopened();
        let mut opened = Vec::with_capacity(preopened.len());
        for (directory, place) in preopened {
            opened.push((self.table.push(Descriptor::Dir(directory))?, place));
        }
        if !self.app.grip.has_files() {
            self.cut();
            return Ok(opened);
        }
        self.app.directories.iter().for_each(Directory::refresh);
        for space in self.app.spaces() {
            space.volume.tidy();
            let Some((fd, _)) = opened.iter().find(|(_, place)| *place == space.place) else { continue };
            self.counted.0.insert(fd.rep(), Known { space: Arc::clone(space), file: None });
            if !self.app.writes_files()
                && let Descriptor::Dir(folder) = self.table.get_mut(fd)?
            {
                folder.perms = FsPerms::ReadOnly;
            }
        }
        Ok(opened)
    }

    /// The guest gives a descriptor back.
    pub(in crate::guest) fn close(&mut self, index: u32) -> wasmtime::Result<()> {
        let known = self.counted.0.remove(&index);
        HostDescriptor::drop(&mut self.files(), Resource::new_own(index))?;
        if let Some(Known { space, file: Some(key) }) = known {
            space.volume.closed(key);
        }
        self.opened.dropped(index);
        Ok(())
    }

    /// Looks at what is counted which files are closed.
    pub(in crate::guest) fn tidy_spaces(&self) {
        self.app.spaces().iter().for_each(|space| space.volume.tidy());
    }

    /// What the host has open for a descriptor.
    fn handle(&self, fd: &Fd) -> Result<Arc<File>, ResourceTableError> {
        Ok(match self.table.get(fd)? {
            Descriptor::File(file) => Arc::clone(&file.file),
            Descriptor::Dir(folder) => Arc::clone(&folder.dir),
        })
    }
}

/// Offers what is different from `wasmtime-wasi`'s.
pub(crate) fn link_p2(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    use wasi_p2::bindings::filesystem::{preopens, types};

    linker.allow_shadowing(true);
    types::add_to_linker::<State, WasiFilesystem>(linker, State::files)?;
    preopens::add_to_linker::<State, WasiFilesystem>(linker, State::files)?;
    p2::link(linker)?;
    linker.allow_shadowing(false);
    Ok(())
}

/// The same for WASI 0.3, where nobody writes to what is counted.
pub(crate) fn link_p3(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    use wasi_p3::bindings::filesystem::{preopens, types};
    use wasi_p3::filesystem::FilesystemResult;

    const TYPES: &str = "wasi:filesystem/types@0.3.0";
    const PREOPENS: &str = "wasi:filesystem/preopens@0.3.0";
    type Answer = wasmtime::Result<(Result<types::DescriptorStat, types::ErrorCode>,)>;

    /// With times as the app sees them.
    fn seen(accessor: &Accessor<State>, stat: FilesystemResult<types::DescriptorStat>) -> Answer {
        let sight = accessor.with(|mut access| access.get().app.sight());
        let see = |time: Option<types::Instant>| {
            let time = time?;
            let moment = sight.see(Duration::new(u64::try_from(time.seconds).unwrap_or(0), time.nanoseconds));
            let seconds = i64::try_from(moment.as_secs()).unwrap_or(i64::MAX);
            Some(types::Instant { seconds, nanoseconds: moment.subsec_nanos() })
        };
        let stat = match stat {
            Ok(stat) => stat,
            Err(error) => return Ok((Err(error.downcast()?),)),
        };
        Ok((Ok(types::DescriptorStat {
            data_access_timestamp: see(stat.data_access_timestamp),
            data_modification_timestamp: see(stat.data_modification_timestamp),
            status_change_timestamp: see(stat.status_change_timestamp),
            ..stat
        }),))
    }

    linker.allow_shadowing(true);
    types::add_to_linker::<State, WasiFilesystem>(linker, State::files)?;
    preopens::add_to_linker::<State, WasiFilesystem>(linker, State::files)?;
    linker.instance(PREOPENS)?.func_wrap("get-directories", |mut store: StoreContextMut<'_, State>, ()| {
        Ok((store.data_mut().directories()?,))
    })?;
    let mut types = linker.instance(TYPES)?;
    types.func_wrap_concurrent("[method]descriptor.stat", |accessor: &Accessor<State>, (fd,): (Fd,)| {
        Box::pin(async move {
            let files = accessor.with_getter::<WasiFilesystem>(State::files);
            seen(accessor, types::HostDescriptorWithStore::stat(&files, fd).await)
        })
    })?;
    types.func_wrap_concurrent(
        "[method]descriptor.stat-at",
        |accessor: &Accessor<State>, (fd, at, path): (Fd, types::PathFlags, String)| {
            Box::pin(async move {
                let files = accessor.with_getter::<WasiFilesystem>(State::files);
                seen(accessor, types::HostDescriptorWithStore::stat_at(&files, fd, at, path).await)
            })
        },
    )?;
    linker.allow_shadowing(false);
    Ok(())
}
