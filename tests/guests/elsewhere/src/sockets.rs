//! Sockets as WASI has them, with which more can be done than the standard library does.

use std::time::Duration;

use wasi::io::streams::{InputStream, OutputStream};
use wasi::sockets::instance_network::instance_network;
use wasi::sockets::network::{ErrorCode, IpAddressFamily, IpSocketAddress, Ipv4SocketAddress};
use wasi::sockets::tcp::{ShutdownType, TcpSocket};
use wasi::sockets::tcp_create_socket::create_tcp_socket;

fn code(code: ErrorCode) -> String {
    code.name().to_owned()
}

fn socket() -> Result<TcpSocket, String> {
    create_tcp_socket(IpAddressFamily::Ipv4).map_err(code)
}

/// Begins to connect to `127.0.0.1:80`.
fn start(socket: &TcpSocket, place: &str) -> Result<(), String> {
    let place: std::net::SocketAddrV4 = place.parse().expect("it is a place");
    let [a, b, c, d] = place.ip().octets();
    let address = IpSocketAddress::Ipv4(Ipv4SocketAddress { port: place.port(), address: (a, b, c, d) });
    socket.start_connect(&instance_network(), address).map_err(code)
}

fn finish(socket: &TcpSocket) -> Result<(InputStream, OutputStream), String> {
    socket.subscribe().block();
    socket.finish_connect().map_err(code)
}

fn sleep(ms: &str) {
    std::thread::sleep(Duration::from_millis(ms.parse().expect("it is a number")));
}

/// So many connections whose streams are dropped at once; their sockets are kept for so long.
pub fn keep(place: &str, count: &str, ms: &str) -> Result<String, String> {
    let mut kept = Vec::new();
    let mut ended = String::new();
    for _ in 0..count.parse().expect("it is a number") {
        let socket = socket()?;
        match start(&socket, place).and_then(|()| finish(&socket)) {
            Ok(streams) => drop(streams),
            Err(error) => {
                ended = format!(", then {error}");
                break;
            }
        }
        kept.push(socket);
    }
    eprintln!("the connections are kept");
    sleep(ms);
    Ok(format!("{} connections{ended}", kept.len()))
}

/// Connects, and does not ask what has come of it.
pub fn leave(place: &str, ms: &str) -> Result<String, String> {
    let socket = socket()?;
    start(&socket, place)?;
    eprintln!("the connection is left alone");
    sleep(ms);
    Ok(finish(&socket).map_or_else(|error| error, |_| "connected".to_owned()))
}

/// Is told to go elsewhere while it connects; then waits for what comes back from where it is.
pub fn twice(place: &str, other: &str) -> Result<String, String> {
    let socket = socket()?;
    start(&socket, place)?;
    // It is on its way, or there.
    let early = socket.finish_connect();
    let again = start(&socket, other);
    let (input, output) = early.or_else(|_| finish(&socket))?;
    let once_more = start(&socket, other);
    output.blocking_write_and_flush(b"a word").map_err(|error| error.to_string())?;
    let said = input.blocking_read(64).map_err(|error| error.to_string())?;
    eprintln!("the connection is open");
    let ended = input.blocking_read(64).map(|_| ());
    Ok(format!("{again:?} {once_more:?} {} {ended:?}", String::from_utf8_lossy(&said)))
}

/// Sockets that are dropped while they connect, one after the other.
pub fn give_up(place: &str, count: &str) -> Result<String, String> {
    let begun = (0..count.parse().expect("it is a number"))
        .map(|_| socket().and_then(|socket| start(&socket, place)));
    let failed: Vec<String> = begun.filter_map(Result::err).collect();
    Ok(format!("{} failed {}", failed.len(), failed.join(" ")))
}

/// Says so many KiB, and nothing else is asked of the stream: what is written has to go out by itself. Counts what
/// comes back.
pub fn flood(place: &str, kib: &str) -> Result<String, String> {
    let socket = socket()?;
    start(&socket, place)?;
    let (input, output) = finish(&socket)?;
    let bytes = kib.parse::<usize>().expect("it is a number") << 10;
    let (mut sent, mut got) = (0, 0);
    while sent < bytes {
        let may = usize::try_from(output.check_write().map_err(|error| error.to_string())?).unwrap_or(usize::MAX);
        let now = may.min(bytes - sent);
        if now > 0 {
            output.write(&vec![b'x'; now]).map_err(|error| error.to_string())?;
            sent += now;
        }
        got += input.read(1 << 20).map_err(|error| error.to_string())?.len();
        if now == 0 {
            wasi::io::poll::poll(&[&output.subscribe(), &input.subscribe()]);
        }
    }
    drop(output);
    socket.shutdown(ShutdownType::Send).map_err(code)?;
    while let Ok(piece) = input.blocking_read(1 << 20) {
        got += piece.len();
    }
    Ok(format!("{sent} {got}"))
}

/// What may be asked and said of a socket, before it connects and after.
pub fn options(place: &str) -> Result<String, String> {
    let socket = socket()?;
    let set = |socket: &TcpSocket| {
        socket.set_keep_alive_enabled(true)?;
        socket.set_keep_alive_idle_time(7_000_000_000)?;
        socket.set_keep_alive_interval(3_000_000_000)?;
        socket.set_keep_alive_count(5)?;
        socket.set_hop_limit(42)?;
        socket.set_receive_buffer_size(20_000)?;
        socket.set_send_buffer_size(20_000)
    };
    let get = |socket: &TcpSocket| -> Result<String, ErrorCode> {
        Ok(format!(
            "{} {} {} {} {} {} {}",
            socket.keep_alive_enabled()?,
            socket.keep_alive_idle_time()?,
            socket.keep_alive_interval()?,
            socket.keep_alive_count()?,
            socket.hop_limit()?,
            socket.receive_buffer_size()? >= 20_000,
            socket.send_buffer_size()? >= 20_000,
        ))
    };
    set(&socket).map_err(code)?;
    let before = get(&socket).map_err(code)?;
    let nowhere = (socket.local_address().is_err(), socket.remote_address().is_err());
    start(&socket, place)?;
    let _streams = finish(&socket)?;
    set(&socket).map_err(code)?;
    let after = get(&socket).map_err(code)?;
    let IpSocketAddress::Ipv4(remote) = socket.remote_address().map_err(code)? else { return Err("of IPv6".to_owned()) };
    let is_local = socket.local_address().is_ok();
    let zero = socket.set_keep_alive_count(0).err().map(code);
    Ok(format!("{before} {nowhere:?} {after} {} {is_local} {zero:?}", remote.port))
}
