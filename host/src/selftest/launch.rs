//! One attack, from the file that is dropped into the apps directory to the verdict.

use std::time::Duration;

use super::attack::{App, Attack, By, Cause, Expected, NOTHING, Outcome, Unstopped, no_attack};
use super::stand::{self, Judged, Stand, attacker};
use super::terms::{self, Shorter};
use super::watch::{CompilerWatch, Used};

pub(super) fn launch(attack: &Attack, stand: &mut Stand) -> Outcome {
    match &attack.by {
        By::Nobody(reason) => Err(Unstopped::NotTried(reason.clone())),
        By::Hand(hand) => hand(stand),
        By::App(app) => {
            let name = attacker(attack.name);
            let outcome = attack_with(&name, app, stand);
            stand.remove(&name);
            outcome
        }
    }
}

fn attack_with(name: &str, app: &App, stand: &mut Stand) -> Outcome {
    let wasm = app.source.assemble().map_err(|error| no_attack(format!("{error:#}")))?;
    let Shorter { lines, patience } = &app.shorter;
    let sidecar = format!("{}{}", asked(app.asks), limits(lines));
    let watch = CompilerWatch::begin(stand.process());
    let judged = stand.deploy_within(app.shorter.patience, name, &wasm, &sidecar)?;
    let used = watch.end();
    if let Expected::Compiled { refused } = app.expected {
        return compiled(stand, name, judged, &used, refused);
    }
    if let Expected::Refused(words) = &app.expected {
        return match judged {
            Judged::Refused(reason) => refused_for(&reason, words),
            Judged::Live => Err("it is served".into()),
        };
    }
    if let Judged::Refused(reason) = judged {
        return Err(by_size(&reason).unwrap_or_else(|| no_attack(reason)));
    }
    if let Expected::Judged(judge) = app.expected {
        return judge(stand, name);
    }
    let (reply, cause) = stand.ask_within(*patience, name, "")?;
    let shown = reply.text().chars().take(80).collect::<String>();
    let got = format!("it got {} {shown:?}, cause {cause:?}", reply.status);
    let counts = |causes: &[&str], found: &str| {
        let instead = |cause: &&str| terms::instead_of(&stand.config, cause).iter().any(|(_, other)| *other == found);
        causes.contains(&found) || causes.iter().any(instead)
    };
    let is_stopped = match &app.expected {
        Expected::Fails(causes) => fails(&stand.config, causes, (reply.status, &cause)),
        Expected::CutOff(causes) => reply.status == 200 && !reply.whole && counts(causes, &cause),
        Expected::FailsAfterwards(causes) => {
            let failed = stand.log.wait(*patience, |line| {
                stand::text(line, "app") == name && counts(causes, &stand::text(line, "cause"))
            });
            let Some(line) = failed else { return Err(format!("nothing stopped it; {got}").into()) };
            return Ok(stand::text(&line, "cause"));
        }
        Expected::GetsNothing => reply.status == 200 && reply.text() == NOTHING,
        Expected::Refused(_) | Expected::Compiled { .. } | Expected::Judged(_) => false,
    };
    match &app.expected {
        _ if !is_stopped => Err(got.into()),
        Expected::GetsNothing => Ok("it got nothing".into()),
        _ => Ok(format!("{} {cause}", reply.status)),
    }
}

/// A bomb is harmless if its compiler kept within its limits, whatever came of it.
fn compiled(stand: &mut Stand, name: &str, judged: Judged, used: &Used, words: &[&str]) -> Outcome {
    let limits = &stand.config.limits;
    // What a process has before it limits itself, and the second in which the kernel counts.
    let (memory_max, time_max) =
        (limits.compile_memory_bytes + (64 << 20), limits.compile_time + Duration::from_secs(2));
    if used.address_bytes > memory_max || used.time > time_max {
        return Err(format!("its compiler has taken {used}").into());
    }
    match judged {
        Judged::Refused(reason) => refused_for(&reason, words).map(|reason| format!("{reason} ({used})")),
        Judged::Live => match stand.ask(name)?.0.status {
            200 if used.address_bytes == 0 => Err(no_attack("nobody saw a compiler")),
            200 => Ok(format!("compiled, and harmless ({used})")),
            status => Err(format!("it is served, and answers {status}").into()),
        },
    }
}

/// Whether a call failed in one of these ways, or in one that comes before them under this configuration.
pub(super) fn fails(config: &crate::config::Config, causes: &[Cause], (status, cause): (u16, &str)) -> bool {
    let instead = causes.iter().flat_map(|(_, cause)| terms::instead_of(config, cause));
    causes.iter().copied().chain(instead).any(|expected| expected == (status, cause))
}

/// A refusal has to have one of these words.
pub(super) fn refused_for(reason: &str, words: &[&str]) -> Outcome {
    match words.iter().any(|word| reason.contains(word)) {
        true => Ok(first_line(reason)),
        false => Err(format!("refused, but for another reason: {reason}").into()),
    }
}

/// A program that this operator gives nobody room for from the start: what it would have tried is not known.
fn by_size(reason: &str) -> Option<Unstopped> {
    let is_too_large =
        ["has a minimum byte size of", "has a minimum element size of"].map(|words| reason.contains(words));
    is_too_large.contains(&true).then(|| {
        Unstopped::NotTried(format!("limits.memory or limits.table_elements has no room: {}", first_line(reason)))
    })
}

/// Where an attack asks to go, as a line of a sidecar.
fn asked(destinations: &[&str]) -> String {
    if destinations.is_empty() { String::new() } else { format!("outbound = {destinations:?}\n") }
}

/// Lines of limits as a part of a sidecar.
pub(super) fn limits(lines: &str) -> String {
    if lines.is_empty() { String::new() } else { format!("[limits]\n{lines}") }
}

pub(super) fn first_line(text: &str) -> String {
    let line = text.lines().next().unwrap_or_default();
    if line.chars().count() > 120 {
        format!("{}…", line.chars().take(120).collect::<String>())
    } else {
        line.to_owned()
    }
}
