//! Sockets that listen: TCP, Unix, or inherited from whoever started this process.

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::io;
use std::net::SocketAddr;
use std::os::fd::{BorrowedFd, FromRawFd as _, OwnedFd};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::task::{Context, Poll, ready};

use anyhow::{Context as _, bail};
use socket2::{Domain, SockAddr, Socket, Type};
use tokio::net::{TcpListener, UnixListener};

use super::client::Stream;
use crate::config::{Bind, Place, Scheme};

/// Connections that the kernel may hold for us before they are accepted.
const BACKLOG: i32 = 1024;

/// The host's user and group may connect, nobody else: a proxy's user belongs into the group. Without this the umask would decide.
const UNIX_SOCKET_MODE: u32 = 0o660;

/// A place to listen at that was taken, before anybody is there to serve: all that may need the rights of root.
pub(super) struct Door {
    socket: Socket,
    tls: bool,
    proxied: bool,
    file: Option<SocketFile>,
}

/// One socket, and what is spoken there.
pub(super) struct Listener {
    socket: Kind,
    pub(super) tls: bool,
    /// Every connection begins with a header of the PROXY protocol.
    pub(super) proxied: bool,
    /// The file of a socket that was made here.
    _file: Option<SocketFile>,
}

enum Kind {
    Tcp(TcpListener),
    Unix(UnixListener),
}

/// A client's socket, and its two addresses; none for a Unix socket's.
pub(super) type Accepted = (Stream, Option<SocketAddr>, Option<SocketAddr>);

impl Door {
    /// `binds` are all that will be listened at; `certified` says whether there is a certificate.
    pub(super) fn bind(
        bind: &Bind,
        binds: &[Bind],
        inherited: &mut Inherited,
        certified: bool,
    ) -> anyhow::Result<Self> {
        let refused = || format!("cannot listen on {bind}");
        let (socket, file) = match &bind.place {
            Place::Tcp(address) => (tcp(*address, binds).with_context(refused)?, None),
            Place::Unix(path) => {
                let (socket, file) = unix(path).with_context(refused)?;
                (socket, Some(file))
            }
            Place::Fd(number) => (inherited.claim(*number).with_context(refused)?, None),
        };
        socket.set_nonblocking(true)?;
        let tls = match bind.scheme {
            Some(scheme) => scheme == Scheme::Https,
            None => certified && socket.domain()? != Domain::UNIX,
        };
        Ok(Self { socket, tls, proxied: bind.proxied, file })
    }

    /// The file of a socket that was made here.
    pub(super) fn path(&self) -> Option<&Path> {
        self.file.as_ref().map(|file| file.path.as_path())
    }
}

impl Listener {
    /// To be called within a tokio runtime.
    pub(super) fn open(door: Door) -> io::Result<Self> {
        let Door { socket, tls, proxied, file } = door;
        let socket = match socket.domain()? == Domain::UNIX {
            true => Kind::Unix(UnixListener::from_std(socket.into())?),
            false => Kind::Tcp(TcpListener::from_std(socket.into())?),
        };
        Ok(Self { socket, tls, proxied, _file: file })
    }

    pub(super) fn poll_accept(&self, context: &mut Context<'_>) -> Poll<io::Result<Accepted>> {
        Poll::Ready(match &self.socket {
            Kind::Tcp(listener) => ready!(listener.poll_accept(context)).and_then(|(stream, remote)| {
                let local = stream.local_addr()?;
                // Small responses must not wait for the client's acknowledgement of the last.
                stream.set_nodelay(true)?;
                Ok((Stream::Tcp(stream), Some(remote), Some(local)))
            }),
            Kind::Unix(listener) => {
                ready!(listener.poll_accept(context)).map(|(stream, _)| (Stream::Unix(stream), None, None))
            }
        })
    }

    /// Where it listens, as a client would write it: with port 0, the port that the kernel chose.
    pub(super) fn address(&self) -> io::Result<String> {
        let scheme = if self.tls { "https" } else { "http" };
        Ok(match &self.socket {
            Kind::Tcp(listener) => format!("{scheme}://{}", listener.local_addr()?),
            Kind::Unix(listener) => {
                let address = listener.local_addr()?;
                let path = address.as_pathname().unwrap_or(Path::new("(unnamed)")).display().to_string();
                if self.tls { format!("https over unix:{path}") } else { format!("unix:{path}") }
            }
        })
    }
}

