//! For how long the kernel lets a thread run at once where others want its processor. Threads that serve ask for little: then they go
//! before whoever runs as soon as they have something to do, and not when that one's slice of some milliseconds is over. Over
//! time they get no more than before.

#![expect(unsafe_code, reason = "no crate offers this call of the kernel; the argument is at its place")]

use std::io;

use rustix::process::getpriority_process;

/// The least that the kernel knows: a small call takes a fifth of it.
const SLICE_NANOS: u64 = 100_000;

/// Asks for short slices for this thread. Linux before 6.12 hears it and does nothing.
///
/// # Errors
/// Where it is forbidden, by a filter of system calls, say.
pub fn go_first() -> io::Result<()> {
    let mut attributes = libc::sched_attr {
        size: u32::try_from(size_of::<libc::sched_attr>()).unwrap_or(0),
        // The policy stays what it is.
        sched_policy: 0,
        sched_flags: u64::try_from(libc::SCHED_FLAG_KEEP_POLICY).unwrap_or(0),
        sched_nice: getpriority_process(None)?,
        sched_priority: 0,
        sched_runtime: SLICE_NANOS,
        sched_deadline: 0,
        sched_period: 0,
    };
    let (this_thread, no_flags) = (0, 0);
    // SAFETY: the kernel reads `size` bytes of a structure that is so long and lives until the call returns; where it knows another one,
    // it writes its length into the first field. What it changes is how this thread is scheduled.
    let done = unsafe { libc::syscall(libc::SYS_sched_setattr, this_thread, &raw mut attributes, no_flags) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_may_ask_for_short_slices_and_stays_as_nice_as_it_was() {
        std::thread::spawn(|| {
            rustix::process::setpriority_process(None, 3).expect("a thread may be nicer");
            go_first().expect("a thread may ask");
            assert_eq!(getpriority_process(None).expect("it can be asked"), 3);
        })
        .join()
        .expect("it does not panic");
    }
}
