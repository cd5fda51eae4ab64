//! The walls around a process that works on strangers' bytes, beside its resource limits: it opens no file, or those of one folder;
//! it has no network, starts no program, and makes the system calls that a compiler needs.
//!
//! Whoever finds a hole in the compiler has the rights of this process, and nothing that the host's user has.

use std::path::Path;

use anyhow::{Context, ensure};
use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, PathBeneath, PathFd, Ruleset, RulesetAttr, RulesetCreatedAttr,
    RulesetStatus, Scope,
};

use crate::config::Confine;

/// What such a process sees of the file system.
#[derive(Clone, Copy)]
pub(crate) enum Sees<'p> {
    /// What is open already: its standard streams.
    Nothing,
    /// A folder in which it makes files and folders.
    Folder(&'p Path),
}

/// Confines this thread, and those that it starts. For a process that has just begun: it has no others.
///
/// # Errors
/// If the kernel refuses, or, where it has to be strict, if it lacks anything.
pub(crate) fn confine(confine: Confine, sees: Sees<'_>) -> anyhow::Result<()> {
    if confine == Confine::Off {
        return Ok(());
    }
    let landlocked = landlock(sees).context("Landlock")?;
    let is_strict = confine == Confine::Strict;
    ensure!(!is_strict || landlocked == RulesetStatus::FullyEnforced, "this kernel does not have all of Landlock");
    let filtered = calls::filter(sees);
    // As little as Landlock is it there everywhere: in some containers.
    ensure!(!is_strict || filtered.is_ok(), "system calls cannot be filtered: {filtered:?}");
    Ok(())
}

fn landlock(sees: Sees<'_>) -> anyhow::Result<RulesetStatus> {
    let ruleset = Ruleset::default()
        .handle_access(AccessFs::from_all(ABI::V5))?
        .handle_access(AccessNet::from_all(ABI::V4))?
        .scope(Scope::from_all(ABI::V6))?;
    let mut created = ruleset.create()?;
    if let Sees::Folder(folder) = sees {
        created = created.add_rule(PathBeneath::new(PathFd::new(folder)?, in_folder()))?;
    }
    Ok(created.restrict_self()?.ruleset)
}

/// Regular files and folders; no links, no devices, and nothing is removed.
fn in_folder() -> BitFlags<AccessFs> {
    AccessFs::ReadFile
        | AccessFs::ReadDir
        | AccessFs::WriteFile
        | AccessFs::Truncate
        | AccessFs::MakeReg
        | AccessFs::MakeDir
}

#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
mod calls {
    use std::collections::BTreeMap;

    use anyhow::anyhow;
    use seccompiler::{
        BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
        TargetArch,
    };

    use super::Sees;

    /// Memory, threads, time, the streams that are open, and the end.
    const COMPUTE: &[i64] = &[
        libc::SYS_brk,
        libc::SYS_mmap,
        libc::SYS_mprotect,
        libc::SYS_munmap,
        libc::SYS_mremap,
        libc::SYS_madvise,
        libc::SYS_membarrier,
        libc::SYS_futex,
        libc::SYS_set_robust_list,
        libc::SYS_rseq,
        libc::SYS_sched_yield,
        libc::SYS_sched_getaffinity,
        // Who asks is told: some take it for granted that this cannot fail.
        libc::SYS_gettid,
        libc::SYS_getpid,
        libc::SYS_getppid,
        libc::SYS_getuid,
        libc::SYS_geteuid,
        libc::SYS_getgid,
        libc::SYS_getegid,
        libc::SYS_clock_gettime,
        libc::SYS_clock_nanosleep,
        libc::SYS_nanosleep,
        libc::SYS_getrandom,
        libc::SYS_read,
        libc::SYS_readv,
        libc::SYS_pread64,
        libc::SYS_write,
        libc::SYS_writev,
        libc::SYS_lseek,
        libc::SYS_close,
        libc::SYS_fcntl,
        libc::SYS_fstat,
        libc::SYS_statx,
        libc::SYS_newfstatat,
        // Landlock says which files.
        libc::SYS_openat,
        libc::SYS_rt_sigaction,
        libc::SYS_rt_sigprocmask,
        libc::SYS_rt_sigreturn,
        libc::SYS_sigaltstack,
        libc::SYS_prctl,
        libc::SYS_restart_syscall,
        libc::SYS_exit,
        libc::SYS_exit_group,
    ];

