//! `wasgi manage`: a command of an app, run by its operator with what the app has.

use std::io::Write;
use std::process::{Command, Output, Stdio};

use super::disk;
use tests::{Bundle, Host, Request, guest, wasgi};

const GRANT: &str = "[grant]\ndata = ['*']\n";

fn serving() -> Host {
    let sidecar = "data = true\n[env]\nGREETING = 'hello'\nOTHER = 'of the sidecar'\n[limits]\nqueue_time = '1s'";
    Host::start(|host| {
        let bundle = Bundle::default().file("motto.txt", "carried");
        host.app("site", bundle.on(guest("site"))).sidecar("site", sidecar).config(GRANT)
    })
}

fn manage(host: &Host, arguments: &[&str]) -> Command {
    let mut command = wasgi();
    command.current_dir(host.folder()).args(["manage", "--state-dir"]).arg(host.state_dir()).args(arguments);
    command
}

#[track_caller]
fn run(mut command: Command) -> (Option<i32>, String, String) {
    let Output { status, stdout, stderr } = command.output().expect("the binary can be run");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("it prints text");
    (status.code(), text(stdout), text(stderr))
}

#[test]
fn a_command_has_what_the_app_has_beside_a_host_that_serves_it() {
    let host = serving();
    assert_eq!(disk(&host, "site", "write:/data/a:by-the-app"), "done");
    let (code, out, err) = run(manage(
        &host,
        &[
            "-e",
            "OTHER=given",
            "apps/site.wasm",
            "read:/motto.txt",
            "read:/data/a",
            "env:GREETING",
            "env:OTHER",
            "write:/data/b:by hand",
        ],
    ));
    assert_eq!((code, out.as_str()), (Some(0), "carried\nby-the-app\nhello\ngiven\ndone\n"), "{err}");
    assert_eq!(err, "done\n");
    assert_eq!(disk(&host, "site", "read:/data/b"), "by hand");
}

#[test]
fn it_talks_on_the_operators_terminal_and_its_status_is_passed_on() {
    let host = serving();
    let mut child = manage(&host, &["apps/site.wasm", "echo", "exit:7"]);
    let mut child = child.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("the binary can be run");
    child.stdin.take().expect("it is piped").write_all(b"said by hand\n").expect("it reads");
    let output = child.wait_with_output().expect("it ends");
    // WASI 0.2 tells success from failure, and no more.
    assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(1), &b"said by hand\n"[..]));
    assert_eq!(run(manage(&host, &["apps/site.wasm", "fail"])).0, Some(1));
}

#[test]
fn a_command_and_calls_take_turns_at_the_data() {
    let host = serving();
    let mut command = manage(&host, &["apps/site.wasm", "increment:/data/count:2000"]);
    let mut child = command.stdout(Stdio::null()).spawn().expect("the binary can be run");
    tests::eventually("the command has the data", || (host.get("/site?disk=list:/data").status() == 503).then_some(()));
    assert!(child.wait().expect("it ends").success());
    assert_eq!(disk(&host, "site", "increment:/data/count:0"), "2");
    // And the other way round.
    let mut call = host.connect();
    call.send(&Request::get("/site?disk=increment:/data/count:3000").to_bytes());
    tests::eventually("the call has the data", || (host.get("/site?disk=list:/data").status() == 503).then_some(()));
    let (code, out, err) = run(manage(&host, &["apps/site.wasm", "increment:/data/count:0"]));
    assert_eq!((code, out.as_str()), (Some(0), "4\n"), "{err}");
    assert_eq!(call.response("GET").text(), "3");
}

#[test]
fn what_cannot_be_run_is_refused_in_words() {
    let host = serving();
    host.drop_in("plain.wasm", guest("probe"));
    host.drop_in("bad.wasm", "<!DOCTYPE html>");
    std::fs::write(host.folder().join("outside.wasm"), guest("site")).expect("the folder is ours");
    host.write_config("");
    for (file, words) in [
        ("apps/site.wasm", "the operator has not granted it"),
        ("apps/plain.wasm", "it does not export wasi:cli/run"),
        ("apps/bad.wasm", "not WebAssembly"),
        ("apps/none.wasm", "there is no none.wasm"),
        ("apps/site.toml", "does not end in .wasm"),
        ("outside.wasm", "does not lie in the apps directory"),
    ] {
        let (code, out, err) = run(manage(&host, &[file]));
        assert_eq!((code, out.as_str()), (Some(1), ""), "{file}");
        assert!(err.contains(words), "{file}: {err}");
    }
}

#[test]
fn a_command_without_a_host_leaves_the_files_for_one() {
    let host = serving();
    let folder = tempfile::tempdir().expect("there is a temporary directory");
    let mut command = manage(&host, &["apps/site.wasm", "read:/motto.txt"]);
    command.args(["list:/"]);
    let mut elsewhere = wasgi();
    elsewhere.current_dir(host.folder()).args(["manage", "--state-dir"]).arg(folder.path().join("new"));
    elsewhere.args(["apps/site.wasm", "read:/motto.txt"]);
    assert_eq!(run(elsewhere).1, "carried\n");
    assert_eq!(run(command).1, "carried\nmotto.txt\n");
}
