//! Whoever may write into the apps directory, and writes there what is no app: links, pipes, odd names, greedy sidecars.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;

use rustix::fs::{CWD, FileType, Mode, mknodat};

use super::{Attack, Outcome, Unstopped, no_attack};
use crate::selftest::guests::Source;
use crate::selftest::launch::refused_for;
use crate::selftest::stand::{self, Judged, NEIGHBOUR, Stand, text};
use crate::selftest::wire;

/// Where whoever deploys may write.
const FOLDER: &str = "selftest-files";

pub(super) fn attacks() -> Vec<Attack> {
    vec![
        Attack::hand("link-out", "a link to a component outside the apps directory", link_out),
        Attack::hand("link-to-directory", "a link to the host's own state directory", link_to_directory),
        Attack::hand("pipe", "a pipe that nobody writes to", pipe),
        Attack::hand("odd-names", "names with dots, spaces, line breaks and terminal codes", odd_names),
        Attack::hand("steal-a-route", "a sidecar that claims the neighbour's place", steal_a_route),
        Attack::hand("raise-limits", "a sidecar that asks for more than the operator allows", raise_limits),
        Attack::hand("pose-as-the-server", "a sidecar that sets REMOTE_USER", pose_as_the_server),
        Attack::hand("giant-sidecar", "a sidecar of a megabyte", giant_sidecar),
        Attack::hand(
            "unreadable-sidecar",
            "a sidecar that is not TOML, to be served without its limits",
            unreadable_sidecar,
        ),
        Attack::hand("break-a-release", "a broken file in the place of a live app", break_a_release),
        Attack::hand("thousand-files", "a thousand broken files at once", thousand_files),
    ]
}

fn app() -> Result<Vec<u8>, String> {
    Source::call("").assemble().map_err(|error| format!("{error:#}"))
}

fn status(stand: &Stand, target: &str) -> Result<u16, String> {
    Ok(stand.talk(&wire::get(target))?.status)
}

fn io(error: std::io::Error) -> Unstopped {
    no_attack(error)
}

/// The folder, with an app in it that is served: what is not served beside it is so for a reason of its own.
fn folder(stand: &Stand) -> Result<PathBuf, Unstopped> {
    stand.serve(&stand.new_name(FOLDER), &Source::call(""), "")?;
    Ok(stand.apps_dir().join(FOLDER))
}

/// After a while in which the host has looked at the directory more than once.
fn is_not_served(stand: &Stand, target: &str) -> Outcome {
    std::thread::sleep(std::time::Duration::from_millis(1500));
    match status(stand, target)? {
        404 => Ok("not served".into()),
        status => Err(format!("{target} answers {status}").into()),
    }
}

fn link_out(stand: &mut Stand) -> Outcome {
    let outside = stand.folder().join("outside.wasm");
    fs::write(&outside, app()?).map_err(io)?;
    let link = folder(stand)?.join("link-out.wasm");
    symlink(&outside, &link).map_err(io)?;
    let outcome = is_not_served(stand, &format!("/{FOLDER}/link-out"));
    fs::remove_file(link).map_err(io)?;
    outcome
}

fn link_to_directory(stand: &mut Stand) -> Outcome {
    fs::create_dir_all(stand.folder().join("elsewhere")).map_err(io)?;
    fs::write(stand.folder().join("elsewhere/inner.wasm"), app()?).map_err(io)?;
    let link = folder(stand)?.join("linked");
    symlink(stand.folder().join("elsewhere"), &link).map_err(io)?;
    let outcome = is_not_served(stand, &format!("/{FOLDER}/linked/inner"));
    fs::remove_file(link).map_err(io)?;
    outcome
}

fn pipe(stand: &mut Stand) -> Outcome {
    let path = folder(stand)?.join("pipe.wasm");
    mknodat(CWD, &path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).map_err(|error| io(error.into()))?;
    // Who waits for the pipe takes nothing else.
    let next = format!("{FOLDER}/after-the-pipe");
    let outcome =
        is_not_served(stand, &format!("/{FOLDER}/pipe")).and_then(|_| match stand.deploy(&next, &app()?, "")? {
            Judged::Live => Ok("not waited for: the next app goes live".into()),
            Judged::Refused(reason) => Err(reason.into()),
        });
    stand.remove(&next);
    fs::remove_file(path).map_err(io)?;
    outcome
}