    /// What making files takes beside that.
    const FILES: &[i64] = &[
        libc::SYS_mkdirat,
        libc::SYS_ftruncate,
        libc::SYS_fsync,
        libc::SYS_fchmod,
        libc::SYS_utimensat,
        #[cfg(target_arch = "x86_64")]
        libc::SYS_mkdir,
    ];

    /// All else fails with EPERM, which says more in a log than a process that is gone.
    pub(super) fn filter(sees: Sees<'_>) -> anyhow::Result<()> {
        let arch = TargetArch::try_from(std::env::consts::ARCH)?;
        let apply = |rules, other, listed| -> anyhow::Result<()> {
            let program: BpfProgram = SeccompFilter::new(rules, other, listed, arch)?.try_into()?;
            seccompiler::apply_filter(&program).map_err(|error| anyhow!("{error}"))
        };
        let refused = |errno: i32| SeccompAction::Errno(errno as u32);
        // What it is to do stands in memory, where no filter can look: the C library falls back to `clone`.
        apply(BTreeMap::from([(libc::SYS_clone3, vec![])]), SeccompAction::Allow, refused(libc::ENOSYS))?;

        let only = |argument, operator, value: i32| -> anyhow::Result<Vec<SeccompRule>> {
            let condition = SeccompCondition::new(argument, SeccompCmpArgLen::Dword, operator, value as u64)?;
            Ok(vec![SeccompRule::new(vec![condition])?])
        };
        let mut allowed: BTreeMap<i64, Vec<SeccompRule>> = COMPUTE.iter().map(|call| (*call, vec![])).collect();
        if let Sees::Folder(_) = sees {
            allowed.extend(FILES.iter().map(|call| (*call, vec![])));
        }
        // Threads, and no processes.
        let threads = SeccompCmpOp::MaskedEq(libc::CLONE_THREAD as u64);
        allowed.insert(libc::SYS_clone, only(0, threads, libc::CLONE_THREAD)?);
        // `abort()` tells itself.
        let own = i32::try_from(std::process::id())?;
        allowed.insert(libc::SYS_tgkill, only(0, SeccompCmpOp::Eq, own)?);
        // The first filter has the last word on it.
        allowed.insert(libc::SYS_clone3, vec![]);
        apply(allowed, refused(libc::EPERM), SeccompAction::Allow)
    }
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
mod calls {
    pub(super) fn filter(_: super::Sees<'_>) -> anyhow::Result<()> {
        anyhow::bail!("not on this processor")
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::{ErrorKind, Write};
    use std::net::{TcpListener, TcpStream, UdpSocket};
    use std::os::unix::net::UnixDatagram;
    use std::process::Command;

    use super::*;
    use crate::confine::kernel::walls;

    /// What comes of `tried` in a thread that is confined as the compiler's process is. It is a thread of its own: its confinement ends
    /// with it.
    fn confined<T: Send>(sees: Sees<'_>, tried: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                confine(Confine::On, sees).expect("it is best effort");
                tried()
            });
            thread.join().expect("it ends by itself")
        })
    }

    /// What such a thread could reach, by name.
    fn reached(folder: &Path, port: u16) -> Vec<&'static str> {
        let parent = rustix::process::getppid().map_or(1, |pid| pid.as_raw_nonzero().get());
        let attempts = [
            ("a file", fs::read("/etc/passwd").is_ok()),
            ("a file of the folder", fs::read(folder.join("file")).is_ok()),
            ("its own binary", fs::File::open("/proc/self/exe").is_ok()),
            ("the environment of its parent", fs::read(format!("/proc/{parent}/environ")).is_ok()),
            ("a list", fs::read_dir("/").is_ok()),
            ("a new file", fs::write(folder.join("new"), "x").is_ok()),
            ("a removal", fs::remove_file(folder.join("file")).is_ok()),
            ("a link", std::os::unix::fs::symlink("/etc/passwd", folder.join("link")).is_ok()),
            ("a connection", TcpStream::connect(("127.0.0.1", port)).is_ok()),
            ("a port", TcpListener::bind("127.0.0.1:0").is_ok()),
            ("datagrams", UdpSocket::bind("127.0.0.1:0").is_ok()),
            ("a local socket", UnixDatagram::unbound().is_ok()),
            ("a program", Command::new("/bin/true").status().is_ok()),
            ("a signal to itself", rustix::process::test_kill_process(rustix::process::getpid()).is_ok()),
        ];
        attempts.iter().filter(|(_, reached)| *reached).map(|(name, _)| *name).collect()
    }

    fn place() -> (tempfile::TempDir, TcpListener, u16) {
        let folder = tempfile::tempdir().expect("a temporary directory can be made");
        fs::write(folder.path().join("file"), "x").expect("it is ours");
        let listener = TcpListener::bind("127.0.0.1:0").expect("there is a port");
        let port = listener.local_addr().expect("it has one").port();
        (folder, listener, port)
    }

    #[test]
    fn a_compiler_reaches_nothing_that_its_user_could() {
        let (folder, _listener, port) = place();
        let free = reached(folder.path(), port);
        assert!(free.contains(&"a file") && free.contains(&"a connection") && free.contains(&"a program"), "{free:?}");
        fs::write(folder.path().join("file"), "x").expect("it is ours");
        let _ = fs::remove_file(folder.path().join("link"));
        let found = confined(Sees::Nothing, || reached(folder.path(), port));
        let (_, missing) = walls();
        // Without any of the walls this says nothing, and with all of them everything.
        assert!(!missing.is_empty() || found.is_empty(), "{found:?}");
        assert_eq!(missing.is_empty(), found.is_empty(), "{found:?} with {missing:?} missing");
    }

    #[test]
    fn an_unpacker_makes_files_in_its_folder_and_nowhere_else() {
        let (folder, _listener, port) = place();
        let other = tempfile::tempdir().expect("a temporary directory can be made");
        let made = confined(Sees::Folder(folder.path()), || {
            let made = fs::create_dir(folder.path().join("made")).and_then(|()| {
                let mut file = fs::File::create(folder.path().join("made/file"))?;
                file.write_all(b"x")?;
                file.set_times(fs::FileTimes::new().set_modified(std::time::SystemTime::UNIX_EPOCH))
            });
            let elsewhere = fs::write(other.path().join("new"), "x").map_err(|error| error.kind());
            (made.is_ok(), elsewhere, reached(folder.path(), port))
        });
        assert!(made.0, "it can do its work");
        let (_, missing) = walls();
        if missing.is_empty() {
            assert_eq!(made.1, Err(ErrorKind::PermissionDenied));
            assert_eq!(made.2, ["a file of the folder", "a new file"]);
        }
    }

    #[test]
    fn strict_is_all_or_nothing() {
        let (_, missing) = walls();
        let strict = std::thread::spawn(|| confine(Confine::Strict, Sees::Nothing).is_ok()).join();
        assert_eq!(strict.expect("it ends by itself"), missing.is_empty());
        let off = std::thread::spawn(|| {
            let off = confine(Confine::Off, Sees::Nothing);
            off.is_ok() && fs::read("/etc/passwd").is_ok()
        });
        assert!(off.join().expect("it ends by itself"));
    }
}
