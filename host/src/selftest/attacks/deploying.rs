//! Whoever may write into the apps directory, and writes there what is no app: links, pipes, odd names, greedy sidecars.

use std::fs;
use std::os::unix::fs::symlink;

use rustix::fs::{CWD, FileType, Mode, mknodat};

use super::{Attack, Outcome};
use crate::selftest::guests::Source;
use crate::selftest::stand::{self, Judged, Stand, text};
use crate::selftest::wire;

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

fn io(error: std::io::Error) -> String {
    format!("the attack did not take place: {error}")
}

/// After a while in which the host has looked at the directory more than once.
fn is_not_served(stand: &Stand, target: &str) -> Outcome {
    std::thread::sleep(std::time::Duration::from_millis(1500));
    match status(stand, target)? {
        404 => Ok("not served".into()),
        status => Err(format!("{target} answers {status}")),
    }
}

fn link_out(stand: &mut Stand) -> Outcome {
    let outside = stand.folder().join("outside.wasm");
    fs::write(&outside, app()?).map_err(io)?;
    let link = stand.apps_dir().join("link-out.wasm");
    symlink(&outside, &link).map_err(io)?;
    let outcome = is_not_served(stand, "/link-out");
    fs::remove_file(link).map_err(io)?;
    outcome
}

fn link_to_directory(stand: &mut Stand) -> Outcome {
    fs::create_dir_all(stand.folder().join("elsewhere")).map_err(io)?;
    fs::write(stand.folder().join("elsewhere/inner.wasm"), app()?).map_err(io)?;
    let link = stand.apps_dir().join("linked");
    symlink(stand.folder().join("elsewhere"), &link).map_err(io)?;
    let outcome = is_not_served(stand, "/linked/inner");
    fs::remove_file(link).map_err(io)?;
    outcome
}

fn pipe(stand: &mut Stand) -> Outcome {
    let path = stand.apps_dir().join("pipe.wasm");
    mknodat(CWD, &path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).map_err(|error| io(error.into()))?;
    // Who waits for the pipe takes nothing else.
    let outcome = is_not_served(stand, "/pipe").and_then(|_| match stand.deploy("after-the-pipe", &app()?, "")? {
        Judged::Live => Ok("not waited for: the next app goes live".into()),
        Judged::Refused(reason) => Err(reason),
    });
    stand.remove("after-the-pipe");
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
    for name in names {
        fs::write(stand.apps_dir().join(name), app()?).map_err(io)?;
    }
    std::thread::sleep(std::time::Duration::from_millis(1500));
    let forged = stand.log.all(seen, |line| {
        line.as_object().is_none_or(|line| {
            line.values().any(|value| value.as_str().is_some_and(|text| text.contains(['\u{1b}', '\n'])))
        })
    });
    for name in names {
        fs::remove_file(stand.apps_dir().join(name)).map_err(io)?;
    }
    match (forged.first(), status(stand, "/..")?) {
        (Some(line), _) => Err(format!("the log has {line}")),
        (None, 400 | 404) => Ok("none leaves the directory or the line".into()),
        (None, status) => Err(format!("/.. answers {status}")),
    }
}

/// A sidecar that has to refuse its app, and says so.
fn sidecar(stand: &Stand, name: &str, toml: &str) -> Outcome {
    let judged = stand.deploy(name, &app()?, toml);
    stand.remove(name);
    match judged? {
        Judged::Refused(reason) => Ok(reason.lines().next().unwrap_or_default().chars().take(120).collect()),
        Judged::Live => Err("it is served".into()),
    }
}

fn steal_a_route(stand: &mut Stand) -> Outcome {
    sidecar(stand, "steal-a-route", "routes = [\"/neighbour\"]")
}

fn raise_limits(stand: &mut Stand) -> Outcome {
    let asked = stand.config.limits.memory_bytes.saturating_mul(2);
    sidecar(stand, "raise-limits", &format!("[limits]\nmemory = \"{asked}B\"\n"))
}

fn pose_as_the_server(stand: &mut Stand) -> Outcome {
    sidecar(stand, "pose-as-the-server", "[env]\nREMOTE_USER = \"root\"\nHTTP_HOST = \"bank.example\"\n")
}

fn giant_sidecar(stand: &mut Stand) -> Outcome {
    sidecar(stand, "giant-sidecar", &format!("[env]\nA = \"{}\"\n", "x".repeat(1 << 20)))
}

fn unreadable_sidecar(stand: &mut Stand) -> Outcome {
    sidecar(stand, "unreadable-sidecar", "[limits\ncpu_time = 1s")
}

fn break_a_release(stand: &mut Stand) -> Outcome {
    let name = "break-a-release";
    if let Judged::Refused(reason) = stand.deploy(name, &app()?, "")? {
        return Err(format!("the attack did not take place: {reason}"));
    }
    let judged = stand.deploy(name, b"\0asm\x0d\0\x01\0broken", "")?;
    let served = stand.ask(name)?;
    stand.remove(name);
    match (judged, served.0.status) {
        (Judged::Refused(_), 200) => Ok("refused; the old release serves".into()),
        (Judged::Refused(_), status) => Err(format!("the old release answers {status}")),
        (Judged::Live, _) => Err("it is live".into()),
    }
}

fn thousand_files(stand: &mut Stand) -> Outcome {
    let seen = stand.log.count();
    for index in 0..1000 {
        stand::put(&stand.apps_dir(), &format!("broken-{index}.wasm"), b"\0asm broken").map_err(io)?;
    }
    let outcome = match stand.deploy("after-the-thousand", &app()?, "")? {
        Judged::Live => Ok("an app among them goes live".to_owned()),
        Judged::Refused(reason) => Err(reason),
    };
    stand.remove("after-the-thousand");
    for index in 0..1000 {
        stand.remove(&format!("broken-{index}"));
    }
    let live = stand.log.all(seen, |line| text(line, "app").starts_with("broken-") && text(line, "message") == "live");
    if live.is_empty() { outcome } else { Err("a broken file is served".into()) }
}
