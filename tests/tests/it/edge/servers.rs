//! The configurations of docs/guide-proxies.md, with the servers that they are for: NGINX and Apache, as Debian has them.

use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustls::pki_types::CertificateDer;
use rustls::{ClientConnection, StreamOwned};
use tempfile::TempDir;
use tests::{Builder, Client, Host, PATIENCE, Request, eventually, guest, repository};

use super::{check_environ, tls, write_certificate};

/// The address that clients come from, so that they can be told from the proxy.
const CLIENT: &str = "127.0.0.2";

/// A block of the guide: the one that begins with a comment with these words.
#[track_caller]
fn block(title: &str) -> String {
    let guide = fs::read_to_string(repository().join("docs/guide-proxies.md")).expect("the guide is there");
    let mut found = guide.split("```").skip(1).step_by(2).filter_map(|block| {
        let (_, text) = block.split_once('\n')?;
        text.starts_with(&format!("# {title}\n")).then(|| text.to_owned())
    });
    found.next().unwrap_or_else(|| panic!("the guide has no block that begins with # {title}"))
}

/// The flags of the command in the guide that has `words` in it, from `-b` on.
#[track_caller]
fn flags(words: &str) -> Vec<String> {
    let guide = fs::read_to_string(repository().join("docs/guide-proxies.md")).expect("the guide is there");
    let guide = guide.replace("\\\n", " ");
    let line = guide.lines().find(|line| line.starts_with("wasgi serve ") && line.contains(words));
    let line = line.unwrap_or_else(|| panic!("the guide has no command with {words}"));
    line.split_whitespace().skip_while(|word| *word != "-b").map(str::to_owned).collect()
}

/// Replaces what belongs to another machine; each of them must be there.
#[track_caller]
fn adapted(text: &str, replacements: &[(&str, &str)]) -> String {
    replacements.iter().fold(text.to_owned(), |text, (from, to)| {
        assert!(text.contains(from), "the guide no longer says {from}");
        text.replace(from, to)
    })
}

/// A file of a server: as `make test-servers` fetched it, or as it is installed.
#[track_caller]
fn installed(path: &str) -> PathBuf {
    let fetched = repository().join("tests/servers/target").join(path);
    let places = [fetched, Path::new("/").join(path)];
    let found = places.into_iter().find(|place| place.exists());
    found.unwrap_or_else(|| {
        panic!("there is no /{path}: run `make test-servers`, or install nginx, libnginx-mod-stream and apache2-bin")
    })
}

/// A server in front. Dropping it ends it.
struct Server {
    child: Child,
    address: SocketAddr,
    _folder: TempDir,
}

impl Drop for Server {
    fn drop(&mut self) {
        // With the children that it has made: they are a group of their own.
        let group = i32::try_from(self.child.id()).ok().and_then(rustix::process::Pid::from_raw);
        if let Some(group) = group {
            let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
        }
        let _ = self.child.wait();
    }
}

/// Starts a server with the configuration that `configure` makes of its folder and port.
#[track_caller]
fn start(program: &str, configure: impl Fn(&Path, u16) -> (String, Vec<&'static str>)) -> Server {
    // The server is told a port that was free a moment ago; somebody else may have taken it.
    for _ in 0..5 {
        let folder = open_folder();
        let free = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
        let address = free.expect("there is a free port");
        let (configuration, arguments) = configure(folder.path(), address.port());
        let file = folder.path().join("server.conf");
        fs::write(&file, configuration).expect("the folder is ours");
        let program = installed(program);
        let mut command = Command::new(&program);
        command.args(arguments).arg(&file).stdin(Stdio::null()).current_dir(folder.path());
        let libraries = repository().join("tests/servers/target/usr/lib");
        let libraries = fs::read_dir(libraries).into_iter().flatten().flatten().map(|entry| entry.path());
        let libraries = std::env::join_paths(libraries).expect("paths have no colons");
        let mut child = command.env("LD_LIBRARY_PATH", libraries).process_group(0).spawn().expect("it can be run");
        let up = eventually("the server listens or ends", || {
            let ended = child.try_wait().expect("it is our child").is_some();
            let listens = TcpStream::connect(address).is_ok();
            (ended || listens).then_some(!ended)
        });
        if up {
            return Server { child, address, _folder: folder };
        }
    }
    panic!("{program} does not come up");
}

/// A folder that a server's own user may look into.
fn open_folder() -> TempDir {
    let folder = tempfile::tempdir().expect("there is a temporary directory");
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).expect("the folder is ours");
    folder
}

