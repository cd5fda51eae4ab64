//! `wasgi selftest`: the operator's own configuration, attacked. Each attack is run against a host of this very binary; a
//! neighbour that behaves is asked all the while.
//!
//! An attack that is not stopped by what is said to stop it got through, and so did one that leaves the neighbour unanswered
//! or the host dead.

mod attack;
mod attacks;
mod guests;
mod neighbour;
mod stand;
mod wire;

use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use crate::config::{Config, Destination};
use attack::{App, Attack, By, Expected, Group, NOTHING, Outcome};
use guests::Source;
use neighbour::{Fared, Neighbour};
use stand::{Judged, Stand};

const NEIGHBOUR: &str = "neighbour";

/// A limit above this protects nobody from an attack that takes time.
const PROTECTS_UP_TO: Duration = Duration::from_secs(60);

/// What is run, and where from.
pub struct Plan<'a> {
    /// The names of attacks, or of groups; all where there are none.
    pub only: &'a [String],
    pub config: Config,
}

/// How it went.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    pub stopped: usize,
    pub through: usize,
}

/// Every attack, by group: names and what they try.
pub fn list() -> String {
    let mut text = String::new();
    for Group { title, attacks } in attacks::all() {
        text.push_str(&format!("{title}\n"));
        for Attack { name, tries, .. } in attacks {
            text.push_str(&format!("  {name:<26} {tries}\n"));
        }
    }
    text
}

/// The program of an attack, to be read.
pub fn source(name: &str) -> Option<String> {
    let attack = attacks::all().into_iter().flat_map(|group| group.attacks).find(|attack| attack.name == name)?;
    let By::App(App { source, .. }) = attack.by else { return Some("(a client, or whoever writes files)\n".into()) };
    Some(match source {
        Source::Wsgi(text) | Source::Cgi(text) | Source::Component(text) => format!("{}\n", text.trim()),
        Source::Bytes(_) => "(bytes that are made when they are needed)\n".into(),
    })
}

/// Runs the attacks, and reports each as it ends.
///
/// # Errors
/// Where the host does not come up, or no attack has such a name.
pub fn run(plan: Plan<'_>, report: &mut dyn FnMut(&str)) -> anyhow::Result<Tally> {
    let Plan { only, config } = plan;
    let chosen = chosen(only)?;
    let mut stand = Stand::start(granting(config)?)?;
    let wasm = Source::call("").assemble().context("the neighbour")?;
    if let Ok(Judged::Refused(reason)) | Err(reason) = stand.deploy(NEIGHBOUR, &wasm, "") {
        bail!("a harmless app is not served under this configuration: {reason}");
    }
    let neighbour = Neighbour::visit(stand.address, NEIGHBOUR);
    std::thread::sleep(Duration::from_secs(1));
    let alone = neighbour.fared();
    if let Some(wrong) = alone.wrong {
        bail!("a harmless app is not served under this configuration: {wrong}");
    }
    let before = stand.resident_bytes();
    report(&format!("neighbour, undisturbed: {}\n", latency(&alone)));
    let (mut tally, mut most) = (Tally::default(), before);
    for Group { title, attacks } in chosen {
        report(&format!("\n{title}\n"));
        for attack in attacks {
            let begin = Instant::now();
            let outcome = launch(&attack, &mut stand);
            let took = begin.elapsed();
            let fared = neighbour.fared();
            let outcome = outcome.and_then(|stopped| match &fared.wrong {
                Some(wrong) => Err(wrong.clone()),
                None => Ok(stopped),
            });
            most = most.max(stand.resident_bytes());
            let line = match &outcome {
                Ok(by) => format!(
                    "  stopped      {:<26} {} — {by}, {took:.2?}; neighbour: {}\n",
                    attack.name,
                    attack.tries,
                    latency(&fared)
                ),
                Err(what) => format!(
                    "  GOT THROUGH  {:<26} {} — {what}, {took:.2?}; neighbour: {}\n",
                    attack.name,
                    attack.tries,
                    latency(&fared)
                ),
            };
            report(&line);
            if outcome.is_ok() {
                tally.stopped += 1
            } else {
                tally.through += 1
            }
            if !stand.is_up() {
                bail!("the host died of {}", attack.name);
            }
        }
    }
    report(&format!("\nthe host's memory: {} MiB before, {} MiB at most\n", before >> 20, most >> 20));
    Ok(tally)
}

fn latency(fared: &Fared) -> String {
    if fared.asked == 0 {
        return "not asked meanwhile".into();
    }
    format!("median {:.1?}, worst {:.1?}", fared.median, fared.worst)
}

fn chosen(only: &[String]) -> anyhow::Result<Vec<Group>> {
    let mut groups = attacks::all();
    let known = |groups: &[Group], name: &String| {
        groups.iter().any(|group| group.title == *name || group.attacks.iter().any(|attack| attack.name == *name))
    };
    if let Some(unknown) = only.iter().find(|name| !known(&groups, name)) {
        bail!("there is no attack {unknown:?}: `wasgi selftest --list` shows all of them");
    }
    if !only.is_empty() {
        for group in &mut groups {
            group.attacks.retain(|attack| only.iter().any(|name| *name == group.title || *name == attack.name));
        }
        groups.retain(|group| !group.attacks.is_empty());
    }
    Ok(groups)
}

