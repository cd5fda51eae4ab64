//! Programs that reach for what is not theirs: files, the network, the host's environment, the host itself.

use std::net::TcpListener;

use super::{Attack, Expected, NOTHING, Outcome, no_attack};
use crate::selftest::guests::Source;
use crate::selftest::stand::{SECRET, Stand, attacker};

const CALL: &str = r#"(func (export "call") (param i32 i32 i32 i32 i32) (result i32)"#;

pub(super) fn attacks() -> Vec<Attack> {
    let connects =
        |name, tries, address: &str| Attack::app(name, tries, Source::wsgi(connecting(address)), Expected::GetsNothing);
    let requests = |name, tries, authority: &str| {
        Attack::app(name, tries, Source::wsgi(requesting(authority)), Expected::GetsNothing)
    };
    let asks = |name, tries, authority: &str| {
        let source = Source::wsgi(requesting(authority));
        Attack::app(name, tries, source, Expected::GetsNothing).asking(EVERYWHERE)
    };
    vec![
        Attack::app(
            "open-files",
            "/etc/passwd, by its name and by a dozen dots, from every handle there may be",
            Source::Cgi(opening(&[
                "/etc/passwd",
                "etc/passwd",
                "../../../../../../../../etc/passwd",
                "/proc/self/environ",
                ".",
            ])),
            Expected::GetsNothing,
        ),
        Attack::app(
            "list-directories",
            "directories that were left open",
            Source::Cgi(directories()),
            Expected::GetsNothing,
        ),
        Attack::app(
            "hosts-environment",
            "the host's environment variables",
            Source::Cgi(environment()),
            Expected::Judged(secret_stays),
        ),
        connects(
            "connect-to-loopback",
            "a connection to this machine",
            "(i32.const 80) (i32.const 127) (i32.const 0) (i32.const 0) (i32.const 1)",
        ),
        connects(
            "connect-to-metadata",
            "a connection to a cloud's metadata service",
            "(i32.const 80) (i32.const 169) (i32.const 254) (i32.const 169) (i32.const 254)",
        ),
        connects(
            "connect-to-private-network",
            "a connection into the private network",
            "(i32.const 443) (i32.const 10) (i32.const 0) (i32.const 0) (i32.const 1)",
        ),
        Attack::app(
            "look-up-names",
            "a look-up of a name, which can carry secrets out",
            Source::wsgi(looking_up()),
            Expected::GetsNothing,
        ),
        Attack::app("listen", "a listening socket of its own", Source::wsgi(listening()), Expected::GetsNothing),
        requests("request-to-metadata", "an HTTP request to a cloud's metadata service", "169.254.169.254"),
        requests("request-to-loopback-v6", "an HTTP request to this machine", "[::1]:80"),
        requests("request-to-localhost", "an HTTP request to localhost, by name", "localhost"),
        asks(
            "granted-to-metadata",
            "the same to a metadata service, with every name and network granted",
            "169.254.169.254",
        ),
        asks("granted-to-metadata-v6", "the same to its IPv6 address", "[fd00:ec2::254]"),
        asks("granted-to-loopback", "the same to this machine", "127.0.0.1:80"),
        asks("granted-to-localhost", "the same by a name that leads to this machine", "localhost"),
        asks("granted-to-private-network", "the same into the private network", "10.0.0.1"),
        asks("granted-to-shared-network", "the same into a provider's shared network", "100.100.100.200"),
        asks("granted-to-unspecified", "the same to the address that is any of this machine's", "0.0.0.0"),
        asks("granted-to-mapped", "the same to an IPv4 address that poses as an IPv6 one", "[::ffff:127.0.0.1]"),
        asks("granted-to-translated", "the same through a translator's prefix", "[64:ff9b::a9fe:a9fe]"),
        asks("granted-to-a-number", "the same to a number that some read as an address", "2130706433"),
        connects(
            "granted-connection-to-loopback",
            "a connection to this machine, with every name and network granted",
            "(i32.const 80) (i32.const 127) (i32.const 0) (i32.const 0) (i32.const 1)",
        )
        .asking(EVERYWHERE),
        connects(
            "granted-connection-to-metadata",
            "the same to a cloud's metadata service",
            "(i32.const 80) (i32.const 169) (i32.const 254) (i32.const 169) (i32.const 254)",
        )
        .asking(EVERYWHERE),
        Attack::hand(
            "request-that-arrives",
            "an HTTP request to a server that listens on this machine",
            request_that_arrives,
        ),
        Attack::app(
            "end-the-host",
            "the end of the process",
            Source::Cgi(exiting()),
            Expected::Fails(&[(502, "cgi_response")]),
        ),
    ]
}