#[track_caller]
fn nginx(blocks: impl Fn(&Path, u16) -> (&'static str, String)) -> Server {
    start("usr/sbin/nginx", |folder, port| {
        let (context, block) = blocks(folder, port);
        let place = folder.display();
        let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|kind| format!("{kind}_temp_path {place}/{kind};\n"))
            .concat();
        let user = if rustix::process::geteuid().is_root() { "user www-data;\n" } else { "" };
        let stream = installed("usr/lib/nginx/modules/ngx_stream_module.so");
        let stream = stream.display();
        let main = format!(
            "{user}load_module {stream};\ndaemon off;\nworker_processes 1;\npid {place}/pid;\nerror_log stderr crit;\nevents {{}}\n"
        );
        let conf = match context {
            "http" => format!("{main}http {{\naccess_log off;\n{temporary}{block}}}\n"),
            _ => main + &block,
        };
        (conf, vec!["-e", "stderr", "-c"])
    })
}

#[track_caller]
fn apache(block: impl Fn(&Path, u16) -> String) -> Server {
    start("usr/sbin/apache2", |folder, port| {
        let place = folder.display();
        let modules =
            ["mpm_event", "authz_core", "headers", "proxy", "proxy_http", "http2", "proxy_http2"].map(|module| {
                let file = installed(&format!("usr/lib/apache2/modules/mod_{module}.so"));
                format!("LoadModule {module}_module {}\n", file.display())
            });
        // Apache refuses to serve as root; others cannot choose.
        let user = if rustix::process::geteuid().is_root() { "User www-data\nGroup www-data\n" } else { "" };
        let main = format!(
            "ServerRoot {place}\nServerName localhost\nPidFile {place}/pid\nDefaultRuntimeDir {place}\nErrorLog /dev/stderr\n\
             LogLevel error\nListen 127.0.0.1:{port}\nStartServers 1\n"
        );
        (format!("{}{user}{main}{}", modules.concat(), block(folder, port)), vec!["-DFOREGROUND", "-f"])
    })
}

/// A host as the guide starts it, with a free port or a socket in its own folder, and that socket.
#[track_caller]
fn host(words: &str, build: impl FnOnce(Builder) -> Builder) -> (Host, PathBuf) {
    let flags = flags(words);
    let value = |flag: &str| {
        let at = flags.iter().position(|known| known == flag).unwrap_or_else(|| panic!("the guide gives no {flag}"));
        flags[at + 1].clone()
    };
    let (bind, allowed) = (value("-b"), value("--forwarded-allow-ips"));
    let bind = bind.replace("/run/wasgi/", "").replace(":8000", ":0").replace(":8443", ":0");
    let host = Host::start(|host| {
        let host = host.app("probe", guest("probe")).bind(&[&bind]).flag("--forwarded-allow-ips", &allowed);
        build(host.stream_bodies())
    });
    let socket = host.folder().join("http.sock");
    if socket.exists() {
        let_in(host.folder(), &socket);
    }
    (host, socket)
}

/// What the guide has the operator do: the server's user may connect. As root the tests run servers as `www-data`.
fn let_in(folder: &Path, socket: &Path) {
    if rustix::process::geteuid().is_root() {
        fs::set_permissions(folder, fs::Permissions::from_mode(0o711)).expect("the folder is ours");
        let www_data = fs::read_to_string("/etc/group").expect("there are groups");
        let www_data = www_data.lines().find_map(|line| line.strip_prefix("www-data:x:")?.split(':').next());
        let group = www_data.and_then(|number| number.parse().ok()).expect("Debian has www-data");
        std::os::unix::fs::chown(socket, None, Some(group)).expect("root may");
    }
}

/// A connection from [`CLIENT`].
#[track_caller]
fn from_client(address: SocketAddr) -> TcpStream {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("it can be made");
    let stream = runtime.block_on(async {
        let socket = tokio::net::TcpSocket::new_v4().expect("there are sockets");
        let own = SocketAddr::new(CLIENT.parse().expect("an address"), 0);
        socket.bind(own).expect("all of 127.0.0.0/8 is this machine");
        socket.connect(address).await.expect("it listens").into_std().expect("it is a socket")
    });
    stream.set_nonblocking(false).expect("it is a socket");
    stream.set_read_timeout(Some(PATIENCE)).expect("the time is not zero");
    stream
}