fn odd_names(stand: &mut Stand) -> Outcome {
    let names = [
        "..wasm",
        "...wasm",
        "a b.wasm",
        "line\nbreak.wasm",
        "\u{1b}[31mred.wasm",
        "-rf.wasm",
        "%2e%2e.wasm",
        "C:\\x.wasm",
    ];
    let seen = stand.log.count();
    let folder = folder(stand)?;
    for name in names {
        fs::write(folder.join(name), app()?).map_err(io)?;
    }
    std::thread::sleep(std::time::Duration::from_millis(1500));
    let forged = stand.log.all(seen, |line| {
        line.as_object().is_none_or(|line| {
            line.values().any(|value| value.as_str().is_some_and(|text| text.contains(['\u{1b}', '\n'])))
        })
    });
    for name in names {
        fs::remove_file(folder.join(name)).map_err(io)?;
    }
    // Whatever is said of them: that they were seen.
    let seen = stand.log.all(seen, |line| {
        text(line, "app").starts_with(FOLDER) && !text(line, "app").starts_with("selftest-files/app-")
    });
    match (forged.first(), status(stand, "/..")?) {
        (Some(line), _) => Err(format!("the log has {line}").into()),
        _ if seen.is_empty() => Err(no_attack("the log says nothing of these files")),
        (None, 400 | 404) => Ok("none leaves the directory or the line".into()),
        (None, status) => Err(format!("/.. answers {status}").into()),
    }
}

/// A sidecar that has to refuse an app of this tenant, for a reason in which these words stand. Without it, such an app is served.
fn sidecar(stand: &Stand, tenant: &str, toml: &str, words: &str) -> Outcome {
    let (harmless, name) = (stand.new_name(tenant), stand.new_name(tenant));
    let served = stand.serve(&harmless, &Source::call(""), "");
    stand.remove(&harmless);
    served?;
    let judged = stand.deploy(&name, &app()?, toml);
    stand.remove(&name);
    match judged? {
        Judged::Refused(why) => refused_for(&why, &[words]),
        Judged::Live => Err("it is served".into()),
    }
}

/// Of the neighbour's own tenant: another's could not even ask for a place there.
fn steal_a_route(stand: &mut Stand) -> Outcome {
    let routes = format!("routes = [\"/{NEIGHBOUR}\"]");
    sidecar(stand, "selftest-neighbour", &routes, "has the route /selftest-neighbour/app already")
}

fn raise_limits(stand: &mut Stand) -> Outcome {
    let asked = stand.config.limits.memory_bytes.saturating_mul(2);
    sidecar(stand, "selftest-raise", &format!("[limits]\nmemory = \"{asked}B\"\n"), "limits.memory")
}

fn pose_as_the_server(stand: &mut Stand) -> Outcome {
    for (name, value) in [("REMOTE_USER", "root"), ("HTTP_HOST", "bank.example")] {
        sidecar(stand, "selftest-pose", &format!("[env]\n{name} = \"{value}\"\n"), name)?;
    }
    Ok("the server's variables are nobody's to set".into())
}

fn giant_sidecar(stand: &mut Stand) -> Outcome {
    let toml = format!("[env]\nA = \"{}\"\n", "x".repeat(1 << 20));
    sidecar(stand, "selftest-giant", &toml, "the limit is 64.0 KiB")
}

fn unreadable_sidecar(stand: &mut Stand) -> Outcome {
    sidecar(stand, "selftest-unreadable", "[limits\ncpu_time = 1s", "unclosed table")
}

fn break_a_release(stand: &mut Stand) -> Outcome {
    let name = "selftest-broken/app";
    stand.serve(name, &Source::call(""), "")?;
    let judged = stand.deploy(name, b"\0asm\x0d\0\x01\0broken", "")?;
    let served = stand.ask(name)?;
    stand.remove(name);
    match (judged, served.0.status) {
        (Judged::Refused(_), 200) => Ok("refused; the old release serves".into()),
        (Judged::Refused(_), status) => Err(format!("the old release answers {status}").into()),
        (Judged::Live, _) => Err("it is live".into()),
    }
}

fn thousand_files(stand: &mut Stand) -> Outcome {
    let seen = stand.log.count();
    for index in 0..1000 {
        let name = format!("{FOLDER}/broken-{index}.wasm");
        stand::put(&stand.apps_dir(), &name, b"\0asm broken").map_err(io)?;
    }
    let next = format!("{FOLDER}/after-the-thousand");
    let outcome = match stand.deploy(&next, &app()?, "")? {
        Judged::Live => Ok("an app among them goes live".to_owned()),
        Judged::Refused(reason) => Err(reason.into()),
    };
    stand.remove(&next);
    for index in 0..1000 {
        stand.remove(&format!("{FOLDER}/broken-{index}"));
    }
    let of_them = |line: &serde_json::Value| text(line, "app").starts_with("selftest-files/broken-");
    if !stand.log.all(seen, |line| of_them(line) && text(line, "message") == "live").is_empty() {
        return Err("a broken file is served".into());
    }
    match stand.log.all(seen, of_them).len() {
        0 => Err(no_attack("the log says nothing of these files")),
        _ => outcome,
    }
}
