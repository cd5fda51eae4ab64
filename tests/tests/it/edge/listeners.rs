//! Where the host listens: Unix sockets, inherited descriptors, systemd's sockets.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Stdio;
use std::sync::mpsc;
use std::time::Instant;

use rustix::process::{Pid, Signal, kill_process};
use socket2::{Domain, SockAddr, Socket, Type};
use tests::{Client, Host, PATIENCE, Request, guest, wasgi};

use super::{check_environ, get_unix};

/// What `wasgi serve` says on stderr where it does not start.
#[track_caller]
fn refusal(folder: &Path, arguments: &[&str]) -> String {
    std::fs::create_dir_all(folder.join("apps")).expect("the folder is ours");
    let mut command = wasgi();
    command.current_dir(folder).arg("serve").args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn().expect("the binary can be run");
    let process = Pid::from_child(&child);
    let (ended, end) = mpsc::channel();
    std::thread::spawn(move || ended.send(child.wait_with_output()));
    let Ok(output) = end.recv_timeout(PATIENCE) else {
        let _ = kill_process(process, Signal::KILL);
        panic!("waited in vain: the host gives up");
    };
    let output = output.expect("it can be waited for");
    assert_eq!(output.status.code(), Some(1));
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn a_unix_socket_is_for_user_and_group_and_goes_with_the_host() {
    let mut host = Host::start(|host| host.app("probe", guest("probe")).bind(&["unix:http.sock", "127.0.0.1:0"]));
    let path = host.folder().join("http.sock");
    assert_eq!(host.places()[0], "unix:http.sock");
    let mode = std::fs::metadata(&path).expect("it is there").permissions().mode();
    assert_eq!(mode & 0o777, 0o660);
    check_environ(
        &get_unix(&path, "/probe/environ"),
        &[
            ("REMOTE_ADDR", Some("")),
            ("REMOTE_PORT", None),
            ("SERVER_NAME", Some("test.example")),
            ("SERVER_PORT", Some("80")),
            ("HTTPS", None),
        ],
    );
    host.access().wait("a line without an address", |event| event.text("target") == "/probe/environ");
    assert_eq!(host.get("/probe/hello").status(), 200, "the other listener serves as well");
    host.signal(Signal::TERM);
    assert_eq!(host.wait().code(), Some(0));
    assert!(!path.exists());
}

#[test]
fn a_socket_left_behind_is_replaced_and_one_in_use_is_not() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("http.sock");
    let bind = format!("unix:{}", path.display());
    drop(UnixListener::bind(&path).expect("the folder is ours"));
    assert!(std::fs::symlink_metadata(&path).expect("it stays").file_type().is_socket());
    let mut host = Host::start(|host| host.app("probe", guest("probe")).bind(&[&bind]));
    assert_eq!(get_unix(&path, "/probe/hello").text(), "hello");

    let said = refusal(folder.path(), &["--bind", &bind]);
    assert!(said.contains("another server listens there"), "{said}");
    assert_eq!(get_unix(&path, "/probe/hello").text(), "hello");

    // Another server has put its own there: that is not the first one's to remove.
    std::fs::remove_file(&path).expect("the folder is ours");
    let _other = UnixListener::bind(&path).expect("the folder is ours");
    host.signal(Signal::TERM);
    assert_eq!(host.wait().code(), Some(0));
    assert!(path.exists());
}

#[test]
fn a_server_that_is_too_busy_to_accept_is_there_as_well() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("http.sock");
    let address = SockAddr::unix(&path).expect("it is short enough");
    let socket = || Socket::new(Domain::UNIX, Type::STREAM, None).expect("there are sockets");
    let busy = socket();
    busy.bind(&address).expect("the folder is ours");
    busy.listen(1).expect("it is bound");
    let mut waiting = Vec::new();
    loop {
        let client = socket();
        client.set_nonblocking(true).expect("it is a socket");
        match client.connect(&address) {
            Ok(()) => waiting.push(client),
            Err(error) => break assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock),
        }
    }
    let said = refusal(folder.path(), &["--bind", &format!("unix:{}", path.display())]);
    assert!(said.contains("another server listens there"), "{said}");
    assert!(path.exists());
}

#[test]
fn a_file_that_is_no_socket_is_left_alone() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("precious");
    std::fs::write(&path, "precious").expect("the folder is ours");
    let said = refusal(folder.path(), &["--bind", &format!("unix:{}", path.display())]);
    assert!(said.contains("not a socket"), "{said}");
    assert_eq!(std::fs::read(&path).expect("it is there"), b"precious");
}

#[test]
fn both_families_of_one_port_can_be_named() {
    let free = TcpListener::bind("127.0.0.1:0").expect("there is a port").local_addr().expect("it has one").port();
    let places = [format!("0.0.0.0:{free}"), format!("[::]:{free}")];
    let host = Host::start(|host| host.app("probe", guest("probe")).bind(&[&places[0], &places[1]]));
    assert_eq!(host.get("/probe/hello").status(), 200);
}