fn tls_client(address: SocketAddr, trusted: &CertificateDer<'static>) -> Client {
    let name = "localhost".try_into().expect("it is a name");
    let connection =
        ClientConnection::new(tls::client_config(trusted, &[b"http/1.1"]), name).expect("the name is right");
    Client::over_tls(StreamOwned::new(connection, from_client(address)))
}

/// What every server in front has to bring about. A body that is announced too large is refused when `awaited` bytes of it are
/// there.
#[track_caller]
fn check_front(server: &Server, connect: impl Fn(SocketAddr) -> Client, scheme: &str, awaited: usize) {
    let mut client = connect(server.address);
    let forged = Request::get("/probe/en%76iron?a=%2F")
        .header("Host", "example.com")
        .header("X-Forwarded-For", "203.0.113.9")
        .header("X-Forwarded-Proto", "gopher")
        .header("Forwarded", "for=203.0.113.9;proto=gopher");
    for _ in 0..2 {
        let https = scheme == "https";
        check_environ(
            &client.ask(&forged),
            &[
                ("REMOTE_ADDR", Some(CLIENT)),
                ("HTTPS", https.then_some("on")),
                ("HTTP_HOST", Some("example.com")),
                ("SERVER_NAME", Some("example.com")),
                ("PATH_INFO", Some("/environ")),
                ("REQUEST_URI", Some("/probe/en%76iron?a=%2F")),
                ("HTTP_FORWARDED", None),
            ],
        );
    }
    assert!(client.get("/probe/gateway").text().contains(&format!("url_scheme={scheme} ")));
    let body: Vec<u8> = (0..300_000_u32).map(|number| number.to_le_bytes()[0]).collect();
    let echoed = client.ask(&Request::post("/probe/echo", body.clone()));
    assert_eq!((echoed.status(), echoed.body.len()), (200, body.len()));
    assert!(echoed.body == body);
    let large = (16 << 20) + 1;
    let large = Request::new("POST", "/probe/count").header("Content-Length", large.to_string());
    let mut announcing = connect(server.address);
    announcing.send(&[large.to_bytes(), vec![0; awaited]].concat());
    assert_eq!(announcing.response("POST").status(), 413);
    // The guest sleeps after its first block: it is there because nobody waits for the next.
    let mut streaming = connect(server.address);
    streaming.send(&Request::get("/probe/then?kind=sleep&ms=600000").to_bytes());
    assert_eq!(streaming.head("GET").status, 200);
    assert_eq!(streaming.piece().as_deref(), Ok(&b"a block"[..]));
}

#[test]
fn nginx_over_a_unix_socket() {
    let (_host, socket) = host("unix:", |host| host);
    let socket = format!("unix:{}", socket.display());
    let server = nginx(|_, port| {
        let listen = format!("listen 127.0.0.1:{port};");
        let replacements = [("listen 80;", listen.as_str()), ("unix:/run/wasgi/http.sock", &socket)];
        ("http", adapted(&block("/etc/nginx/conf.d/wasgi.conf"), &replacements))
    });
    check_front(&server, |address| Client::over_tcp(from_client(address)), "http", 0);
}

#[test]
fn nginx_over_tcp() {
    let (host, _) = host("-b 127.0.0.1:8000", |host| host);
    let upstream = format!("server {};", host.address());
    let server = nginx(|_, port| {
        let listen = format!("listen 127.0.0.1:{port};");
        let replacements = [
            ("listen 80;", listen.as_str()),
            ("    server unix:/run/wasgi/http.sock;\n", ""),
            ("# server 127.0.0.1:8000;", &upstream),
        ];
        ("http", adapted(&block("/etc/nginx/conf.d/wasgi.conf"), &replacements))
    });
    check_front(&server, |address| Client::over_tcp(from_client(address)), "http", 0);
}

