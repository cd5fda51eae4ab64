//! The commands beside `serve`: exit codes, and what they say.

use std::path::Path;
use std::process::{Command, Output};

use tests::{Host, guest, repository, wasgi};

struct Ran {
    code: Option<i32>,
    out: String,
    err: String,
}

fn run(command: &mut Command) -> Ran {
    let Output { status, stdout, stderr } = command.output().expect("the binary can be run");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("it prints text");
    Ran { code: status.code(), out: text(stdout), err: text(stderr) }
}

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().expect("there is a temporary directory")
}

fn write(folder: &Path, file: &str, bytes: impl AsRef<[u8]>) {
    std::fs::write(folder.join(file), bytes).expect("the directory is ours");
}

#[test]
fn check_says_what_a_good_app_is() {
    let folder = folder();
    write(folder.path(), "probe.wasm", guest("probe"));
    let ran = run(wasgi().current_dir(&folder).args(["check", "probe.wasm"]));
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    for words in ["wsgi", "0.1.0", "KiB", "wasi:clocks"] {
        assert!(ran.out.contains(words), "{words}: {}", ran.out);
    }
}

#[test]
fn check_says_why_a_bad_one_would_not_deploy() {
    let folder = folder();
    write(folder.path(), "page.wasm", "<!DOCTYPE html>");
    write(folder.path(), "good.wasm", guest("probe"));
    write(folder.path(), "sidecar.wasm", guest("probe"));
    write(folder.path(), "sidecar.toml", "no_such_key = 1");
    for (file, words) in [("page.wasm", "not"), ("missing.wasm", "No such file"), ("sidecar.wasm", "no_such_key")] {
        let ran = run(wasgi().current_dir(&folder).args(["check", "good.wasm", file]));
        assert_eq!(ran.code, Some(1), "{file}");
        assert!(ran.err.contains(words) && ran.err.contains(file.split('.').next().unwrap_or(file)), "{}", ran.err);
    }
}

#[test]
fn check_config_prints_the_configuration_or_what_is_wrong_with_it() {
    let folder = folder();
    write(folder.path(), "wasgi.toml", "[limits]\ncpu_time = '123ms'\n");
    let ran = run(wasgi().current_dir(&folder).args(["check", "--config"]));
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    assert!(ran.out.contains("cpu_time = \"123ms\"") && ran.out.contains("wall_time"), "{}", ran.out);
    // What it prints is a configuration that says the same.
    write(folder.path(), "again.toml", &ran.out);
    let again = run(wasgi().current_dir(&folder).args(["check", "--config", "-c", "again.toml"]));
    assert_eq!((again.code, again.out), (Some(0), ran.out), "{}", again.err);

    write(folder.path(), "wasgi.toml", "[limits]\ncpu_time = 'soon'\n");
    let ran = run(wasgi().current_dir(&folder).args(["check", "--config"]));
    assert_eq!(ran.code, Some(1));
    assert!(ran.err.contains("wasgi.toml line 2") && ran.err.contains("cpu_time"), "{}", ran.err);
}

#[test]
fn flags_count_more_than_variables_and_these_more_than_the_file() {
    let folder = folder();
    write(folder.path(), "wasgi.toml", "workers = 1\nsandboxes = 11\nreuse_requests = 111\n");
    let mut command = wasgi();
    command.current_dir(&folder).args(["check", "--config"]).env("WASGI_SANDBOXES", "22").env("PORT", "1234");
    let ran = run(&mut command);
    for words in ["workers = 1\n", "sandboxes = 22\n", "reuse_requests = 111\n", "0.0.0.0:1234"] {
        assert!(ran.out.contains(words), "{words}: {}", ran.out);
    }
}

#[test]
fn apps_without_a_host_says_what_to_do() {
    let folder = folder();
    let ran = run(wasgi().current_dir(&folder).arg("apps"));
    assert_eq!(ran.code, Some(1));
    assert!(ran.err.contains("wasgi serve"), "{}", ran.err);
}

#[test]
fn apps_lists_what_is_live_and_what_is_not_and_why() {
    let host = Host::start(|host| host.app("good", guest("probe")).app("bad", "<!DOCTYPE html>"));
    host.get("/good/hello");
    let ran = run(wasgi().arg("apps").arg("--state-dir").arg(host.state_dir()));
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    let line = |name: &str| ran.out.lines().find(|line| line.starts_with(name)).unwrap_or_default();
    for words in ["live", "wsgi", "/good"] {
        assert!(line("good").contains(words), "{words}: {}", ran.out);
    }
    assert!(line("bad").contains("refused"), "{}", ran.out);
    assert!(ran.out.lines().any(|line| line.starts_with("  ! ")), "the reason: {}", ran.out);
}

#[test]
fn an_unknown_word_is_exit_code_2() {
    let ran = run(wasgi().arg("srve"));
    assert_eq!(ran.code, Some(2));
    assert!(ran.err.contains("serve"), "{}", ran.err);
}

