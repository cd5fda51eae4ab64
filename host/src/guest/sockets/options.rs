//! What guests may ask and set of a socket, in the kernel's words. A size or number of none is refused, what is too
//! large is taken for the largest, as WASI has it.

use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use rustix::net::sockopt;
use wasmtime_wasi::p2::bindings::sockets::network::{ErrorCode, IpAddressFamily};

use super::tcp::{Phase, Socket};

/// What Linux takes for the times of keep-alive, in seconds, and for its number.
const KEEP_ALIVE_SECONDS_MAX: u64 = i16::MAX as u64;
const KEEP_ALIVE_COUNT_MAX: u32 = i8::MAX as u32;

type Kernels<T> = rustix::io::Result<T>;

/// In nanoseconds, from a whole second on.
fn keep_alive_time(value: u64) -> Result<Duration, ErrorCode> {
    if value == 0 {
        return Err(ErrorCode::InvalidArgument);
    }
    Ok(Duration::from_nanos(value).clamp(Duration::from_secs(1), Duration::from_secs(KEEP_ALIVE_SECONDS_MAX)))
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

fn buffer_bytes(value: u64) -> Result<usize, ErrorCode> {
    if value == 0 {
        return Err(ErrorCode::InvalidArgument);
    }
    Ok(usize::try_from(value).unwrap_or(usize::MAX).min(i32::MAX as usize))
}

/// The kernel doubles what is set, for its own needs, and says that.
fn said_bytes(value: usize) -> u64 {
    (value / 2) as u64
}

impl Socket {
    fn ask<T>(&self, act: impl FnOnce(BorrowedFd<'_>) -> Kernels<T>) -> Result<T, ErrorCode> {
        let said = match &self.phase {
            Phase::New(new) => act(new.socket.as_fd()),
            Phase::Connected(connection) => connection.with(|stream| act(stream.as_fd()))?,
            Phase::Connecting(_) => return Err(ErrorCode::InvalidState),
            Phase::Closed(code) => return Err(*code),
        };
        said.map_err(|errno| ErrorCode::from(std::io::Error::from(errno)))
    }

    pub(super) fn keep_alive_enabled(&self) -> Result<bool, ErrorCode> {
        self.ask(|socket| sockopt::socket_keepalive(socket))
    }

    pub(super) fn set_keep_alive_enabled(&self, value: bool) -> Result<(), ErrorCode> {
        self.ask(|socket| sockopt::set_socket_keepalive(socket, value))
    }

    pub(super) fn keep_alive_idle_time(&self) -> Result<u64, ErrorCode> {
        self.ask(|socket| sockopt::tcp_keepidle(socket)).map(nanos)
    }

    pub(super) fn set_keep_alive_idle_time(&self, value: u64) -> Result<(), ErrorCode> {
        let time = keep_alive_time(value)?;
        self.ask(|socket| sockopt::set_tcp_keepidle(socket, time))
    }

    pub(super) fn keep_alive_interval(&self) -> Result<u64, ErrorCode> {
        self.ask(|socket| sockopt::tcp_keepintvl(socket)).map(nanos)
    }

    pub(super) fn set_keep_alive_interval(&self, value: u64) -> Result<(), ErrorCode> {
        let time = keep_alive_time(value)?;
        self.ask(|socket| sockopt::set_tcp_keepintvl(socket, time))
    }

    pub(super) fn keep_alive_count(&self) -> Result<u32, ErrorCode> {
        self.ask(|socket| sockopt::tcp_keepcnt(socket))
    }

    pub(super) fn set_keep_alive_count(&self, value: u32) -> Result<(), ErrorCode> {
        if value == 0 {
            return Err(ErrorCode::InvalidArgument);
        }
        self.ask(|socket| sockopt::set_tcp_keepcnt(socket, value.min(KEEP_ALIVE_COUNT_MAX)))
    }

    pub(super) fn hop_limit(&self) -> Result<u8, ErrorCode> {
        self.ask(|socket| match self.family {
            IpAddressFamily::Ipv4 => sockopt::ip_ttl(socket).map(|value| u8::try_from(value).unwrap_or(u8::MAX)),
            IpAddressFamily::Ipv6 => sockopt::ipv6_unicast_hops(socket),
        })
    }

    pub(super) fn set_hop_limit(&self, value: u8) -> Result<(), ErrorCode> {
        if value == 0 {
            return Err(ErrorCode::InvalidArgument);
        }
        self.ask(|socket| match self.family {
            IpAddressFamily::Ipv4 => sockopt::set_ip_ttl(socket, value.into()),
            IpAddressFamily::Ipv6 => sockopt::set_ipv6_unicast_hops(socket, Some(value)),
        })
    }

    pub(super) fn receive_buffer_size(&self) -> Result<u64, ErrorCode> {
        self.ask(|socket| sockopt::socket_recv_buffer_size(socket)).map(said_bytes)
    }

    pub(super) fn set_receive_buffer_size(&self, value: u64) -> Result<(), ErrorCode> {
        let bytes = buffer_bytes(value)?;
        self.ask(|socket| sockopt::set_socket_recv_buffer_size(socket, bytes))
    }

    pub(super) fn send_buffer_size(&self) -> Result<u64, ErrorCode> {
        self.ask(|socket| sockopt::socket_send_buffer_size(socket)).map(said_bytes)
    }

    pub(super) fn set_send_buffer_size(&self, value: u64) -> Result<(), ErrorCode> {
        let bytes = buffer_bytes(value)?;
        self.ask(|socket| sockopt::set_socket_send_buffer_size(socket, bytes))
    }
}