#[test]
fn nginx_with_tls() {
    let (_host, socket) = host("unix:", |host| host);
    let socket = format!("unix:{}", socket.display());
    let certificates = open_folder();
    let trusted = write_certificate(certificates.path(), "example.com").cert.der().clone();
    let place = certificates.path().display().to_string();
    let server = nginx(|_, port| {
        let listen = format!("listen 127.0.0.1:{port} ssl http2;");
        let (certificate, key) = (format!("{place}/example.com.pem"), format!("{place}/example.com.key"));
        let replacements = [
            ("listen 443 ssl http2;", listen.as_str()),
            ("unix:/run/wasgi/http.sock", &socket),
            ("/etc/ssl/example.com.pem", &certificate),
            ("/etc/ssl/private/example.com.key", &key),
        ];
        ("http", adapted(&block("/etc/nginx/conf.d/wasgi-tls.conf"), &replacements))
    });
    check_front(&server, |address| tls_client(address, &trusted), "https", 0);
}

#[test]
fn nginx_that_passes_bytes_on() {
    let mut trusted = None;
    let (host, _) = host("proxy+https://", |host| {
        trusted = Some(write_certificate(host.folder(), "own").cert.der().clone());
        host.flag("--certfile", "own.pem").flag("--keyfile", "own.key")
    });
    let trusted = trusted.expect("it was made");
    let upstream = format!("proxy_pass {};", host.address());
    let server = nginx(|_, port| {
        let listen = format!("listen 127.0.0.1:{port};");
        let replacements = [("listen 443;", listen.as_str()), ("proxy_pass 127.0.0.1:8443;", &upstream)];
        ("stream", adapted(&block("/etc/nginx/nginx.conf, beside http { … }"), &replacements))
    });
    check_front(&server, |address| tls_client(address, &trusted), "https", 0);
}

#[test]
fn apache_over_a_unix_socket() {
    let (_host, socket) = host("unix:", |host| host);
    let socket = format!("unix:{}|", socket.display());
    let server = apache(|_, port| {
        let name = format!("<VirtualHost *:{port}>");
        let replacements = [("<VirtualHost *:80>", name.as_str()), ("unix:/run/wasgi/http.sock|", &socket)];
        adapted(&block("/etc/apache2/sites-available/wasgi.conf"), &replacements)
    });
    check_front(&server, |address| Client::over_tcp(from_client(address)), "http", (16 << 20) + 1);
}

#[test]
fn apache_over_http2() {
    let (host, _) = host("-b 127.0.0.1:8000", |host| host);
    let upstream = format!("h2c://{}/", host.address());
    let server = apache(|_, port| {
        let name = format!("<VirtualHost *:{port}>");
        let replacements = [("<VirtualHost *:80>", name.as_str()), ("h2c://127.0.0.1:8000/", &upstream)];
        adapted(&block("/etc/apache2/sites-available/wasgi-http2.conf"), &replacements)
    });
    check_front(&server, |address| Client::over_tcp(from_client(address)), "http", 0);
    let response = Client::over_tcp(from_client(server.address)).get("/probe/environ");
    check_environ(&response, &[("SERVER_PROTOCOL", Some("HTTP/2"))]);
}

/// systemd itself is not here: what it does is done by a shell.
#[test]
fn systemds_units_start_the_host() {
    let socket_unit = block("/etc/systemd/system/wasgi.socket");
    let service = block("/etc/systemd/system/wasgi.service");
    let listens = socket_unit.lines().find_map(|line| line.strip_prefix("ListenStream=")).expect("it listens");
    let command = service.lines().find_map(|line| line.strip_prefix("ExecStart=")).expect("it starts something");
    let arguments: Vec<_> = command.split(' ').collect();
    let ["/usr/local/bin/wasgi", "serve", "/srv/wasgi/apps", "--state-dir", "/var/lib/wasgi", flag, value] =
        arguments[..]
    else {
        panic!("the harness names the directories itself, but knows no others than those: {command}");
    };
    let folder = open_folder();
    let path = folder.path().join(listens.rsplit('/').next().expect("it has a name"));
    let listener = UnixListener::bind(&path).expect("the folder is ours");
    rustix::io::fcntl_setfd(&listener, rustix::io::FdFlags::empty()).expect("it is open");
    let number = std::os::fd::AsRawFd::as_raw_fd(&listener);
    let script = format!("export LISTEN_FDS=1 LISTEN_PID=$$; exec \"$@\" 3<&{number}");
    let host = Host::start(|host| host.app("probe", guest("probe")).bind(&[]).started_by(&script).flag(flag, value));
    let asked = Request::get("/probe/environ").header("X-Forwarded-For", "192.0.2.7");
    check_environ(&Client::connect_unix(&path).ask(&asked), &[("REMOTE_ADDR", Some("192.0.2.7"))]);
    drop(host);
}
