//! What a sandbox has open, as far as each is a descriptor of this process: its tenant has a budget of them. Files and folders by WASI
//! 0.2 and 0.3, and sockets. Over it the guest is told that its quota is used up: WASI has no word for too many open files.
//!
//! A file stays open while anything of it is there, a stream that outlives its descriptor, say. So what is counted is asked of the file
//! itself: whether anybody has it still.

use std::collections::HashMap;
use std::fs::File;
use std::sync::{Arc, Weak};

use wasmtime::StoreContextMut;
use wasmtime::component::{Linker, Resource, ResourceType};
use wasmtime_wasi::filesystem::{Descriptor, WasiFilesystem};
use wasmtime_wasi::p3::bindings::filesystem::types as p3;

use crate::account::Held;
use crate::sandbox::State;
use crate::telemetry::LogStream;

/// Files and folders that a guest has opened, by the index in its table.
#[derive(Default)]
pub(crate) struct Opened {
    by_index: HashMap<u32, Open>,
    /// Those whose descriptor is gone: streams may be left.
    lingering: Vec<Open>,
    /// So many may linger before it is looked who does.
    lingering_max: usize,
}

struct Open {
    file: Weak<File>,
    _held: Held,
}

impl Open {
    fn is_closed(&self) -> bool {
        self.file.strong_count() == 0
    }
}

const LINGERING_MIN: usize = 16;

impl Opened {
    fn tidy(&mut self) {
        // What was taken away is closed, though the guest has its descriptor.
        self.by_index.retain(|_, open| !open.is_closed());
        self.lingering.retain(|open| !open.is_closed());
        self.lingering_max = LINGERING_MIN.max(2 * self.lingering.len());
    }

    /// The descriptor is gone from the table.
    pub(super) fn dropped(&mut self, index: u32) {
        let Some(open) = self.by_index.remove(&index).filter(|open| !open.is_closed()) else { return };
        if self.lingering.len() >= self.lingering_max {
            self.tidy();
        }
        self.lingering.push(open);
    }
}

/// Nobody may open more.
pub(crate) struct TooMany;

impl State {
    /// The right to open one more file, folder or socket.
    pub(crate) fn descriptor(&mut self) -> Result<Held, TooMany> {
        if let Some(held) = self.app.account.take_descriptors(1) {
            return Ok(held);
        }
        // Perhaps some are closed already, and nobody has looked.
        self.tidy_spaces();
        self.opened.tidy();
        self.app.account.take_descriptors(1).ok_or_else(|| {
            let line = "it may open nothing more: its tenant has budget.descriptors, or its part of LimitNOFILE";
            self.app.log.line(LogStream::Errors, Some(self.call.id), line.as_bytes());
            TooMany
        })
    }

    /// One was opened.
    pub(crate) fn has_opened(&mut self, fd: &Resource<Descriptor>, held: Held) -> wasmtime::Result<()> {
        let file = match self.table.get(fd)? {
            Descriptor::File(file) => &file.file,
            Descriptor::Dir(folder) => &folder.dir,
        };
        let open = Open { file: Arc::downgrade(file), _held: held };
        self.opened.by_index.insert(fd.rep(), open);
        Ok(())
    }
}

/// Counts what is opened by WASI 0.3. For 0.2 `filesystem` does, which has to know what is opened in any case.
pub(crate) fn link_p3(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    linker.allow_shadowing(true);
    let mut types = linker.instance("wasi:filesystem/types@0.3.0")?;
    types.resource(
        "descriptor",
        ResourceType::host::<Descriptor>(),
        |mut store: StoreContextMut<'_, State>, index| store.data_mut().close(index),
    )?;
    types.func_wrap_concurrent("[method]descriptor.open-at", |accessor, (fd, at, path, open, flags)| {
        Box::pin(async move {
            let Ok(held) = accessor.with(|mut access| access.get().descriptor()) else {
                return Ok((Err(p3::ErrorCode::Quota),));
            };
            let files = accessor.with_getter::<WasiFilesystem>(State::files);
            let opened = p3::HostDescriptorWithStore::open_at(&files, fd, at, path, open, flags).await;
            match opened {
                Ok(fd) => {
                    accessor.with(|mut access| access.get().has_opened(&fd, held))?;
                    Ok((Ok(fd),))
                }
                Err(error) => Ok((Err(error.downcast()?),)),
            }
        })
    })?;
    linker.allow_shadowing(false);
    Ok(())
}
