//! The host's own files and tests of memories, around a kernel that Miri can run.

#[path = "../../../host/src/sandbox"]
mod sandbox {
    pub(crate) mod step;

    pub(crate) mod memory {
        mod beginning;
        mod image;
        mod pool;
        mod region;
        mod scan;

        use std::io;
        use std::sync::Arc;

        use beginning::{begins_with, begun_with};
        use image::{Image, MemoryImages};
        use pool::{Lease, Pool, Shelves};
        use region::PAGE_BYTES;
        use scan::Scanner;

        #[cfg(test)]
        mod tests;
    }
}