fn launch(attack: &Attack, stand: &mut Stand) -> Outcome {
    match &attack.by {
        By::Hand(hand) => hand(stand),
        By::App(app) => {
            let outcome = attack_with(attack.name, app, stand);
            stand.remove(attack.name);
            outcome
        }
    }
}

fn attack_with(name: &str, app: &App, stand: &mut Stand) -> Outcome {
    let wasm = app.source.assemble().map_err(|error| format!("the attack cannot be assembled: {error:#}"))?;
    let sidecar = format!("{}{}", asked(app.asks), lowered(app.lower, &stand.config));
    let judged = stand.deploy(name, &wasm, &sidecar)?;
    if let Expected::Refused(words) = &app.expected {
        return match judged {
            Judged::Refused(reason) if words.iter().any(|word| reason.contains(word)) => Ok(first_line(&reason)),
            Judged::Refused(reason) => Err(format!("refused, but for another reason: {reason}")),
            Judged::Live => Err("it is served".into()),
        };
    }
    if let Judged::Refused(reason) = judged {
        // A program may ask for more than this operator gives anybody.
        let by_limits = ["limit", "memory", "table", "size"].iter().any(|word| reason.contains(word));
        return match app.expected {
            Expected::RefusedOrServed => Ok(first_line(&reason)),
            _ if by_limits => Ok(format!("not deployed: {}", first_line(&reason))),
            _ => Err(format!("the attack did not take place, since it was not deployed: {reason}")),
        };
    }
    if let Expected::Judged(judge) = app.expected {
        return judge(stand, name);
    }
    let (reply, cause) = stand.ask(name)?;
    let got =
        || format!("it got {} {:?}, cause {cause:?}", reply.status, reply.text().chars().take(80).collect::<String>());
    let stopped = match &app.expected {
        Expected::Fails(status, causes) => reply.status == *status && causes.contains(&&*cause),
        Expected::CutOff(causes) => reply.status == 200 && !reply.whole && causes.contains(&&*cause),
        Expected::FailsAfterwards(causes) => {
            let failed = stand.log.wait(stand::PATIENCE, |line| {
                stand::text(line, "app") == name && causes.contains(&&*stand::text(line, "cause"))
            });
            let Some(line) = failed else { return Err(format!("nothing stopped it; {}", got())) };
            return Ok(stand::text(&line, "cause"));
        }
        Expected::GetsNothing => reply.status == 200 && reply.text() == NOTHING,
        Expected::RefusedOrServed => reply.status == 200,
        Expected::Refused(_) | Expected::Judged(_) => false,
    };
    if !stopped {
        return Err(got());
    }
    Ok(match &app.expected {
        Expected::GetsNothing => "it got nothing".into(),
        Expected::RefusedOrServed => "compiled within the limits, and harmless".into(),
        _ => format!("{} {cause}", reply.status),
    })
}

/// The attack's own limits as a sidecar. They shorten what the operator's would end as well; where the operator's protect
/// nobody, they are left out, and the attack shows it.
fn lowered(limits: &[(&str, Duration)], config: &Config) -> String {
    let operators = &config.limits;
    let lines: String = limits
        .iter()
        .filter(|(key, wanted)| match *key {
            "cpu_time" => operators.cpu_time > *wanted && operators.cpu_time <= PROTECTS_UP_TO,
            "compile_time" => operators.compile_time > *wanted && operators.compile_time <= PROTECTS_UP_TO,
            // Waiting costs nobody anything, however long an operator allows it.
            "wall_time" => operators.wall_time > *wanted,
            "first_byte_time" => operators.first_byte_time > *wanted,
            "idle_time" => operators.idle_time > *wanted,
            _ => false,
        })
        .map(|(key, wanted)| format!("{key} = \"{}\"\n", humantime::format_duration(*wanted)))
        .collect();
    if lines.is_empty() { lines } else { format!("[limits]\n{lines}") }
}

/// Where an attack asks to go, as a line of a sidecar.
fn asked(destinations: &[&str]) -> String {
    if destinations.is_empty() {
        return String::new();
    }
    let texts: Vec<String> = destinations.iter().map(|text| format!("\"{text}\"")).collect();
    format!("outbound = [{}]\n", texts.join(", "))
}

/// The operator's configuration, with the grants that attacks have which go beyond one.
fn granting(mut config: Config) -> anyhow::Result<Config> {
    for attack in attacks::all().into_iter().flat_map(|group| group.attacks) {
        let By::App(App { asks, .. }) = attack.by else { continue };
        let destinations = asks.iter().map(|text| text.parse::<Destination>().map_err(anyhow::Error::msg));
        config.grants.outbound.add(attack.name, destinations.collect::<Result<_, _>>()?);
    }
    Ok(config)
}

fn first_line(text: &str) -> String {
    let line = text.lines().next().unwrap_or_default();
    if line.chars().count() > 120 {
        format!("{}…", line.chars().take(120).collect::<String>())
    } else {
        line.to_owned()
    }
}
