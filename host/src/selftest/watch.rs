//! The processes of a host's compilers, looked at again and again: what each of them has taken.

use std::fmt;
use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use super::stand::status_bytes;
use crate::deploy::compile::SUBCOMMAND;

/// The most that any of them has taken.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Used {
    /// Address space, which is what `compile_memory` bounds.
    pub(super) address_bytes: u64,
    /// Processor time.
    pub(super) time: Duration,
}

impl fmt::Display for Used {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:.1?} of a processor, {} MiB of address space", self.time, self.address_bytes >> 20)
    }
}

pub(super) struct CompilerWatch {
    stop: Arc<AtomicBool>,
    looking: JoinHandle<Used>,
}

impl CompilerWatch {
    pub(super) fn begin(host: u32) -> Self {
        let stop = Arc::<AtomicBool>::default();
        let stopped = Arc::clone(&stop);
        let looking = std::thread::spawn(move || {
            let mut most = Used::default();
            while !stopped.load(Ordering::Relaxed) {
                for child in children(host).into_iter().filter(|child| is_compiler(*child)) {
                    most.address_bytes = most.address_bytes.max(status_bytes(child, "VmPeak:"));
                    most.time = most.time.max(processor_time(child));
                }
                std::thread::sleep(Duration::from_millis(5));
            }
            most
        });
        Self { stop, looking }
    }

    pub(super) fn end(self) -> Used {
        self.stop.store(true, Ordering::Relaxed);
        self.looking.join().unwrap_or_default()
    }
}

/// Until it has become another program, it looks as the host does.
fn is_compiler(process: u32) -> bool {
    let line = fs::read(format!("/proc/{process}/cmdline")).unwrap_or_default();
    line.split(|byte| *byte == 0).nth(1) == Some(SUBCOMMAND.as_bytes())
}

/// Processes that any thread of this one has started.
fn children(process: u32) -> Vec<u32> {
    let threads = fs::read_dir(format!("/proc/{process}/task")).into_iter().flatten().flatten();
    let lists = threads.filter_map(|thread| fs::read_to_string(thread.path().join("children")).ok());
    lists.flat_map(|list| list.split_whitespace().filter_map(|id| id.parse().ok()).collect::<Vec<_>>()).collect()
}

/// User and system time, in the kernel's hundredths of a second: the fields 14 and 15, counted from behind the name.
fn processor_time(process: u32) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields);
    let ticks = fields.split_whitespace().skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum::<u64>();
    Duration::from_millis(ticks * 10)
}
