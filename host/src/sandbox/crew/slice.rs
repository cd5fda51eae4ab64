//! For how long the kernel lets a thread run at once where others want its processor. Threads that serve ask for little: then they go
//! before whoever runs as soon as they have something to do, and not when that one's slice is over, which the kernel looks at in
//! its ticks (each four milliseconds, on many systems). Over time they get no more than before.

#![expect(unsafe_code, reason = "no crate offers this call of the kernel; the argument is at its place")]

use std::io;

use rustix::process::getpriority_process;

/// The least that the kernel knows: a small call takes a fifth of it.
const SHORT_NANOS: u64 = 100_000;

/// The kernel's own.
const USUAL: u64 = 0;

/// Short slices for this thread, and for what it starts. Linux before 6.12 hears it and does nothing.
///
/// # Errors
/// Where it is forbidden, by a filter of system calls, say.
pub fn go_first() -> io::Result<()> {
    ask(SHORT_NANOS)
}

/// The slices of a thread that nobody has started which has short ones. One that computes would only be interrupted more often.
///
/// # Errors
/// As [`go_first`].
pub(crate) fn go_as_usual() -> io::Result<()> {
    ask(USUAL)
}

fn ask(slice_nanos: u64) -> io::Result<()> {
    let mut attributes = libc::sched_attr {
        size: u32::try_from(size_of::<libc::sched_attr>()).unwrap_or(0),
        // The policy stays what it is.
        sched_policy: 0,
        sched_flags: u64::try_from(libc::SCHED_FLAG_KEEP_POLICY).unwrap_or(0),
        sched_nice: getpriority_process(None)?,
        sched_priority: 0,
        sched_runtime: slice_nanos,
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

    /// This thread's, in nanoseconds, and its niceness, as the kernel says them.
    fn asked() -> (u64, i32) {
        // SAFETY: all zeros are a value of this structure of numbers.
        let mut attributes: libc::sched_attr = unsafe { std::mem::zeroed() };
        let size = size_of::<libc::sched_attr>();
        // SAFETY: the kernel writes at most `size` bytes to a structure that is so long.
        let done = unsafe { libc::syscall(libc::SYS_sched_getattr, 0, &raw mut attributes, size, 0) };
        assert_eq!(done, 0, "{}", io::Error::last_os_error());
        (attributes.sched_runtime, attributes.sched_nice)
    }

    /// A container's filter of system calls may forbid to ask.
    fn may_ask() -> bool {
        std::thread::spawn(|| go_as_usual().is_ok()).join().expect("it does not panic")
    }

    #[test]
    fn a_thread_has_the_slices_that_it_asks_for_and_stays_as_nice_as_it_was() {
        if !may_ask() {
            return;
        }
        let thread = std::thread::spawn(|| {
            rustix::process::setpriority_process(None, 3).expect("a thread may be nicer");
            let usual = asked();
            go_first().expect("a thread may ask");
            let short = asked();
            let inherited = std::thread::spawn(asked).join().expect("it does not panic");
            go_as_usual().expect("a thread may ask");
            (usual, short, inherited, asked())
        });
        let (usual, short, inherited, again) = thread.join().expect("it does not panic");
        assert_eq!((usual.1, again), (3, usual));
        // Linux before 6.12 has no slices of a thread's own, and says zero.
        if usual.0 > 0 {
            assert_eq!((short, inherited), ((SHORT_NANOS, 3), (SHORT_NANOS, 3)));
        }
    }
}