fn tcp(address: SocketAddr, binds: &[Bind]) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    // A restart must not wait for the old connections' TIME_WAIT.
    socket.set_reuse_address(true)?;
    // `[::]:80` is for IPv4, too; but not where `0.0.0.0:80` stands beside it.
    let four_beside = |bind: &Bind| matches!(bind.place, Place::Tcp(SocketAddr::V4(four)) if four.port() == address.port() && address.port() != 0);
    if address.is_ipv6() && binds.iter().any(four_beside) {
        socket.set_only_v6(true)?;
    }
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket)
}

fn unix(path: &Path) -> anyhow::Result<(Socket, SocketFile)> {
    remove_stale(path)?;
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.bind(&SockAddr::unix(path)?)?;
    let file = SocketFile::of(path)?;
    // Nobody can connect before `listen`, so there is no moment with the umask's mode.
    fs::set_permissions(path, Permissions::from_mode(UNIX_SOCKET_MODE))?;
    socket.listen(BACKLOG)?;
    Ok((socket, file))
}

/// Removes the socket that a host which was killed left behind, and nothing else.
fn remove_stale(path: &Path) -> anyhow::Result<()> {
    let metadata = match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        found => found?,
    };
    if !metadata.file_type().is_socket() {
        bail!("there is a file with this name that is not a socket: remove it, or choose another name");
    }
    let probe = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    // Where that server's backlog is full, connecting would wait, and so would the signals that end this process.
    probe.set_nonblocking(true)?;
    match probe.connect(&SockAddr::unix(path)?) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            fs::remove_file(path).context("the socket of a server that is gone cannot be removed")
        }
        // One that is too busy to answer is there as well.
        _ => bail!("another server listens there: stop it, or choose another name"),
    }
}

/// The file of a Unix socket. Dropping it removes the file, unless another server has put its own there.
struct SocketFile {
    path: PathBuf,
    identity: (u64, u64),
}

impl SocketFile {
    fn of(path: &Path) -> io::Result<Self> {
        Ok(Self { path: path.to_owned(), identity: identity(path)? })
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if identity(&self.path).is_ok_and(|identity| identity == self.identity) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Device and number of a file.
fn identity(path: &Path) -> io::Result<(u64, u64)> {
    let metadata = fs::symlink_metadata(path)?;
    Ok((metadata.dev(), metadata.ino()))
}

/// The descriptors that this process was started with, as far as listeners are to be made of them.
#[derive(Default)]
pub struct Inherited(BTreeMap<i32, OwnedFd>);

impl Inherited {
    /// Takes the descriptors that `binds` name. To be called once, before this process opens anything that it keeps.
    ///
    /// # Errors
    /// Where one of them is not open.
    pub fn take(binds: &[Bind]) -> anyhow::Result<Self> {
        let mut taken = BTreeMap::new();
        for bind in binds {
            let Place::Fd(number) = bind.place else { continue };
            let fd = take_fd(number).with_context(|| format!("cannot listen on {bind}"))?;
            taken.insert(number, fd);
        }
        Ok(Self(taken))
    }

    /// The listening socket behind a descriptor.
    fn claim(&mut self, number: i32) -> anyhow::Result<Socket> {
        let socket = Socket::from(self.0.remove(&number).context("the descriptor was not taken at the start")?);
        let listens = socket.is_listener().context("the descriptor is not a socket")?;
        if !listens || socket.r#type()? != Type::STREAM {
            bail!("the descriptor is not a stream socket that listens");
        }
        Ok(socket)
    }
}

/// Makes an inherited descriptor ours, and keeps it from the processes that we start.
#[allow(unsafe_code, reason = "std has no safe way from the number of an inherited descriptor to its owner")]
fn take_fd(number: i32) -> anyhow::Result<OwnedFd> {
    // SAFETY: the borrow ends before this function does, and F_GETFD of a number that is not open only fails.
    let borrowed = unsafe { BorrowedFd::borrow_raw(number) };
    let flags = rustix::io::fcntl_getfd(borrowed).context("this process was not started with such a descriptor")?;
    rustix::io::fcntl_setfd(borrowed, flags | rustix::io::FdFlags::CLOEXEC)?;
    // SAFETY: it is open, as was just seen. Nobody else in this process owns it: `Inherited::take` runs at the start, when no
    // descriptors but the inherited ones are open; the settings name each number once; and the standard streams, which others
    // use, are below the smallest number that the settings allow.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}