/// A CGI program that says "nothing" where `$reach` is 0, "reached" where it is 1, and "no try" where it is 2, since what the attack
/// begins with did not come about.
pub(super) fn program(imports: &str, data: &str, reach: &str) -> String {
    format!(
        r#"(module
        (import "wasi_snapshot_preview1" "fd_write" (func $fd_write (param i32 i32 i32 i32) (result i32)))
        {imports}
        (memory (export "memory") 4)
        (data (i32.const 16) "\40\00\00\00\21\00\00\00" "\80\00\00\00\21\00\00\00" "\c0\00\00\00\20\00\00\00")
        (data (i32.const 64) "Content-Type: text/plain\0a\0a{NOTHING}")
        (data (i32.const 128) "Content-Type: text/plain\0a\0areached")
        (data (i32.const 192) "Content-Type: text/plain\0a\0ano try")
        {data}
        (func $reach (result i32) {reach})
        (func (export "_start")
          (drop (call $fd_write (i32.const 1)
            (i32.add (i32.const 16) (i32.mul (i32.const 8) (call $reach))) (i32.const 1) (i32.const 8)))))"#
    )
}

fn opening(paths: &[&str]) -> String {
    let mut data = String::new();
    let mut reach = String::from("(local $fd i32) (local $reached i32) (local.set $fd (i32.const 3)) (loop\n");
    for (index, path) in paths.iter().enumerate() {
        let at = 1024 + 128 * index;
        data.push_str(&format!("(data (i32.const {at}) \"{path}\")\n"));
        reach.push_str(&format!(
            "(if (i32.eqz (call $path_open (local.get $fd) (i32.const 1) (i32.const {at}) (i32.const {}) (i32.const 0)
               (i64.const 2) (i64.const 0) (i32.const 0) (i32.const 8))) (then (local.set $reached (i32.const 1))))\n",
            path.len()
        ));
    }
    reach.push_str(
        "(local.set $fd (i32.add (local.get $fd) (i32.const 1))) (br_if 0 (i32.lt_u (local.get $fd) (i32.const 64))))
        (local.get $reached)",
    );
    let imports = r#"(import "wasi_snapshot_preview1" "path_open"
        (func $path_open (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))"#;
    program(imports, &data, &reach)
}

fn directories() -> String {
    let imports = r#"(import "wasi_snapshot_preview1" "fd_prestat_get" (func $prestat (param i32 i32) (result i32)))"#;
    let reach = "(local $fd i32) (local $reached i32) (local.set $fd (i32.const 3))
        (loop
          (if (i32.eqz (call $prestat (local.get $fd) (i32.const 8))) (then (local.set $reached (i32.const 1))))
          (local.set $fd (i32.add (local.get $fd) (i32.const 1)))
          (br_if 0 (i32.lt_u (local.get $fd) (i32.const 64))))
        (local.get $reached)";
    program(imports, "", reach)
}

/// Prints its whole environment.
fn environment() -> String {
    r#"(module
    (import "wasi_snapshot_preview1" "fd_write" (func $fd_write (param i32 i32 i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "environ_sizes_get" (func $sizes (param i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "environ_get" (func $get (param i32 i32) (result i32)))
    (memory (export "memory") 8)
    (data (i32.const 64) "Content-Type: text/plain\0a\0a")
    (func $print (param i32 i32)
      (i32.store (i32.const 16) (local.get 0)) (i32.store (i32.const 20) (local.get 1))
      (drop (call $fd_write (i32.const 1) (i32.const 16) (i32.const 1) (i32.const 8))))
    (func (export "_start")
      (drop (call $sizes (i32.const 32) (i32.const 36)))
      (drop (call $get (i32.const 4096) (i32.const 65536)))
      (call $print (i32.const 64) (i32.const 26))
      (call $print (i32.const 65536) (i32.load (i32.const 36)))))"#
        .into()
}

fn secret_stays(stand: &mut Stand, app: &str) -> Outcome {
    let (reply, cause) = stand.ask(app)?;
    if reply.text().contains(SECRET) {
        return Err("it read the host's secret".into());
    }
    if !reply.text().contains("REQUEST_METHOD=GET") {
        return Err(no_attack(format!("{} {cause} {}", reply.status, reply.text())));
    }
    let count = reply.text().split('\0').filter(|variable| !variable.is_empty()).count();
    Ok(format!("it has {count} variables, all of its own request"))
}

const SOCKETS: &str = r#"(import "wasi:sockets/instance-network@0.2.0" "instance-network" (func $network (result i32)))
(import "wasi:sockets/tcp-create-socket@0.2.0" "create-tcp-socket" (func $socket (param i32 i32)))
(import "wasi:sockets/tcp@0.2.0" "[method]tcp-socket.start-connect"
  (func $connect (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32)))
(import "wasi:sockets/tcp@0.2.0" "[method]tcp-socket.start-bind"
  (func $bind (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32)))
(import "wasi:sockets/ip-name-lookup@0.2.0" "resolve-addresses" (func $resolve (param i32 i32 i32 i32)))
;; IMPORTS END"#;

/// Each result is laid out at 2048: 0 there means success.
fn with_socket(what: &str) -> String {
    format!(
        "{SOCKETS} {CALL}
        (call $socket (i32.const 0) (i32.const 2048))
        (if (i32.load8_u (i32.const 2048)) (then (return (global.get $nothing))))
        {what}
        (select (global.get $nothing) (global.get $ok) (i32.load8_u (i32.const 2048))))"
    )
}

const NO_MORE: &str =
    "(i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 2048)";

fn connecting(address: &str) -> String {
    with_socket(&format!(
        "(call $connect (i32.load (i32.const 2052)) (call $network) (i32.const 0) {address} {NO_MORE})"
    ))
}

fn listening() -> String {
    with_socket(&format!(
        "(call $bind (i32.load (i32.const 2052)) (call $network) (i32.const 0)
          (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) {NO_MORE})"
    ))
}

fn looking_up() -> String {
    format!(
        r#"{SOCKETS} (data (i32.const 4096) "localhost") {CALL}
        (call $resolve (call $network) (i32.const 4096) (i32.const 9) (i32.const 2048))
        (select (global.get $nothing) (global.get $ok) (i32.load8_u (i32.const 2048))))"#
    )
}