#[test]
fn serve_refuses_an_address_in_use_by_name() {
    let host = Host::start(|host| host);
    let folder = folder();
    std::fs::create_dir(folder.path().join("apps")).expect("the directory is ours");
    let ran = run(wasgi().current_dir(&folder).arg("serve").args(["--bind", &host.address().to_string()]));
    assert_eq!(ran.code, Some(1));
    assert!(ran.err.contains(&host.address().to_string()), "{}", ran.err);
}

#[test]
fn a_new_app_builds_and_serves() {
    let folder = folder();
    let ran = run(wasgi()
        .current_dir(&folder)
        .args(["new", "greeter", "--lang", "rust", "--sdk"])
        .arg(repository().join("guest-sdk")));
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    let app = folder.path().join("greeter");
    // What it needs has been downloaded and built for the tests' own guests.
    std::fs::copy(repository().join("tests/guests/Cargo.lock"), app.join("Cargo.lock")).expect("both are there");
    let mut build = wasgi();
    std::fs::create_dir(app.join("www")).expect("the folder is ours");
    write(&app, "www/motto.txt", "carried");
    build
        .current_dir(&app)
        .args(["build", "-o", "../greeter.wasm", "--include", "www"])
        .env("CARGO_NET_OFFLINE", "true");
    build.env("CARGO_TARGET_DIR", repository().join("tests/guests/target"));
    toolchain(&mut build);
    let ran = run(&mut build);
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    let built = std::fs::read(folder.path().join("greeter.wasm")).expect("it was built");
    let host =
        Host::start(|host| host.app("greeter", built).sidecar("greeter", "[static]\n'/motto' = 'www/motto.txt'\n"));
    assert_eq!(host.get("/greeter").status(), 200);
    assert_eq!(host.get("/greeter/motto").text(), "carried");
    let again = run(wasgi().current_dir(&folder).args(["new", "greeter"]));
    assert_eq!(again.code, Some(1), "what is there is not overwritten");
}

#[test]
fn a_new_python_app_is_what_python_understands_and_says_how_to_build_it() {
    let folder = folder();
    let ran = run(wasgi().current_dir(&folder).args(["new", "greeter", "--lang", "python"]));
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    assert!(ran.out.contains("wasgi build app -r requirements.txt -o greeter.wasm"), "{}", ran.out);
    let call = "import app; print(*app.app({}, lambda status, headers: print(status)))";
    let called = run(Command::new("python3").args(["-c", call]).current_dir(folder.path().join("greeter")));
    assert_eq!(called.out, "200 OK\nb'This is a sample WSGI Application.'\n", "{}", called.err);
    assert!(folder.path().join("greeter/requirements.txt").is_file());
}

#[test]
fn a_python_app_is_built_by_the_python_sdk_with_the_same_arguments() {
    let folder = folder();
    let programs = folder.path().join("bin");
    std::fs::create_dir(&programs).expect("the directory is ours");
    let build = |arguments: &[&str]| {
        let mut command = wasgi();
        run(command.current_dir(&folder).arg("build").args(arguments).env("PATH", &programs))
    };
    let missing = build(&["hello:app"]);
    assert_eq!(missing.code, Some(1));
    assert!(missing.err.contains("install Python"), "{}", missing.err);

    let python = |script: &str| {
        let path = programs.join("python3");
        std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).expect("the directory is ours");
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("it is ours");
    };
    python("echo \"ModuleNotFoundError: No module named 'wasgi'\" >&2; exit 1");
    let missing = build(&["hello:app"]);
    assert_eq!(missing.code, Some(1));
    assert!(missing.err.contains("pip install guest-sdk/python"), "{}", missing.err);
    assert!(missing.err.contains("No module named 'wasgi'"), "{}", missing.err);

    python("test \"$1\" = -c || printf '%s|' \"$@\"");
    let ran = build(&["-o", "a.wasm", "-r", "r.txt", "--include", "b c", "-e", "A=1", "-e", "B=", "hello:create('x')"]);
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    let options = "--output|a.wasm|--requirements|r.txt|--include|b c|--env|A=1|--env|B=|--|hello:create('x')|";
    assert_eq!(ran.out, format!("-m|wasgi|build|{options}"));
    write(folder.path(), "manage.py", "");
    assert_eq!(build(&[]).out, "-m|wasgi|build|");
    python("test \"$1\" = -c");
    assert_eq!(build(&[]).code, Some(1), "a build that fails is a failure");
}

/// Lets a build use the very programs that built this test, by path: rustup's stand-ins for them might download others.
fn toolchain(build: &mut Command) {
    let cargo = Path::new(env!("CARGO"));
    let programs = cargo.parent().expect("cargo names itself by its whole path");
    let rustc = std::env::var_os("RUSTC").map_or_else(|| programs.join("rustc"), Into::into);
    assert!(rustc.is_file(), "there is no {} beside cargo", rustc.display());
    assert!(!programs.join("rustup").exists(), "{} is rustup's stand-in", cargo.display());
    let path = std::env::join_paths([programs, Path::new("/usr/bin"), Path::new("/bin")]).expect("no colons");
    build.env("CARGO", cargo).env("RUSTC", rustc).env("PATH", path);
}