#[test]
fn a_listener_to_which_nobody_comes_keeps_no_connection() {
    let host = Host::start(|host| {
        let host = host.app("probe", guest("probe")).bind(&["127.0.0.1:0", "unix:http.sock", "127.0.0.1:0"]);
        host.edge("connections=1")
    });
    for _ in 0..2 {
        for address in [host.address_of(0), host.address_of(2)] {
            assert_eq!(Client::connect(address).get("/probe/hello").text(), "hello");
        }
        assert_eq!(get_unix(&host.folder().join("http.sock"), "/probe/hello").text(), "hello");
    }
}

/// A connection that has been answered and stays; none if it was closed.
fn answered(address: SocketAddr) -> Option<TcpStream> {
    let mut stream = TcpStream::connect(address).expect("the host listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("the time is not zero");
    let _ = stream.write_all(b"GET /probe/hello HTTP/1.1\r\nHost: a\r\n\r\n");
    match stream.read(&mut [0; 4096]) {
        Ok(0) => None,
        Ok(_) => Some(stream),
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::ConnectionReset);
            None
        }
    }
}

/// The same, where others of this address may not be closed yet.
#[track_caller]
fn until_answered(address: SocketAddr) -> TcpStream {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match answered(address) {
            Some(stream) => return stream,
            None => assert!(Instant::now() < deadline, "waited in vain for a place"),
        }
    }
}

#[test]
fn an_address_has_so_many_connections_and_leaves_the_rest_to_others() {
    let host = Host::start(|host| {
        let host = host.app("probe", guest("probe")).bind(&["127.0.0.1:0", "unix:http.sock"]);
        host.config("[edge]\nconnections_per_address = 2\n")
    });
    let address = host.address_of(0);
    let held = [until_answered(address), until_answered(address)];
    assert!(answered(address).is_none());
    host.log_contains("the client at 127.0.0.1 has 2 connections open");
    assert_eq!(get_unix(&host.folder().join("http.sock"), "/probe/hello").text(), "hello");
    // What it closes is free again.
    let [first, _second] = held;
    drop(first);
    let _third = until_answered(address);
    assert!(answered(address).is_none());
    // Whose word counts for others has theirs.
    host.write_config("forwarded_allow_ips = ['127.0.0.1']\n[edge]\nconnections_per_address = 2\n");
    host.signal(Signal::HUP);
    until_answered(address);
}

#[test]
fn a_descriptor_is_a_listener_where_it_listens() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("there is a port");
    let address = listener.local_addr().expect("it has one");
    let started = format!("exec \"$@\" 7<&{}", inheritable(&listener));
    let host = Host::start(|host| host.app("probe", guest("probe")).started_by(&started).bind(&["fd://7"]));
    assert_eq!(host.places()[0], format!("http://{address}"));
    check_environ(
        &Client::connect(address).ask(&Request::get("/probe/environ").header("Host", "a")),
        &[("REMOTE_ADDR", Some("127.0.0.1")), ("SERVER_PORT", Some(&address.port().to_string()))],
    );

    let folder = tempfile::tempdir().expect("a folder");
    let said = refusal(folder.path(), &["--bind", "fd://9"]);
    assert!(said.contains("cannot listen on fd://9: this process was not started with such a descriptor"), "{said}");
}

#[test]
fn systemds_sockets_are_used_where_no_address_is_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("http.sock");
    let (tcp, unix) = (TcpListener::bind("127.0.0.1:0"), UnixListener::bind(&path));
    let (tcp, unix) = (tcp.expect("there is a port"), unix.expect("the folder is ours"));
    // As systemd does it: the numbers begin at 3, and the variables name the process that they are for.
    let script =
        format!("export LISTEN_FDS=2 LISTEN_PID=$$; exec \"$@\" 3<&{} 4<&{}", inheritable(&tcp), inheritable(&unix));
    let mut host = Host::start(|host| {
        // The harness waits for one place, of which there are two.
        host.app("probe", guest("probe")).started_by(&script).bind(&[])
    });
    let address = tcp.local_addr().expect("it has one");
    host.log_contains(&format!("listening on unix:{}", path.display()));
    assert_eq!(Client::connect(address).get("/probe/hello").text(), "hello");
    assert_eq!(get_unix(&path, "/probe/hello").text(), "hello");
    host.signal(Signal::TERM);
    assert_eq!(host.wait().code(), Some(0));
    assert!(path.exists(), "who made the socket removes it");
}

/// A descriptor's number, which processes that are started from now on have as well.
fn inheritable(socket: &(impl std::os::fd::AsFd + std::os::fd::AsRawFd)) -> i32 {
    rustix::io::fcntl_setfd(socket, rustix::io::FdFlags::empty()).expect("it is open");
    socket.as_raw_fd()
}