/// All that an operator can grant without naming a special address.
const EVERYWHERE: &[&str] = &[
    "http://*:*",
    "https://*:*",
    "tcp://*:*",
    "http://0.0.0.0/0:*",
    "http://[::/0]:*",
    "tcp://0.0.0.0/0:*",
    "tcp://[::/0]:*",
];

/// Sends a request. Each result is laid out at 2048: 0 there means success. `$verdict` waits for what comes of it, and says that it got
/// nothing only where the host has refused the destination: whether somebody is there says something, too.
fn requesting(authority: &str) -> String {
    format!(
        r#"(import "wasi:http/types@0.2.0" "[constructor]fields" (func $fields (result i32)))
        (import "wasi:http/types@0.2.0" "[constructor]outgoing-request" (func $request (param i32) (result i32)))
        (import "wasi:http/types@0.2.0" "[method]outgoing-request.set-scheme" (func $scheme (param i32 i32 i32 i32 i32) (result i32)))
        (import "wasi:http/types@0.2.0" "[method]outgoing-request.set-authority" (func $authority (param i32 i32 i32 i32) (result i32)))
        (import "wasi:http/types@0.2.0" "[method]outgoing-request.set-path-with-query" (func $path (param i32 i32 i32 i32) (result i32)))
        (import "wasi:http/types@0.2.0" "[method]future-incoming-response.subscribe" (func $subscribe (param i32) (result i32)))
        (import "wasi:http/types@0.2.0" "[method]future-incoming-response.get" (func $get (param i32 i32)))
        (import "wasi:io/poll@0.2.0" "[method]pollable.block" (func $block (param i32)))
        (import "wasi:http/outgoing-handler@0.2.0" "handle" (func $handle (param i32 i32 i32 i32)))
        ;; IMPORTS END
        (data (i32.const 4096) "{authority}")
        (data (i32.const 4352) "/")
        ;; Codes 4, 15 and 19: the address is prohibited, the request denied, its target none.
        (func $is_refused (param $code i32) (result i32)
          (i32.or (i32.or (i32.eq (local.get $code) (i32.const 4)) (i32.eq (local.get $code) (i32.const 15)))
            (i32.eq (local.get $code) (i32.const 19))))
        (func $verdict (param $it i32) (result i32)
          (if (i32.load8_u (i32.const 2048)) (then
            (return (select (global.get $nothing) (global.get $ok) (call $is_refused (i32.load8_u (i32.const 2056)))))))
          (local.set $it (i32.load (i32.const 2056)))
          (call $block (call $subscribe (local.get $it)))
          (call $get (local.get $it) (i32.const 2048))
          (select (global.get $nothing) (global.get $ok)
            (i32.and (i32.load8_u (i32.const 2064)) (call $is_refused (i32.load8_u (i32.const 2072))))))
        {CALL} (local $it i32)
        (local.set $it (call $request (call $fields)))
        (drop (call $scheme (local.get $it) (i32.const 1) (i32.const 0) (i32.const 0) (i32.const 0)))
        (drop (call $authority (local.get $it) (i32.const 1) (i32.const 4096) (i32.const {})))
        (drop (call $path (local.get $it) (i32.const 1) (i32.const 4352) (i32.const 1)))
        (call $handle (local.get $it) (i32.const 0) (i32.const 0) (i32.const 2048))
        (call $verdict (local.get $it)))"#,
        authority.len()
    )
}

/// Whatever the guest is told: nobody may come.
fn request_that_arrives(stand: &mut Stand) -> Outcome {
    let app = attacker("request-that-arrives");
    let listener = TcpListener::bind("127.0.0.1:0").map_err(no_attack)?;
    listener.set_nonblocking(true).map_err(no_attack)?;
    let address = listener.local_addr().map_err(no_attack)?;
    stand.serve(&app, &Source::wsgi(requesting(&address.to_string())), "")?;
    let asked = stand.ask(&app);
    std::thread::sleep(std::time::Duration::from_millis(300));
    stand.remove(&app);
    if listener.accept().is_ok() {
        return Err("it connected".into());
    }
    match asked?.0.text().as_str() {
        NOTHING => Ok("nobody came, and it was told so".into()),
        other => Err(format!("nobody came, but it got {other:?}").into()),
    }
}

fn exiting() -> String {
    r#"(module
    (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
    (memory (export "memory") 1)
    (func (export "_start") (call $exit (i32.const 0))))"#
        .into()
}
